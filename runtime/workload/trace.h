// A workload: requests in order of arrival, each with what scheduling may see and, apart from it, the truth that only an
// emulated engine and the evaluation read.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/model/request.h"

namespace foretoken {

struct TraceRequest {
  RequestMeta meta;  // meta.arrival counts from the start of the trace (>= 0, never decreasing)
  RequestTruth truth;
};

// Closed loop: arrivals come from what was answered, not from a clock. Each of `users` works through conversations, one after the
// other; a request comes `think` (exponential, this mean) after its user's last one ended, whatever its arrival in the trace.
struct ClosedLoop {
  int32_t users = 1;
  Duration think_mean;
};

struct Trace {
  std::string name;
  std::vector<TraceRequest> requests;
  std::optional<ClosedLoop> closed_loop;  // absent: open loop, arrivals as they stand
};

}  // namespace foretoken
