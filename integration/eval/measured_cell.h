// MeasuredCell: a real run as it was measured, or as the emulated engine replays it, as a row like RunCell's. Figures of a replay are
// its latencies and how far they are from the measured ones ("truth_...", "prediction_..."); its scatter pairs a request's replayed with
// its measured E2E.
#pragma once

#include <boost/json.hpp>

#include "integration/eval/grid.h"
#include "runtime/base/result.h"

namespace foretoken {

// Error: a file that cannot be read, a request that the engine refuses, or a run too short for what is left out at its start.
Result<boost::json::object> RunMeasuredCell(const Grid& grid, const GridCell& cell);

}  // namespace foretoken
