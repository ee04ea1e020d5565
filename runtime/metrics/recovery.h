// RecoveryTime: how long after a fault a run is still worse for it. The error of the mirrors is taken as means over slices of time,
// in the faulty run and in the same run without the fault; the band is what the clean run itself reaches in its worst slice.
#pragma once

#include <optional>
#include <vector>

#include "runtime/base/units.h"

namespace foretoken {

struct ErrorSample {
  Instant at;
  double error = 0;
};

struct RecoveryOptions {
  Duration slice = Duration::Millis(500);
  Duration stays = Duration::Seconds(5);  // back means: within the band for so long, or to the end of the run
};

// Samples ascending in time. From `end`, when the last fault is over, to the first slice from which on the error stays within the
// band. Absent: it never does, or there are no samples behind `end`, or none without the fault.
std::optional<Duration> RecoveryTime(const std::vector<ErrorSample>& faulty, const std::vector<ErrorSample>& clean, Instant end,
                                     const RecoveryOptions& options = {});

}  // namespace foretoken
