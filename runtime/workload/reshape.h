// Reshape: a recorded trace made ready for an experiment: a part of it, begun elsewhere for every seed, laid over itself. Arrivals,
// lengths and what prompts share stay as they were recorded; only their place in time changes.
#pragma once

#include <cstdint>

#include "runtime/workload/trace.h"

namespace foretoken {

struct TraceShape {
  double from = 0;  // the part of the trace, as shares of its requests; 0 <= from < to <= 1
  double to = 1;
  bool rotate = false;  // begin at another point for every seed, and go on from the start where the part ends
  int32_t copies = 1;   // so many of them at once, shifted by an equal share of the part's length; >= 1
  bool operator==(const TraceShape&) const = default;
};

// Requests are numbered 1, 2, ... in order of arrival and keep what they share with others of their own copy; copies share
// nothing with each other. Seed 1 begins at the part's own start. An empty part gives an empty trace.
Trace Reshape(const Trace& trace, const TraceShape& shape, uint64_t seed);

}  // namespace foretoken
