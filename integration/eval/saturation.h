// SaturationRate: at how many requests per second a fleet saturates under a workload, measured and not estimated: one instance
// of each kind works alone through requests that all wait from the start, and the rate at which it completes the middle of them
// (from the first quarter to the last) counts once per instance of that kind.
#pragma once

#include "configs/topology.h"
#include "runtime/base/result.h"
#include "runtime/workload/trace.h"

namespace foretoken {

// Requests per second. At most `requests_max` of the trace are used, in ten pieces from all over it. Error: an instance that cannot be simulated, or
// a workload of which an instance completes next to nothing.
Result<double> SaturationRate(const Topology& topology, const Trace& trace, size_t requests_max = 1500);

// Mean requests per second of a trace as it is; 0 for fewer than two.
double MeanRate(const Trace& trace);

}  // namespace foretoken
