// LoadWorkload: the requests of a run, from a recorded trace or from a workload file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "runtime/base/result.h"
#include "runtime/workload/trace.h"

namespace foretoken {

struct LoadWorkloadOptions {
  size_t limit = 0;       // the first so many requests; 0: all
  double rate_scale = 1;  // arrivals come so many times as fast
  uint64_t seed = 1;      // of a synthetic workload
};

// Exactly one of `trace` and `workload` is a path, the other empty. Error: says what to give, or what is wrong where.
Result<Trace> LoadWorkload(const std::string& trace, const std::string& workload, const LoadWorkloadOptions& options);

}  // namespace foretoken
