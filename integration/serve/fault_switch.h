// FaultSwitch: the fault control of a live cluster in one process, over the LINKs between its INSTANCEs and SIMULATORs and the emulated
// engines themselves. Made before the cluster is, so that a dashboard can hold it; orders before Attach and after Detach are refused.
#pragma once

#include <caf/actor.hpp>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "integration/observe/fault_control.h"

namespace foretoken {

class FaultSwitch final : public FaultControl {
 public:
  // `links` by instance: INSTANCE -> SIMULATOR.
  void Attach(std::vector<std::string> names, std::vector<caf::actor> links, std::vector<caf::actor> instances);
  void Detach();

  Status Apply(const FaultOrder& order) override;
  void Show(ObservationBuilder& builder) const override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Faults {
    Duration delay;
    double reorder = 0;
    double drop = 0;
    Clock::time_point down_until;
  };

  mutable std::mutex mutex_;
  std::vector<std::string> names_;
  std::vector<caf::actor> links_, instances_;
  std::vector<Faults> faults_;
  uint64_t seed_ = 0;  // of the next link: no two lose the same messages
};

}  // namespace foretoken
