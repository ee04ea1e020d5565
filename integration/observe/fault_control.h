// FaultControl: the fault switch of an emulated cluster: what whoever watches may break while it runs, to see drift appear and heal.
// A system of real engines has none.
#pragma once

#include <optional>
#include <string>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

class ObservationBuilder;

// On the way of the sync stream from the INSTANCE to its SIMULATOR; what is absent stays as it is.
struct FaultOrder {
  std::string instance;           // a name; "*": every one
  std::optional<Duration> delay;  // of every message
  std::optional<double> reorder;  // share of messages that later ones pass
  std::optional<double> drop;     // share of messages that are lost
  std::optional<Duration> kill;   // the engine dies now and is back after this
  bool heal = false;              // all of the above are undone first, but for a dead engine's time
};

class FaultControl {
 public:
  virtual ~FaultControl() = default;
  // Any thread. Error: what is wrong with the order; nothing changes then.
  virtual Status Apply(const FaultOrder& order) = 0;
  // Tells what is switched on now.
  virtual void Show(ObservationBuilder& builder) const = 0;
};

}  // namespace foretoken
