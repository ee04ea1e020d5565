#include "integration/simulate/load_workload.h"

#include "configs/workload.h"
#include "integration/traces/load_trace.h"
#include "runtime/base/prng.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {
namespace {

void Scale(double rate_scale, Trace& trace) {
  for (TraceRequest& r : trace.requests)
    r.meta.arrival = Instant() + Duration::FromNanos(static_cast<double>(r.meta.arrival.nanos()) / rate_scale);
}

void Number(Trace& trace) {
  for (size_t k = 0; k < trace.requests.size(); ++k) trace.requests[k].meta.id = RequestId(k + 1);
}

}  // namespace

Result<Trace> LoadWorkload(const std::string& trace, const std::string& workload, const LoadWorkloadOptions& options) {
  if (trace.empty() == workload.empty()) return Error{"give either --trace FILE or --workload FILE"};
  LoadTraceOptions load;
  load.limit = options.limit;
  load.rate_scale = options.rate_scale;
  load.seed = options.seed;
  if (!trace.empty()) return LoadTrace(trace, load);
  auto spec = LoadWorkloadFile(workload);
  if (!spec.ok()) return Error{spec.errors().ToString()};
  if (!spec->synthetic) {
    if (options.limit == 0) load.limit = spec->limit;
    load.rate_scale *= spec->rate_scale;
    return LoadTrace(spec->trace_file, load);
  }
  SynthProfile profile = *spec->synthetic;
  if (options.limit > 0 && options.limit < profile.requests) profile.requests = options.limit;
  Prng prng = Prng::ForStream(options.seed, 0x7ACE);
  Trace out = Synthesize(profile, prng);
  out.name = spec->name;
  Scale(spec->rate_scale * options.rate_scale, out);
  Number(out);
  return out;
}

}  // namespace foretoken
