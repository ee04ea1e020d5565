#include "integration/bench/decide_bench.h"

#include <algorithm>
#include <caf/all.hpp>
#include <future>
#include <memory>
#include <utility>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "actors/scheduler.h"
#include "actors/simulator.h"
#include "runtime/base/check.h"
#include "runtime/base/prng.h"
#include "runtime/engine/emulated_engine.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

constexpr int32_t kScriptSteps = 32;  // recorded of an engine, then begun anew from its snapshot
constexpr size_t kScripts = 8;        // different ones; instance k plays script k mod 8

class Recorder final : public EngineSink {
 public:
  void OnStep(const BatchTrace& trace) override { traces.push_back(trace); }
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId, const BatchTrace::Finish&, Instant) override {}
  void OnRejected(RequestId, OutcomeReason, Instant) override {}
  std::vector<BatchTrace> traces;
};

// A loaded engine's state and the steps that follow it.
struct Script {
  Snapshot start;
  std::vector<BatchTrace> steps;
  std::vector<EngineRequest> requests;
};

EngineConfig Limits(const DecideBenchOptions& o) {
  EngineConfig c;
  c.max_num_seqs = o.running;
  c.num_gpu_blocks = 32769;  // half a million tokens: an 8B model on an 80 GB card
  c.max_model_len = 32768;
  return c;
}

