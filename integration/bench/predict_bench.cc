#include "integration/bench/predict_bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/id_map.h"
#include "runtime/base/prng.h"
#include "runtime/engine/emulated_engine.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/predict/pattern.h"
#include "runtime/predict/timeline.h"

namespace foretoken {
namespace {

using Clock = std::chrono::steady_clock;

// Predictions between two returns to the starting state, so that the queue stays as deep as stated.
constexpr int32_t kPerCycle = 8;
constexpr int32_t kMaxModelLen = 32768;

double Since(Clock::time_point start) {
  return static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

double QuantileOf(std::vector<double>& values, double q) {
  if (values.empty()) return 0;
  const size_t i = std::min(values.size() - 1, static_cast<size_t>(q * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(i), values.end());
  return values[i];
}

EngineConfig Limits(int32_t running) {
  EngineConfig c;
  c.max_num_seqs = running;
  c.max_num_batched_tokens = 8192;
  c.num_gpu_blocks = 32769;  // half a million tokens: an 8B model on an 80 GB card
  c.max_model_len = kMaxModelLen;
  return c;
}

// Lengths like a chat service's: prompts of 1,000 and outputs of 250 tokens in the mean.
EngineRequest Draw(Prng& g, uint64_t id) {
  EngineRequest r;
  r.id = RequestId(id);
  r.arrival_key = static_cast<double>(id);
  r.prompt_tokens = std::clamp<int64_t>(static_cast<int64_t>(g.LogNormal(6.5, 0.9)), 16, 12000);
  r.output_tokens = std::clamp<int64_t>(static_cast<int64_t>(g.LogNormal(5.2, 0.8)), 4, 2000);
  r.max_tokens = r.output_tokens;
  return r;
}

Reservation ReservationOf(const EngineRequest& r, Instant at) {
  Reservation v;
  v.request = r.id;
  v.arrival = at;
  v.prompt_tokens = r.prompt_tokens;
  v.expected_output = r.output_tokens;
  v.length.request = r.id;
  return v;
}

class StepSink final : public EngineSink {
 public:
  void OnStep(const BatchTrace& trace) override { traces.push_back(trace); }
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId, const BatchTrace::Finish&, Instant) override {}
  void OnRejected(RequestId, OutcomeReason, Instant) override {}
  std::vector<BatchTrace> traces;
};

// An engine with `running` requests under way and `waiting` behind them, and what a router knows of them.
struct Scene {
  std::unique_ptr<EmulatedEngine> engine;
  Instant at;
  Snapshot snapshot;
  Snapshot exact;
  std::vector<Reservation> reservations;
  uint64_t next_id = 0;
};

Scene MakeScene(const StepTimeModel& model, int32_t running, int32_t waiting, uint64_t seed) {
  Scene scene;
  EmulatedEngine::Options o;
  o.config = Limits(running);
  o.step_time = model;
  o.traces = true;
  auto made = EmulatedEngine::Make(std::move(o));
  FT_CHECK(made.ok());
  scene.at = Instant::FromNanos(1'000'000'000);
  scene.engine = std::move(made).value();
  Prng g = Prng::ForStream(seed, static_cast<uint64_t>(running) * 1000 + static_cast<uint64_t>(waiting));
  std::vector<EngineRequest> all;
  StepSink sink;
  const auto submit = [&] {
    all.push_back(Draw(g, ++scene.next_id));
    scene.engine->Submit(all.back(), scene.at);
  };
  // Until the running are as far along as in steady work: some hundred steps with the queue kept filled.
  const int32_t slack = std::max(waiting, 4);
  for (int32_t i = 0; i < running + slack; ++i) submit();
  for (int32_t step = 0; step < 400; ++step) {
    scene.at = scene.engine->NextEvent();
    scene.engine->RunUntil(scene.at, sink);
    // An engine takes requests in when it composes a batch: those submitted now count at the next one.
    for (int32_t missing = slack - scene.engine->core().waiting(); missing > 0; --missing) submit();
    sink.traces.clear();
  }
  Snapshot s = scene.engine->TakeSnapshot(false);
  for (size_t i = static_cast<size_t>(waiting); i < s.waiting.size(); ++i) scene.engine->Abort(s.waiting[i].request, scene.at);
  // One more step, so that the aborts are done and reported.
  scene.at = scene.engine->NextEvent();
  scene.engine->RunUntil(scene.at, sink);
  scene.snapshot = scene.engine->TakeSnapshot(false);
  scene.exact = scene.engine->TakeSnapshot(true);
  for (const EngineRequest& r : all) scene.reservations.push_back(ReservationOf(r, Instant::FromNanos(0)));
  std::vector<Reservation> live;
  const auto keep = [&](const std::vector<Snapshot::Request>& list) {
    for (const Snapshot::Request& r : list) live.push_back(scene.reservations[r.request.value() - 1]);
  };
  keep(scene.snapshot.running);
  keep(scene.snapshot.waiting);
  scene.reservations = std::move(live);
  return scene;
}

struct Contender {
  std::string name;
  bool reuse = false;
  bool externality = false;
  bool exact = false;  // wants the exact snapshot
  double share = 1;    // of the predictions to take
  std::function<std::unique_ptr<Predictor>(InstanceProfile)> make;
};

void ReadCounters(const Predictor& p, PredictBenchRow& row) {
  const auto share = [](uint64_t part, uint64_t all) {
    return all == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(all);
  };
  if (const auto* t = dynamic_cast<const TimelinePredictor*>(&p)) {
    row.reuse_share = share(t->counters().reused, t->counters().predictions);
    row.rebuild_share = share(t->counters().rebuilt, t->counters().predictions);
    row.disagreed_share = share(t->counters().disagreed, t->counters().steps);
  }
  if (const auto* t = dynamic_cast<const PatternPredictor*>(&p)) {
    row.reuse_share = share(t->counters().reused, t->counters().predictions);
    row.rebuild_share = share(t->counters().advanced, t->counters().predictions);
  }
}

PredictBenchRow Measure(const Contender& contender, const Scene& scene, const StepTimeModel& model, int32_t running,
                        int32_t waiting, const PredictBenchOptions& options) {
  PredictBenchRow row{contender.name, contender.reuse, running, waiting};
  InstanceProfile profile;
  profile.limits = Limits(running);
  profile.step_time = model;
  std::unique_ptr<Predictor> predictor = contender.make(profile);
  std::vector<double> predict_ns, enqueue_ns, step_ns;
  Prng g = Prng::ForStream(options.seed, 77);
  const auto wanted = static_cast<int32_t>(std::max(24.0, contender.share * options.predictions));
  StepSink sink;
  int32_t taken = 0;
  while (taken < wanted) {
    std::unique_ptr<EmulatedEngine> engine = scene.engine->Clone();
    predictor->OnSnapshot(contender.exact ? scene.exact : scene.snapshot, scene.at, scene.reservations);
    Instant now = scene.at;
    uint64_t id = scene.next_id;
    for (int32_t i = 0; i <= kPerCycle && taken < wanted; ++i) {
      if (i % options.predictions_per_step == 0 && i > 0) {
        if (g.Chance(options.disagreeing_steps)) {
          const Snapshot s = engine->TakeSnapshot(false);
          if (!s.running.empty()) engine->Abort(s.running[g.Below(s.running.size())].request, now);
        }
        sink.traces.clear();
        now = engine->NextEvent();
        engine->RunUntil(now, sink);
        for (const BatchTrace& trace : sink.traces) {
          const auto start = Clock::now();
          predictor->OnStep(trace);
          step_ns.push_back(Since(start));
        }
      }
      const EngineRequest request = Draw(g, ++id);
      RequestMeta meta;
      meta.id = request.id;
      meta.prompt_tokens = TokenCount(request.prompt_tokens);
      PredictQuery query;
      query.request = &meta;
      query.expected_output = TokenCount(request.output_tokens);
      query.want_externality = contender.externality;
      auto start = Clock::now();
      const Prediction p = predictor->Predict(query, now);
      const double took = Since(start);
      FT_CHECK(p.e2e >= p.ttft);
      const Reservation reservation = ReservationOf(request, now);
      start = Clock::now();
      predictor->OnEnqueue(reservation, now);
      if (i > 0) {  // the first one follows the return to the starting state: not part of the work measured
        enqueue_ns.push_back(Since(start));
        predict_ns.push_back(took);
        ++taken;
      }
      predictor->OnArrived(request.id, now);
      engine->Submit(request, now);
    }
  }
  row.predictions = taken;
  row.ns_p50 = QuantileOf(predict_ns, 0.5);
  row.ns_p99 = QuantileOf(predict_ns, 0.99);
  row.enqueue_ns_p50 = QuantileOf(enqueue_ns, 0.5);
  row.step_ns_p50 = QuantileOf(step_ns, 0.5);
  row.bytes_per_instance = predictor->memory_bytes();
  ReadCounters(*predictor, row);
  return row;
}

std::vector<Contender> Contenders() {
  const auto made = [](PredictorKind kind) {
    return [kind](InstanceProfile profile) {
      auto predictor = MakePredictor(kind, std::move(profile), nullptr);
      FT_CHECK(predictor.ok());
      return std::move(predictor).value();
    };
  };
  const auto timeline = [](bool reuse) {
    return [reuse](InstanceProfile profile) -> std::unique_ptr<Predictor> {
      TimelineOptions options;
      options.reuse = reuse;
      return std::make_unique<TimelinePredictor>(std::move(profile), nullptr, options);
    };
  };
  return {
      {"pattern", false, false, false, 1, made(PredictorKind::kPattern)},
      {"pattern_reuse", true, false, false, 1, made(PredictorKind::kPatternReuse)},
      {"timeline", false, false, false, 1, timeline(false)},
      {"timeline", true, false, false, 1, timeline(true)},
      {"timeline_externality", false, true, false, 1, timeline(false)},
      {"timeline_externality", true, true, false, 1, timeline(true)},
  };
}

}  // namespace

Result<std::vector<PredictBenchRow>> RunPredictBench(const StepTimeModel& model, const PredictBenchOptions& options) {
  if (model.law == nullptr) return Error{"bench predict: a step-time law is needed"};
  if (options.predictions < 1 || options.predictions_per_step < 1) {
    return Error{"bench predict: predictions and predictions per step must be >= 1"};
  }
  std::vector<PredictBenchRow> rows;
  for (int32_t running : options.running) {
    for (int32_t waiting : options.waiting) {
      if (running < 1 || waiting < 0) return Error{"bench predict: running must be >= 1 and waiting >= 0"};
      const Scene scene = MakeScene(model, running, waiting, options.seed);
      for (const Contender& c : Contenders()) rows.push_back(Measure(c, scene, model, running, waiting, options));
    }
  }
  return rows;
}

}  // namespace foretoken
