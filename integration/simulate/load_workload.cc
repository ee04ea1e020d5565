#include "integration/simulate/load_workload.h"

#include <algorithm>

#include "configs/workload.h"
#include "integration/traces/load_trace.h"
#include "runtime/base/prng.h"
#include "runtime/workload/reshape.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {
namespace {

void Scale(double rate_scale, Trace& trace) {
  for (TraceRequest& r : trace.requests)
    r.meta.arrival = Instant() + Duration::FromNanos(static_cast<double>(r.meta.arrival.nanos()) / rate_scale);
}

// `part` behind what is there; its requests' own contents move with their numbers.
void Append(const Trace& part, Duration shift, Trace& to) {
  const uint64_t base = to.requests.size();
  for (TraceRequest r : part.requests) {
    r.meta.id = RequestId(base + r.meta.id.value());
    r.meta.arrival = r.meta.arrival + shift;
    if (r.meta.session != 0) r.meta.session = Mix64(r.meta.session, base);
    for (PromptSegment& s : r.meta.segments)
      if ((s.content >> 63) == 0) s.content += 2 * base;  // OutputContent and PrivateContent of the new number
    to.requests.push_back(std::move(r));
  }
}

void Number(Trace& trace) {
  for (size_t k = 0; k < trace.requests.size(); ++k) trace.requests[k].meta.id = RequestId(k + 1);
}

// A recorded trace is cut and turned before it is limited: the limit counts requests that are run.
Result<Trace> LoadRecorded(const WorkloadSpec& spec, const LoadWorkloadOptions& options) {
  const size_t limit = options.limit > 0 ? options.limit : spec.limit;
  if (spec.shape == TraceShape{})
    return LoadTrace(spec.trace_file,
                     {.limit = limit, .rate_scale = spec.rate_scale * options.rate_scale, .seed = options.seed});
  Result<Trace> whole = LoadTrace(spec.trace_file, {.seed = options.seed});
  if (!whole.ok()) return whole.error();
  Trace out = Reshape(*whole, spec.shape, options.seed);
  if (limit > 0 && out.requests.size() > limit) out.requests.resize(limit);
  Scale(spec.rate_scale * options.rate_scale, out);
  return out;
}

Trace Draw(const WorkloadSpec& spec, const LoadWorkloadOptions& options) {
  SynthProfile profile = *spec.synthetic;
  if (options.limit > 0 && options.limit < profile.requests) profile.requests = options.limit;
  Prng prng = Prng::ForStream(options.seed, 0x7ACE);
  Trace out = Synthesize(profile, prng);
  out.name = spec.name;
  Scale(spec.rate_scale * options.rate_scale, out);
  Number(out);
  return out;
}

// Parts one after the other, each its share of the limit. What parts share by name they go on sharing.
Result<Trace> LoadSequence(const WorkloadSpec& spec, const LoadWorkloadOptions& options) {
  Trace out;
  out.name = spec.name;
  Duration shift;
  for (size_t k = 0; k < spec.parts.size(); ++k) {
    LoadWorkloadOptions each = options;
    each.rate_scale *= spec.rate_scale;
    each.seed = Mix64(options.seed, k);
    if (options.limit > 0) each.limit = std::max<size_t>(1, options.limit / spec.parts.size());
    Result<Trace> part = LoadWorkload("", spec.parts[k], each);
    if (!part.ok()) return part.error();
    Append(*part, shift, out);
    if (!out.requests.empty()) shift = out.requests.back().meta.arrival - Instant();
  }
  return out;
}

}  // namespace

std::optional<std::string> AbsentTrace(const std::string& workload) {
  const auto spec = LoadWorkloadFile(workload);
  if (!spec.ok() || !spec->absent) return std::nullopt;
  return workload + ": its trace " + spec->trace_file + " is not there";
}

Result<Trace> LoadWorkload(const std::string& trace, const std::string& workload, const LoadWorkloadOptions& options) {
  if (trace.empty() == workload.empty()) return Error{"give either --trace FILE or --workload FILE"};
  if (!trace.empty()) return LoadTrace(trace, {.limit = options.limit, .rate_scale = options.rate_scale, .seed = options.seed});
  auto spec = LoadWorkloadFile(workload);
  if (!spec.ok()) return Error{spec.errors().ToString()};
  if (options.stand_in && !spec->stand_in.empty()) return LoadWorkload("", spec->stand_in, options);
  if (spec->absent)
    return Error{*AbsentTrace(workload) + ": put it there, or run the stand-in that the workload names, " + spec->stand_in};
  Result<Trace> out = spec->synthetic       ? Result<Trace>(Draw(*spec, options))
                      : spec->parts.empty() ? LoadRecorded(*spec, options)
                                            : LoadSequence(*spec, options);
  if (out.ok()) out->closed_loop = spec->closed_loop;
  return out;
}

}  // namespace foretoken
