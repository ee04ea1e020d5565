// LoadWorkload: the requests of a run, from a recorded trace or from a workload file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "runtime/base/result.h"
#include "runtime/workload/trace.h"

namespace foretoken {

struct LoadWorkloadOptions {
  size_t limit = 0;       // the first so many requests; 0: all
  double rate_scale = 1;  // arrivals come so many times as fast
  uint64_t seed = 1;      // of a synthetic workload, and of where a rotated trace begins
  bool stand_in = false;  // take a workload's stand-in for its trace, if it has one
};

// Absent unless the workload's trace is not there although it may be (it has a stand-in): what to say about it.
std::optional<std::string> AbsentTrace(const std::string& workload);

// Exactly one of `trace` and `workload` is a path, the other empty. Error: says what to give, or what is wrong where.
Result<Trace> LoadWorkload(const std::string& trace, const std::string& workload, const LoadWorkloadOptions& options);

}  // namespace foretoken
