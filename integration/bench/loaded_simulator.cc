#include "integration/bench/loaded_simulator.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/predict/timeline.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

constexpr size_t kScriptSteps = 9;  // recorded of an engine, then begun anew from its snapshot
constexpr size_t kScripts = 8;

class Recorder final : public EngineSink {
 public:
  void OnStep(const BatchTrace& trace) override { traces.push_back(trace); }
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId, const BatchTrace::Finish&, Instant) override {}
  void OnRejected(RequestId, OutcomeReason, Instant) override {}
  std::vector<BatchTrace> traces;
};

EngineConfig Limits(const LoadOptions& o) {
  EngineConfig c;
  c.max_num_seqs = o.running;
  c.num_gpu_blocks = 32769;  // half a million tokens: an 8B model on an 80 GB card
  c.max_model_len = 32768;
  return c;
}

EngineRequest Draw(Prng& prng, uint64_t id) {
  EngineRequest r;
  r.id = RequestId(id);
  r.prompt_tokens = DrawPromptTokens(prng);
  r.output_tokens = DrawOutputTokens(prng);
  r.max_tokens = r.output_tokens;
  return r;
}

// `spare`: waiting requests beyond those asked for, at the start of the script.
Result<SyncScript> RecordWith(const StepTimeModel& model, const LoadOptions& o, uint64_t seed, int32_t spare) {
  EmulatedEngine::Options options;
  options.config = Limits(o);
  options.step_time = model;
  options.traces = true;
  auto engine = EmulatedEngine::Make(std::move(options));
  if (!engine.ok()) return engine.error();
  EmulatedEngine& e = **engine;
  Prng prng(seed);
  SyncScript script;
  Recorder recorder;
  Instant at;
  // Work until the running are as far along as in steady state.
  const auto submit = [&] {
    script.requests.push_back(Draw(prng, script.requests.size() + 1));
    e.Submit(script.requests.back(), at);
  };
  for (int32_t k = 0; k < o.running + o.waiting + spare; ++k) submit();
  for (int32_t step = 0; step < 400; ++step) {
    at = e.NextEvent();
    e.RunUntil(at, recorder);
    if (e.core().waiting() < o.waiting + spare) submit();
  }
  script.start = e.TakeSnapshot(false);
  recorder.traces.clear();
  while (recorder.traces.size() < kScriptSteps) {
    at = e.NextEvent();
    e.RunUntil(at, recorder);
  }
  script.steps = std::move(recorder.traces);
  return script;
}

// A script during which at least as many wait as asked for.
Result<SyncScript> Record(const StepTimeModel& model, const LoadOptions& o, uint64_t seed) {
  constexpr int32_t kMostSpare = 64;
  for (int32_t spare = 1; spare <= kMostSpare; ++spare) {
    auto script = RecordWith(model, o, seed, spare);
    if (!script.ok()) return script.error();
    const auto short_of = [&o](const BatchTrace& t) {
      const auto executed = t.running + static_cast<int32_t>(t.finished.size());  // `running` is what is left after the step
      return t.waiting < o.waiting || executed < o.running;
    };
    if (std::none_of(script->steps.begin(), script->steps.end(), short_of)) return script;
  }
  return Error{"no load keeps " + std::to_string(o.running) + " running and " + std::to_string(o.waiting) +
               " waiting on this engine: ask for fewer"};
}

// Reserves what the script's snapshot lists, so that the mirror knows each request's expected length.
void ReserveListed(SimulatorCore& core, InstanceId instance, const SyncScript& script, Instant now) {
  const auto lists = {&script.start.running, &script.start.waiting};
  for (const EngineRequest& r : script.requests) {
    const bool there = std::any_of(lists.begin(), lists.end(), [&](const auto* list) {
      return std::any_of(list->begin(), list->end(), [&](const Snapshot::Request& q) { return q.request == r.id; });
    });
    if (!there) continue;
    EnqueueOrder order;
    order.instance = instance;
    order.reservation.request = r.id;
    order.reservation.prompt_tokens = r.prompt_tokens;
    order.reservation.expected_output = r.output_tokens;
    order.reservation.length.request = r.id;
    core.OnEnqueue(order, now);
  }
}

}  // namespace