// Lengths like a chat service's: prompts of 1,000 and outputs of 250 tokens in the mean.
EngineRequest Draw(Prng& prng, uint64_t id) {
  EngineRequest r;
  r.id = RequestId(id);
  r.prompt_tokens = std::clamp<int64_t>(static_cast<int64_t>(prng.LogNormal(6.5, 0.9)), 16, 12'000);
  r.output_tokens = std::clamp<int64_t>(static_cast<int64_t>(prng.LogNormal(5.2, 0.8)), 4, 2'000);
  r.max_tokens = r.output_tokens;
  return r;
}

// `spare`: waiting requests beyond those asked for, at the start of the script.
Result<Script> RecordWith(const StepTimeModel& model, const DecideBenchOptions& o, uint64_t seed, int32_t spare) {
  EmulatedEngine::Options options;
  options.config = Limits(o);
  options.step_time = model;
  options.traces = true;
  auto engine = EmulatedEngine::Make(std::move(options));
  if (!engine.ok()) return engine.error();
  EmulatedEngine& e = **engine;
  Prng prng(seed);
  Script script;
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
Result<Script> Record(const StepTimeModel& model, const DecideBenchOptions& o, uint64_t seed) {
  for (int32_t spare = 1;; ++spare) {
    auto script = RecordWith(model, o, seed, spare);
    if (!script.ok()) return script.error();
    const auto short_of = [&o](const BatchTrace& t) { return t.waiting < o.waiting || t.running < o.running; };
    if (spare > kScriptSteps || std::none_of(script->steps.begin(), script->steps.end(), short_of)) return script;
  }
}

// Plays a script as the sync stream of one instance: steps end now, one after another.
class Stream {
 public:
  Stream(InstanceId instance, const Script* script) : instance_(instance), script_(script) {}

  StreamMessage Next(Instant now) {
    StreamMessage m{instance_, SourceId(0), Epoch(1), seq_++, {}, now};
    if (next_ == 0) {
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

 private:
  InstanceId instance_;
  const Script* script_;
  uint64_t seq_ = 0;
  uint64_t steps_ = 0;
  size_t next_ = 0;
};

class NoEffects final : public SimulatorEffects {
 public:
  void RequestResync(InstanceId, Epoch, uint64_t, Instant) override { FT_CHECK(false); }  // nothing is lost here
};

struct Measured {
  std::vector<int64_t> nanos;
  double seconds = 0;
};

struct Setup {
  HostClock clock;
  caf::actor scheduler;
  std::vector<caf::actor> host_of;  // by instance
  std::vector<Stream> streams;
  int32_t in_flight = 1;
  Duration warm_up, measure;
  std::promise<Measured> measured;
};

struct BeginCall {};

// Keeps `in_flight` decisions open. Each decision is followed by one sync message of the winner; the request ends at once at the
// SCHEDULER and the reservation is taken back, so that every decision meets instances loaded as stated.
class LoadShell {
 public:
  LoadShell(caf::event_based_actor* self, std::shared_ptr<Setup> setup) : self_(self), s_(std::move(setup)), prng_(1) {}

  void Begin() {
    begun_ = s_->clock.Now();
    submitted_.resize(1 << 12);
    for (int32_t k = 0; k < s_->in_flight; ++k) Submit();
  }
  void On(const DecisionNote& note) {
    const Instant now = s_->clock.Now();
    const RequestId request = note.decision.request;
    if (now - begun_ >= s_->warm_up) {
      if (measured_.nanos.empty()) from_ = now;
      measured_.nanos.push_back((now - submitted_[request.value() & mask()]).nanos());
    }
    const InstanceId winner = note.decision.placement.front().instance;
    const caf::actor& host = s_->host_of[winner.value()];
    self_->send(host, Cancel{request, winner, OutcomeReason::kNone});
    self_->send(host, StreamCall{s_->streams[winner.value()].Next(now)});
    self_->send(s_->scheduler,
                RequestOutcome{request, winner, OutcomeKind::kFinished, OutcomeReason::kStop, TokenCount(100), now});
    if (now - begun_ < s_->warm_up + s_->measure) return Submit();
    if (ended_) return;
    ended_ = true;
    measured_.seconds = (now - from_).seconds();
    s_->measured.set_value(std::move(measured_));
  }

 private:
  size_t mask() const { return submitted_.size() - 1; }
  void Submit() {
    auto meta = std::make_shared<RequestMeta>();
    meta->id = RequestId(1'000'000 + next_++);
    meta->prompt_tokens = TokenCount(std::clamp<int64_t>(static_cast<int64_t>(prng_.LogNormal(6.5, 0.9)), 16, 12'000));
    const Instant now = s_->clock.Now();
    meta->arrival = now;
    submitted_[meta->id.value() & mask()] = now;
    self_->send(s_->scheduler, ScheduleCall{std::move(meta), now});
  }

  caf::event_based_actor* self_;
  std::shared_ptr<Setup> s_;
  Prng prng_;
  uint64_t next_ = 0;
  Instant begun_, from_;
  std::vector<Instant> submitted_;  // ring by request id
  Measured measured_;
  bool ended_ = false;
};

struct LoadState {
  std::unique_ptr<LoadShell> shell;
  static inline const char* name = "decide_load";
};

}  // namespace
}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::BeginCall)

namespace foretoken {
namespace {

caf::behavior Load(caf::stateful_actor<LoadState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.shell = std::make_unique<LoadShell>(self, setup);
  LoadShell* shell = self->state.shell.get();
  return {[shell](const DecisionNote& note) { shell->On(note); }, [shell](BeginCall) { shell->Begin(); }};
}

caf::behavior Sink(caf::event_based_actor* self, int) {
  return {[](const DispatchCall&) {}, [](const ResyncRequest&) {}, [](const Cancel&) {}};
}

struct Config : caf::actor_system_config {
  explicit Config(int32_t workers) {
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", workers);
    set("logger.console", caf::atom("none"));
  }
};

class Row {
 public:
  Row(const StepTimeModel& model, const DecideBenchOptions& options, const std::vector<Script>& scripts, int32_t candidates,
      int32_t in_flight, size_t shard)
      : model_(model),
        options_(options),
        scripts_(scripts),
        candidates_(candidates),
        in_flight_(in_flight),
        shard_(shard),
        config_(options.workers),
        system_(config_),
        clock_(system_, 1) {}

  Result<DecideBenchRow> Run() {
    sink_ = system_.spawn(Sink, 0);
    const Status hosts = AddHosts();
    if (!hosts.ok()) return hosts.error();
    SchedulerActorOptions o;
    o.core.policy = "min_e2e";
    o.core.decision_deadline = Duration::Millis(100);  // the price of every answer is wanted
    o.core.seed = options_.seed;
    o.infos.assign(static_cast<size_t>(candidates_), SchedulerCore::InstanceInfo{model_, {}});
    auto lengths = MakeLengthEstimator(LengthEstimatorKind::kSampled);
    if (!lengths.ok()) return lengths.error();
    o.lengths = std::move(lengths).value();
    o.simulators = hosts_;
    o.instances.assign(static_cast<size_t>(candidates_), sink_);
    auto scheduler = SpawnScheduler(system_, clock_, std::move(o));
    if (!scheduler.ok()) return scheduler.error();
    auto setup = std::make_shared<Setup>(Setup{clock_,
                                               *scheduler,
                                               host_of_,
                                               std::move(streams_),
                                               in_flight_,
                                               Duration::FromSeconds(0.2 * options_.seconds),
                                               Duration::FromSeconds(options_.seconds),
                                               {}});
    std::future<Measured> measured = setup->measured.get_future();
    const caf::actor load = system_.spawn(Load, setup);
    caf::anon_send(load, BeginCall{});
    Measured m = measured.get();
    DecideBenchRow row = Describe(m);
    caf::scoped_actor self(system_);
    self->request(*scheduler, std::chrono::seconds(5), StatusQuery{})
        .receive([&row](const SchedulerStatus& s) { row.unanswered = s.counters.unanswered; }, [](const caf::error&) {});
    for (const caf::actor& a : {load, *scheduler, sink_}) caf::anon_send_exit(a, caf::exit_reason::user_shutdown);
    for (const SimulatorHost& h : hosts_) caf::anon_send_exit(h.actor, caf::exit_reason::user_shutdown);
    return row;
  }

 private:
  Result<std::unique_ptr<SimulatorCore>> MakeCore(uint32_t k) {
    InstanceProfile profile;
    profile.instance = InstanceId(k);
    profile.limits = Limits(options_);
    profile.step_time = model_;
    auto lengths = MakeLengthEstimator(LengthEstimatorKind::kSampled);
    if (!lengths.ok()) return lengths.error();
    auto predictor = MakePredictor(options_.predictor, profile, lengths->get());
    if (!predictor.ok()) return predictor.error();
    SimulatorCore::Options o;
    o.profile = profile;
    auto core = std::make_unique<SimulatorCore>(std::move(o), std::move(predictor).value(), std::move(lengths).value());
    const Script& script = scripts_[k % scripts_.size()];
    NoEffects none;
    for (const EngineRequest& r : script.requests) {
      const auto lists = {&script.start.running, &script.start.waiting};
      const bool there = std::any_of(lists.begin(), lists.end(), [&](const auto* list) {
        return std::any_of(list->begin(), list->end(), [&](const Snapshot::Request& q) { return q.request == r.id; });
      });
      if (!there) continue;
      EnqueueOrder order;
      order.instance = InstanceId(k);
      order.reservation.request = r.id;
      order.reservation.prompt_tokens = r.prompt_tokens;
      order.reservation.expected_output = r.output_tokens;
      order.reservation.length.request = r.id;
      core->OnEnqueue(order, clock_.Now());
    }
    streams_.emplace_back(InstanceId(k), &script);
    StreamMessage first = streams_.back().Next(clock_.Now());
    core->OnStream(first, clock_.Now(), none);
    FT_CHECK(core->predictor().running() == static_cast<int32_t>(script.start.running.size()));
    FT_CHECK(core->predictor().waiting() >= options_.waiting);
    return core;
  }
  Status AddHosts() {
    const uint32_t n = static_cast<uint32_t>(candidates_);
    const uint32_t shard = static_cast<uint32_t>(shard_);
    for (uint32_t first = 0; first < n; first += shard) {
      SimulatorActorOptions o;
      const uint32_t count = std::min(shard, n - first);
      for (uint32_t k = first; k < first + count; ++k) {
        auto core = MakeCore(k);
        if (!core.ok()) return core.error();
        o.cores.push_back(std::move(core).value());
        o.resync_to.push_back(sink_);
      }
      hosts_.push_back({SpawnSimulator(system_, clock_, std::move(o)), InstanceId(first), count});
      host_of_.insert(host_of_.end(), count, hosts_.back().actor);
    }
    return Status();
  }
  DecideBenchRow Describe(Measured& m) const {
    DecideBenchRow row;
    row.candidates = candidates_;
    row.running = options_.running;
    row.waiting = options_.waiting;
    row.in_flight = in_flight_;
    std::sort(m.nanos.begin(), m.nanos.end());
    const auto at = [&m](double q) {
      return static_cast<double>(m.nanos[static_cast<size_t>(q * static_cast<double>(m.nanos.size() - 1))]) / 1e3;
    };
    row.p50_us = at(0.5);
    row.p99_us = at(0.99);
    row.p999_us = at(0.999);
    row.decisions = m.nanos.size();
    row.decisions_per_second = static_cast<double>(m.nanos.size()) / m.seconds;
    return row;
  }

  const StepTimeModel& model_;
  const DecideBenchOptions& options_;
  const std::vector<Script>& scripts_;
  const int32_t candidates_;
  const int32_t in_flight_;
  const size_t shard_;
  Config config_;
  caf::actor_system system_;
  HostClock clock_;
  caf::actor sink_;
  std::vector<SimulatorHost> hosts_;
  std::vector<caf::actor> host_of_;
  std::vector<Stream> streams_;
};

std::string_view KindName(PredictorKind kind) {
  switch (kind) {
    case PredictorKind::kReference: return "reference";
    case PredictorKind::kPattern: return "pattern";
    case PredictorKind::kPatternReuse: return "pattern_reuse";
    case PredictorKind::kTimeline: return "timeline";
    case PredictorKind::kLedger: return "ledger";
  }
  return "";
}

}  // namespace

Result<std::vector<DecideBenchRow>> RunDecideBench(const StepTimeModel& model, const DecideBenchOptions& options) {
  std::vector<Script> scripts;
  for (size_t k = 0; k < kScripts; ++k) {
    auto script = Record(model, options, Mix64(options.seed, k));
    if (!script.ok()) return script.error();
    scripts.push_back(std::move(script).value());
  }
  std::vector<DecideBenchRow> rows;
  for (const std::string& hosting : options.hosting) {
    if (hosting != "actor" && hosting != "shard") return Error{"hosting \"" + hosting + "\": actor or shard"};
    const size_t shard = hosting == "actor" ? 1 : static_cast<size_t>(std::max(options.shard_size, 1));
    for (const int32_t candidates : options.candidates)
      for (const int32_t in_flight : options.in_flight) {
        auto row = Row(model, options, scripts, candidates, in_flight, shard).Run();
        if (!row.ok()) return row.error();
        row->hosting = hosting;
        row->predictor = KindName(options.predictor);
        rows.push_back(std::move(row).value());
      }
  }
  return rows;
}

}  // namespace foretoken
