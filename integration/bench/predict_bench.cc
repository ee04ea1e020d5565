#include "integration/bench/predict_bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/prng.h"
#include "runtime/engine/emulated_engine.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/predict/pattern.h"
#include "runtime/predict/prefix_index.h"
#include "runtime/predict/timeline.h"

namespace foretoken {
namespace {

using Clock = std::chrono::steady_clock;

// Predictions between two returns to the starting state, so that the queue stays as deep as stated.
constexpr int32_t kPerCycle = 8;
// The reference cannot return to a state; so few let the depth drift by a fifth of a deep queue at most.
constexpr int32_t kReferencePredictions = 12;
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
  void OnStep(const BatchTrace& trace) override {
    traces.push_back(trace);
    if (follower != nullptr) follower->OnStep(trace);
  }
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId, const BatchTrace::Finish&, Instant) override {}
  void OnRejected(RequestId, OutcomeReason, Instant) override {}
  std::vector<BatchTrace> traces;
  Predictor* follower = nullptr;
};

// An engine with `running` requests under way and `waiting` behind them, and what a router knows of them.
struct Scene {
  std::unique_ptr<EmulatedEngine> engine;
  Instant at;
  Snapshot snapshot;
  std::vector<Reservation> reservations;
  uint64_t next_id = 0;
};

// `follower` (may be null) sees it all from the start.
Scene MakeScene(const StepTimeModel& model, int32_t running, int32_t waiting, uint64_t seed, Predictor* follower) {
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
  sink.follower = follower;
  const auto submit = [&] {
    all.push_back(Draw(g, ++scene.next_id));
    if (follower != nullptr) {
      follower->OnEnqueue(ReservationOf(all.back(), scene.at), scene.at);
      follower->OnArrived(all.back().id, scene.at);
    }
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
  int32_t most = kPerCycle;  // predictions from the starting state on
  bool follows = false;      // sees the engine from the start: a snapshot would not give it the state in question
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

// One contender at one depth.
class Measurement {
 public:
  Measurement(const Contender& contender, Predictor& predictor, const PredictBenchOptions& options)
      : contender_(contender), predictor_(predictor), options_(options), draw_(Prng::ForStream(options.seed, 77)) {}

  // From the scene on: a prediction and its Enqueue, `count` + 1 times, with steps in between. The first is not measured: it
  // pays for the return to the starting state.
  void Cycle(const Scene& scene, int32_t count) {
    std::unique_ptr<EmulatedEngine> engine = scene.engine->Clone();
    if (!contender_.follows) predictor_.OnSnapshot(scene.snapshot, scene.at, scene.reservations);
    Instant now = scene.at;
    uint64_t id = scene.next_id;
    for (int32_t i = 0; i <= count; ++i) {
      if (i % options_.predictions_per_step == 0 && i > 0) now = Step(*engine, now);
      PredictAndEnqueue(*engine, ++id, now, i > 0);
    }
  }

  int32_t taken() const { return static_cast<int32_t>(predict_ns_.size()); }
  void Report(PredictBenchRow& row) {
    row.predictions = taken();
    row.ns_p50 = QuantileOf(predict_ns_, 0.5);
    row.ns_p99 = QuantileOf(predict_ns_, 0.99);
    row.enqueue_ns_p50 = QuantileOf(enqueue_ns_, 0.5);
    row.step_ns_p50 = QuantileOf(step_ns_, 0.5);
    row.bytes_per_instance = predictor_.memory_bytes();
    ReadCounters(predictor_, row);
  }

 private:
  Instant Step(EmulatedEngine& engine, Instant now) {
    if (draw_.Chance(options_.disagreeing_steps)) {
      const Snapshot s = engine.TakeSnapshot(false);
      if (!s.running.empty()) engine.Abort(s.running[draw_.Below(s.running.size())].request, now);
    }
    sink_.traces.clear();
    const Instant next = engine.NextEvent();
    engine.RunUntil(next, sink_);
    for (const BatchTrace& trace : sink_.traces) {
      const auto start = Clock::now();
      predictor_.OnStep(trace);
      step_ns_.push_back(Since(start));
    }
    return next;
  }

  void PredictAndEnqueue(EmulatedEngine& engine, uint64_t id, Instant now, bool measured) {
    const EngineRequest request = Draw(draw_, id);
    RequestMeta meta;
    meta.id = request.id;
    meta.prompt_tokens = TokenCount(request.prompt_tokens);
    PredictQuery query;
    query.request = &meta;
    query.expected_output = TokenCount(request.output_tokens);
    query.want_externality = contender_.externality;
    auto start = Clock::now();
    const Prediction p = predictor_.Predict(query, now);
    const double took = Since(start);
    FT_CHECK(p.e2e >= p.ttft);
    const Reservation reservation = ReservationOf(request, now);
    start = Clock::now();
    predictor_.OnEnqueue(reservation, now);
    if (measured) {
      enqueue_ns_.push_back(Since(start));
      predict_ns_.push_back(took);
    }
    predictor_.OnArrived(request.id, now);
    engine.Submit(request, now);
  }

  const Contender& contender_;
  Predictor& predictor_;
  const PredictBenchOptions& options_;
  Prng draw_;
  StepSink sink_;
  std::vector<double> predict_ns_, enqueue_ns_, step_ns_;
};

PredictBenchRow Measure(const Contender& contender, const StepTimeModel& model, int32_t running, int32_t waiting,
                        const PredictBenchOptions& options) {
  PredictBenchRow row;
  row.predictor = contender.name;
  row.reuse = contender.reuse;
  row.running = running;
  row.waiting = waiting;
  InstanceProfile profile;
  profile.limits = Limits(running);
  profile.step_time = model;
  const std::unique_ptr<Predictor> predictor = contender.make(profile);
  const Scene scene = MakeScene(model, running, waiting, options.seed, contender.follows ? predictor.get() : nullptr);
  Measurement m(contender, *predictor, options);
  if (contender.follows) {
    m.Cycle(scene, contender.most);
  } else {
    while (m.taken() < options.predictions) m.Cycle(scene, kPerCycle);
  }
  m.Report(row);
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
      {"reference", false, false, kReferencePredictions, true, made(PredictorKind::kReference)},
      {"pattern", false, false, kPerCycle, false, made(PredictorKind::kPattern)},
      {"pattern_reuse", true, false, kPerCycle, false, made(PredictorKind::kPatternReuse)},
      {"timeline", false, false, kPerCycle, false, timeline(false)},
      {"timeline", true, false, kPerCycle, false, timeline(true)},
      {"timeline_externality", false, true, kPerCycle, false, timeline(false)},
      {"timeline_externality", true, true, kPerCycle, false, timeline(true)},
  };
}

}  // namespace

