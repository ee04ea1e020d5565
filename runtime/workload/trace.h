// A workload: requests in order of arrival, each with what scheduling may see and, apart from it, the truth that only an
// emulated engine and the evaluation read.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/model/request.h"

namespace foretoken {

struct TraceRequest {
  RequestMeta meta;  // meta.arrival counts from the start of the trace (>= 0, never decreasing)
  RequestTruth truth;
};

struct Trace {
  std::string name;
  std::vector<TraceRequest> requests;
};

}  // namespace foretoken
