#include "integration/eval/saturation.h"

#include <algorithm>
#include <map>
#include <vector>

#include "integration/simulate/compose_run.h"
#include "runtime/eval/virtual_host.h"

namespace foretoken {
namespace {

// Completions per second of one instance, all requests waiting from the start.
Result<double> RateAlone(const RunOptions& fleet, const RunOptions::Instance& instance, const Trace& trace) {
  RunOptions alone = fleet;
  alone.instances = {instance};
  alone.instances.front().profile.instance = InstanceId(0);
  alone.scheduler.policy = "round_robin";
  alone.scheduler.shed_above = 0;
  alone.scheduler_count = 1;
  alone.level = SyncLevel::kNone;
  alone.faults = {};
  const Result<RunResult> result = RunVirtual(alone, trace, nullptr);
  if (!result.ok()) return result.error();
  std::vector<double> ends;
  for (const RunRequest& r : result->requests)
    if (r.outcome == OutcomeKind::kFinished) ends.push_back(r.finish.seconds());
  std::sort(ends.begin(), ends.end());
  const size_t from = ends.size() / 4, to = ends.size() * 3 / 4;
  if (from == to || !(ends[to] > ends[from]))
    return Error{instance.name + " completes " + std::to_string(ends.size()) + " of " + std::to_string(trace.requests.size()) +
                 " requests alone: too few to tell at which rate it saturates"};
  return static_cast<double>(to - from) / (ends[to] - ends[from]);
}

// Pieces from all over the trace: its mix of requests may change in its course, and neighbours share prompts.
Trace SampleOf(const Trace& trace, size_t requests_max) {
  if (trace.requests.size() <= requests_max) return trace;
  constexpr size_t kPieces = 10;
  const size_t piece = std::max<size_t>(1, requests_max / kPieces);
  Trace out;
  out.name = trace.name;
  for (size_t k = 0; k < kPieces; ++k) {
    const size_t from = k * trace.requests.size() / kPieces;
    for (size_t i = from; i < from + piece && i < trace.requests.size(); ++i) out.requests.push_back(trace.requests[i]);
  }
  for (size_t k = 0; k < out.requests.size(); ++k) out.requests[k].meta.id = RequestId(k + 1);
  return out;
}

}  // namespace

Result<double> SaturationRate(const Topology& topology, const Trace& trace, size_t requests_max) {
  Trace waiting = SampleOf(trace, requests_max);
  for (TraceRequest& r : waiting.requests) r.meta.arrival = Instant();
  const Result<RunOptions> options = ComposeRun(topology, waiting);
  if (!options.ok()) return options.error();
  std::map<uint32_t, double> by_engine;
  double sum = 0;
  for (size_t k = 0; k < topology.instances.size(); ++k) {
    const uint32_t engine = topology.instances[k].engine;
    if (!by_engine.contains(engine)) {
      const Result<double> rate = RateAlone(*options, options->instances[k], waiting);
      if (!rate.ok()) return rate.error();
      by_engine[engine] = *rate;
    }
    sum += by_engine[engine];
  }
  return sum;
}

double MeanRate(const Trace& trace) {
  if (trace.requests.size() < 2) return 0;
  const double seconds = (trace.requests.back().meta.arrival - trace.requests.front().meta.arrival).seconds();
  return seconds > 0 ? static_cast<double>(trace.requests.size() - 1) / seconds : 0;
}

}  // namespace foretoken