Result<std::vector<SyncScript>> RecordScripts(const StepTimeModel& model, const LoadOptions& load) {
  std::vector<SyncScript> scripts;
  for (size_t k = 0; k < kScripts; ++k) {
    auto script = Record(model, load, Mix64(load.seed, k));
    if (!script.ok()) return script.error();
    scripts.push_back(std::move(script).value());
  }
  return scripts;
}

StreamMessage SyncStream::Next(Instant now) {
  StreamMessage m{instance_, SourceId(0), Epoch(1), seq_++, {}, now};
  if (begins()) {
    Snapshot s = script_->start;
    s.last_seq = m.seq;
    s.as_of = now;
    s.next_step = steps_ += 1000;  // as after a gap: the mirror starts anew from it
    m.body = std::move(s);
  } else {
    BatchTrace t = script_->steps[next_ - 1];
    t.step = steps_++;
    t.start = t.scheduled = now - t.duration;
    m.body = std::move(t);
  }
  next_ = next_ == script_->steps.size() ? 0 : next_ + 1;
  return m;
}

int64_t DrawPromptTokens(Prng& prng) { return std::clamp<int64_t>(static_cast<int64_t>(prng.LogNormal(6.5, 0.9)), 16, 12'000); }
int64_t DrawOutputTokens(Prng& prng) { return std::clamp<int64_t>(static_cast<int64_t>(prng.LogNormal(5.2, 0.8)), 4, 2'000); }
RequestMeta DrawRequest(Prng& prng, RequestId id, Instant arrival) {
  RequestMeta meta;
  meta.id = id;
  meta.prompt_tokens = TokenCount(DrawPromptTokens(prng));
  meta.arrival = arrival;
  return meta;
}

SchedulerCore::Options BenchScheduler(uint64_t seed) {
  SchedulerCore::Options o;
  o.policy = "min_e2e";
  o.sole = true;
  o.decision_deadline = Duration::Seconds(1);
  o.seed = seed;
  return o;
}

void NoSimulatorEffects::RequestResync(InstanceId, Epoch, uint64_t, Instant) { FT_CHECK(false); }

Result<std::unique_ptr<SimulatorCore>> MakeLoadedSimulator(InstanceId instance, const StepTimeModel& model,
                                                           const LoadOptions& load, const SyncScript& script,
                                                           SyncStream& stream, Instant now) {
  InstanceProfile profile;
  profile.instance = instance;
  profile.limits = Limits(load);
  profile.step_time = model;
  auto lengths = MakeLengthEstimator(LengthEstimatorKind::kSampled);
  if (!lengths.ok()) return lengths.error();
  Result<std::unique_ptr<Predictor>> predictor = Error{};
  if (load.predictor == PredictorKind::kTimeline && !load.reuse) {
    TimelineOptions options;
    options.reuse = false;
    predictor = std::unique_ptr<Predictor>(std::make_unique<TimelinePredictor>(profile, lengths->get(), options));
  } else {
    predictor = MakePredictor(load.predictor, profile, lengths->get());
  }
  if (!predictor.ok()) return predictor.error();
  SimulatorCore::Options o;
  o.profile = profile;
  auto core = std::make_unique<SimulatorCore>(std::move(o), std::move(predictor).value(), std::move(lengths).value());
  ReserveListed(*core, instance, script, now);
  StreamMessage first = stream.Next(now);
  NoSimulatorEffects none;
  core->OnStream(first, now, none);
  FT_CHECK(core->predictor().waiting() >= load.waiting);
  return core;
}

}  // namespace foretoken
