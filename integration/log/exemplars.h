// Exemplars: names in the log some of the requests that were slow or badly predicted, so that a figure that moves leads to a request:
// of a system without HTTP, by the latest decisions in its observations. At most one line of each kind a second.
#pragma once

#include <cstdint>

#include "integration/log/log.h"
#include "integration/observe/observation.h"
#include "runtime/base/units.h"

namespace foretoken {

// A prediction is bad when it is off by more than kBadShare of the truth and by more than kBadLeast: a tenth of a second is not worth a line.
inline constexpr double kBadShare = 0.5;
inline constexpr Duration kBadLeast = Duration::Millis(250);
bool PredictedBadly(Duration predicted, Duration actual);

class Exemplars {
 public:
  explicit Exemplars(Log& log) : log_(log) {}
  // An observation that was looked at already is not looked at again. May be null.
  void Look(const Observation* observation);

 private:
  void Look(const Observation& o, const DecisionSeen& d);

  Log& log_;
  uint64_t seen_ = 0;  // observation
  Instant until_;      // ends before it were looked at
};

}  // namespace foretoken