Result<std::vector<PredictBenchRow>> RunPredictBench(const StepTimeModel& model, const PredictBenchOptions& options) {
  if (model.law == nullptr) return Error{"bench predict: a step-time law is needed"};
  if (options.predictions < 1 || options.predictions_per_step < 1) {
    return Error{"bench predict: predictions and predictions per step must be >= 1"};
  }
  const std::vector<Contender> all = Contenders();
  for (const std::string& name : options.predictors) {
    if (std::none_of(all.begin(), all.end(), [&](const Contender& c) { return c.name == name; }))
      return Error{"bench predict: --predictor " + name +
                   ": reference, pattern, pattern_reuse, timeline or timeline_externality"};
  }
  const auto wanted = [&options](const Contender& c) {
    const bool named = options.predictors.empty() ||
                       std::find(options.predictors.begin(), options.predictors.end(), c.name) != options.predictors.end();
    return named && options.reuse.value_or(c.reuse) == c.reuse;
  };
  std::vector<PredictBenchRow> rows;
  for (int32_t running : options.running) {
    for (int32_t waiting : options.waiting) {
      if (running < 1 || waiting < 0) return Error{"bench predict: running must be >= 1 and waiting >= 0"};
      for (const Contender& c : all) {
        if (wanted(c)) rows.push_back(Measure(c, model, running, waiting, options));
      }
    }
  }
  return rows;
}

PrefixIndexCost MeasurePrefixIndex(uint32_t instances, int64_t blocks_per_instance, uint64_t seed) {
  PrefixIndexCost cost;
  PrefixIndex index(instances, blocks_per_instance);
  // Conversations of 750 blocks (12,000 tokens at 16 a block); a tenth of each is a prompt that all instances share.
  constexpr int64_t kBlocks = 750, kCommon = 75;
  std::vector<BlockHash> prefix(kBlocks);
  const auto conversation = [&](uint64_t which) {
    for (int64_t k = 0; k < kBlocks; ++k) {
      const uint64_t of = k < kCommon ? 0 : which + 1;
      prefix[static_cast<size_t>(k)] = BlockHash(Mix64(seed ^ Mix64(of), static_cast<uint64_t>(k)));
    }
  };
  const int64_t each = (blocks_per_instance - kCommon) / (kBlocks - kCommon);
  for (uint32_t i = 0; i < instances; ++i) {
    for (int64_t c = 0; c < each; ++c) {
      conversation(static_cast<uint64_t>(i) * static_cast<uint64_t>(each) + static_cast<uint64_t>(c));
      index.Insert(i, prefix);
    }
  }
  cost.blocks = index.size();
  cost.bytes = index.memory_bytes();
  Prng g(seed);
  std::vector<double> lookup, insert;
  std::vector<int32_t> held;
  for (int i = 0; i < 400; ++i) {
    conversation(g.Below(static_cast<uint64_t>(instances) * static_cast<uint64_t>(each)));
    auto start = Clock::now();
    index.MatchAll(prefix, held);
    lookup.push_back(Since(start));
    const auto at = static_cast<uint32_t>(g.Below(instances));
    start = Clock::now();
    index.Insert(at, prefix);
    insert.push_back(Since(start));
  }
  cost.lookup_ns_p50 = QuantileOf(lookup, 0.5);
  cost.lookup_ns_p99 = QuantileOf(lookup, 0.99);
  cost.insert_ns_p50 = QuantileOf(insert, 0.5);
  return cost;
}

}  // namespace foretoken
