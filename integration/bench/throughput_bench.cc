#include "integration/bench/throughput_bench.h"

#include <time.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace foretoken {
namespace {

// Of this thread alone: what other programs take of the core is not the predictor's.
int64_t ComputedNanos() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

constexpr Duration kStepEvery = Duration::Millis(20);  // of each instance: an 8B model's 50 steps a second

// The fleet, in virtual time.
class Fleet {
 public:
  static Result<Fleet> Make(const StepTimeModel& model, const LoadOptions& load, const std::vector<SyncScript>& scripts,
                            int32_t candidates) {
    Fleet f;
    for (uint32_t k = 0; k < static_cast<uint32_t>(candidates); ++k) {
      const SyncScript& script = scripts[k % scripts.size()];
      f.streams_.emplace_back(InstanceId(k), &script);
      auto core = MakeLoadedSimulator(InstanceId(k), model, load, script, f.streams_.back(), Instant());
      if (!core.ok()) return core.error();
      f.simulators_.push_back(std::move(core).value());
      // Spread over the interval, as engines that know nothing of each other are.
      f.next_step_.push_back(Instant() + Duration::Nanos(kStepEvery.nanos() / candidates * k + 1));
    }
    f.reserved_.resize(f.simulators_.size());
    return f;
  }

  // The sync stream up to `now`.
  void StepsUntil(Instant now) {
    NoSimulatorEffects none;
    for (size_t k = 0; k < simulators_.size(); ++k) {
      for (; next_step_[k] <= now; next_step_[k] += kStepEvery) {
        if (streams_[k].begins()) {  // the script begins anew, without what was reserved meanwhile
          for (const RequestId r : reserved_[k]) simulators_[k]->OnCancel(r, next_step_[k]);
          reserved_[k].clear();
        }
        StreamMessage m = streams_[k].Next(next_step_[k]);
        simulators_[k]->OnStream(m, next_step_[k], none);
      }
    }
  }

  // Nanoseconds of computing.
  double Decide(const RequestMeta& request, int64_t output, Instant now) {
    PredictQuery query;
    query.request = &request;
    query.expected_output = TokenCount(output);
    const int64_t start = ComputedNanos();
    size_t best = 0;
    Prediction least;
    for (size_t k = 0; k < simulators_.size(); ++k) {
      const Prediction p = simulators_[k]->Predict(query, now);
      if (k == 0 || p.e2e < least.e2e) least = p, best = k;
    }
    EnqueueOrder order;
    order.instance = InstanceId(static_cast<uint32_t>(best));
    order.reservation.request = order.reservation.length.request = request.id;
    order.reservation.prompt_tokens = request.prompt_tokens.value();
    order.reservation.expected_output = output;
    order.query = query;
    simulators_[best]->OnEnqueue(order, now);
    const int64_t took = ComputedNanos() - start;
    reserved_[best].push_back(request.id);
    return static_cast<double>(took);
  }

 private:
  std::vector<std::unique_ptr<SimulatorCore>> simulators_;
  std::vector<SyncStream> streams_;
  std::vector<Instant> next_step_;
  std::vector<std::vector<RequestId>> reserved_;  // since the script began
};

// Of nanoseconds, in microseconds.
class Quantiles {
 public:
  explicit Quantiles(std::vector<double> nanos) : sorted_(std::move(nanos)) { std::sort(sorted_.begin(), sorted_.end()); }
  double At(double q) const {
    return sorted_[std::min(sorted_.size() - 1, static_cast<size_t>(q * static_cast<double>(sorted_.size())))] * 1e-3;
  }

 private:
  std::vector<double> sorted_;
};

struct Contender {
  const char* name;
  PredictorKind kind;
  bool reuse;
};
constexpr Contender kContenders[] = {{"reference", PredictorKind::kReference, false},
                                     {"pattern", PredictorKind::kPattern, false},
                                     {"pattern_reuse", PredictorKind::kPatternReuse, true},
                                     {"timeline", PredictorKind::kTimeline, false},
                                     {"timeline", PredictorKind::kTimeline, true}};

Result<ThroughputRow> Measure(const Contender& contender, const StepTimeModel& model, const ThroughputOptions& o,
                              const std::vector<SyncScript>& scripts, int32_t candidates, int32_t burst) {
  LoadOptions load = o.load;
  load.predictor = contender.kind;
  load.reuse = contender.reuse;
  auto fleet = Fleet::Make(model, load, scripts, candidates);
  if (!fleet.ok()) return fleet.error();
  ThroughputRow row{contender.name, contender.reuse, candidates, burst, o.per_instance * candidates};
  Prng prng = Prng::ForStream(load.seed, static_cast<uint64_t>(candidates));
  std::vector<double> latency, compute, queue;
  double arrival = 0, free_at = 0, busy = 0;  // nanoseconds
  for (int32_t k = 0; k < o.decisions && busy < o.seconds * 1e9; ++k) {
    // Bursts are rarer by their size: the load is the same.
    if (k % burst == 0) arrival += 1e9 * prng.Exponential(burst / row.arrivals_per_second);
    const Instant now = Instant() + Duration::FromNanos(arrival);
    fleet->StepsUntil(now);
    const RequestMeta request = DrawRequest(prng, RequestId(1'000'000 + static_cast<uint64_t>(k)), now);
    const double took = fleet->Decide(request, DrawOutputTokens(prng), now);
    const double start = std::max(arrival, free_at);
    free_at = start + took;
    busy += took;
    queue.push_back(start - arrival);
    compute.push_back(took);
    latency.push_back(free_at - arrival);
  }
  row.decisions = compute.size();
  const double per_decision = busy / static_cast<double>(compute.size());
  row.predictions_per_second = 1e9 * candidates / per_decision;
  row.utilization = row.arrivals_per_second * per_decision * 1e-9;
  const Quantiles l(std::move(latency)), c(std::move(compute)), q(std::move(queue));
  row.latency_p50 = l.At(.5), row.latency_p95 = l.At(.95), row.latency_p99 = l.At(.99), row.latency_p999 = l.At(.999);
  row.compute_p50 = c.At(.5), row.compute_p95 = c.At(.95), row.compute_p99 = c.At(.99), row.compute_p999 = c.At(.999);
  row.queue_p50 = q.At(.5), row.queue_p95 = q.At(.95), row.queue_p99 = q.At(.99), row.queue_p999 = q.At(.999);
  return row;
}

}  // namespace

Result<std::vector<ThroughputRow>> RunThroughputBench(const StepTimeModel& model, const ThroughputOptions& o) {
  if (o.decisions < 1 || o.per_instance <= 0) return Error{"bench predict: decisions and arrivals per instance must be > 0"};
  const auto scripts = RecordScripts(model, o.load);
  if (!scripts.ok()) return scripts.error();
  std::vector<ThroughputRow> rows;
  for (const int32_t burst : o.bursts) {
    for (const int32_t candidates : o.candidates) {
      if (burst < 1 || candidates < 1) return Error{"bench predict: candidates and bursts must be >= 1"};
      for (const Contender& c : kContenders) {
        auto row = Measure(c, model, o, *scripts, candidates, burst);
        if (!row.ok()) return row.error();
        rows.push_back(std::move(row).value());
      }
    }
  }
  return rows;
}

}  // namespace foretoken
