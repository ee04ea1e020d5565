// The floor of a decision: the same cores, the same predictions, Enqueue and sync message, called directly on one thread. What a
// decision through actors takes above it is the price of messages.
#pragma once

#include <vector>

#include "integration/bench/loaded_simulator.h"

namespace foretoken {

// Nanoseconds of each decision, Enqueue and sync message included, over `candidates` instances. At least one.
Result<std::vector<int64_t>> MeasureDirectDecisions(const StepTimeModel& model, const LoadOptions& load,
                                                    const std::vector<SyncScript>& scripts, int32_t candidates, Duration time);

}  // namespace foretoken
