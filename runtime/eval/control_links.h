// ControlLinks: the links between SCHEDULERs and SIMULATORs of a run in virtual time, and what is on its way back on them. Used only
// where a fault plan names them; without, a question is answered at the instant at which it is asked.
//
// Order at one instant: replies by the instance that they come from, then in the order of sending; then deadlines by
// SCHEDULER.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/fault/fault_plan.h"
#include "runtime/fault/link.h"
#include "runtime/model/prediction.h"
#include "runtime/predict/enqueue_order.h"

namespace foretoken {

// On its way to a SIMULATOR.
struct ControlCall {
  size_t scheduler = 0;
  DecisionId decision;
  std::variant<PredictQuery, EnqueueOrder, RequestId> body;  // a RequestId: cancel it
};

// On its way to a SCHEDULER, or due there.
struct ControlEvent {
  struct Predicted {
    DecisionId decision;
    Prediction prediction;
  };
  struct Deadline {
    DecisionId decision;
  };
  size_t scheduler = 0;
  std::variant<Predicted, EnqueueReply, Deadline> body;
};

// Whether the plan says anything of them.
bool HasControlLinks(const FaultPlan& plan);

// The link of one SCHEDULER and the SIMULATOR of one instance, forth or back; SCHEDULERs are named "0", "1", ...
Result<Link> MakeControlLink(const FaultPlan& plan, size_t scheduler, const std::string& instance, bool to_simulator,
                             uint64_t seed);

class ControlLinks {
 public:
  // Absent in the plan: every message arrives at once.
  static Result<std::unique_ptr<ControlLinks>> Make(const FaultPlan& plan, const std::vector<std::string>& instances,
                                                    size_t schedulers, uint64_t seed);

  // When the copies of a call sent now arrive. The host delivers them.
  Deliveries Call(size_t scheduler, InstanceId instance, Instant now);
  void Reply(InstanceId instance, const ControlEvent& reply, Instant now);
  void At(Instant at, ControlEvent deadline);

  // The earliest instant at which a call arrives or something is due at a SCHEDULER; Instant::Max(): never.
  Instant Next() const;
  // All calls up to `until` have been delivered.
  void CallsDelivered(Instant until);
  // The next due at or before `until`, in order; false: none.
  bool Take(Instant until, ControlEvent& event, Instant& at);

  LinkCounters counters() const;

 private:
  struct Due {
    Instant at;
    uint32_t rank = 0;  // the instance, or behind all of them the SCHEDULER
    uint64_t order = 0;
    ControlEvent event;
    bool operator>(const Due& o) const;
  };
  void Push(Due due);

  size_t instances_ = 0;
  std::vector<Link> calls_, replies_;  // by scheduler, then instance
  std::vector<Instant> call_times_;    // a heap, earliest on top
  std::vector<Due> due_;               // likewise
  uint64_t sent_ = 0;
};

}  // namespace foretoken
