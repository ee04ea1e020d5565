#include "tests/scenarios/swarm_run.h"

#include <algorithm>
#include <bit>
#include <caf/all.hpp>
#include <set>
#include <utility>

#include "actors/client.h"
#include "actors/cluster.h"
#include "actors/link.h"
#include "actors/protocol.h"
#include "runtime/eval/engine_request.h"
#include "runtime/workload/make_length_estimator.h"
#include "tests/scenarios/stream_watch.h"
#include "tests/testing/sim_cluster.h"

namespace foretoken::testing {
namespace {

// One instance and its mirror as the checks see them.
struct Watched {
  const InstanceCore* engine = nullptr;
  const SimulatorCore* simulator = nullptr;
  MirrorWatch* mirror = nullptr;
  const LengthEstimator* lengths = nullptr;
  std::unique_ptr<StreamWatch> stream;
  caf::actor tap;
  bool mirror_dead = false;
  Instant as_of;
};

class Swarm {
 public:
  explicit Swarm(const Scenario& scenario) : s_(scenario), options_(scenario.options), verdict_(scenario.seed) {
    for (const RunOptions::Instance& i : options_.instances) {
      watched_.emplace_back();
      watched_.back().stream = std::make_unique<StreamWatch>(i.name, options_.faults.ClockOf(i.name) != ClockSkew{}, &verdict_);
    }
  }

  SwarmResult Run() {
    if (Start()) {
      Play();
      Settle();
    }
    SwarmResult r;
    Report(r);
    r.failure = verdict_.failure();
    if (!r.failure.empty()) r.failure = "at " + std::to_string(sim_.now().nanos()) + " ns: " + r.failure;
    cluster_.Stop();
    for (const Watched& w : watched_)
      if (w.tap) sim_.Kill(w.tap);
    if (client_) sim_.Kill(client_);
    return r;
  }

 private:
  bool Start();
  void Tap(size_t k);
  void Play();
  void Settle();
  void Report(SwarmResult& r);
  EngineRequest OnDispatch(InstanceId instance, const RequestMeta& request);
  void OnDecision(const DecisionRecord& d);
  void AfterEvent();
  void CheckEngine(const Watched& w);
  void CheckMirrors();
  void CompareWithFreshMirror(size_t k);
  void CheckOutcomes();
  void CheckEmpty();
  bool Empty() const;
  std::string Name(size_t k) const { return options_.instances[k].name; }

  const Scenario& s_;
  RunOptions options_;
  Verdict verdict_;
  SimCluster sim_;
  Cluster cluster_;
  std::vector<Watched> watched_;
  caf::actor client_;
  std::shared_ptr<ClientLog> log_ = std::make_shared<ClientLog>();
  bool bypass_ = false;  // streams go round the links
  std::set<uint64_t> dispatched_;
  Instant last_now_;
  size_t next_checked_ = 0;
  uint64_t decisions_ = 0;
  uint64_t compared_ = 0;
};

bool Swarm::Start() {
  options_.make_lengths = [](uint64_t) { return MakeLengthEstimator(LengthEstimatorKind::kSampled); };
  options_.make_predictor = [this](const InstanceProfile& profile,
                                   const LengthEstimator* lengths) -> Result<std::unique_ptr<Predictor>> {
    auto inner = MakePredictor(s_.predictor, profile, lengths);
    if (!inner.ok()) return inner.error();
    const size_t k = profile.instance.value();
    auto mirror =
        std::make_unique<MirrorWatch>(Name(k), options_.level, std::move(inner).value(), watched_[k].stream.get(), &verdict_);
    watched_[k].mirror = mirror.get();
    watched_[k].lengths = lengths;
    return std::unique_ptr<Predictor>(std::move(mirror));
  };
  ClusterOptions o;
  o.shard_size = s_.shard_size;
  o.open_rounds_max = s_.open_rounds_max;
  o.for_engine = [this](InstanceId k, const RequestMeta& r) { return OnDispatch(k, r); };
  o.on_decision = [this](const DecisionRecord& d) { OnDecision(d); };
  size_t instances = 0, simulators = 0;
  o.on_instance = [&](const InstanceCore& c) { watched_[instances++].engine = &c; };
  o.on_simulator = [&](const SimulatorCore& c) {
    watched_[simulators].simulator = &c;
    watched_[simulators++].stream->Follow([&c] { return c.epoch(); });
  };
  auto cluster = SpawnCluster(sim_.system(), sim_.clock(), options_, o);
  if (!cluster.ok()) {
    verdict_.Fail("does not start: " + cluster.error().message);
    return false;
  }
  cluster_ = std::move(cluster).value();
  for (size_t k = 0; k < watched_.size(); ++k) Tap(k);
  const std::shared_ptr<const Trace> trace(std::shared_ptr<void>(), &s_.trace);
  client_ = SpawnClient(sim_.system(), sim_.clock(), {trace, log_, false, {}});
  sim_.Send(client_, StartCall{cluster_.schedulers});
  sim_.AfterEachEvent([this] { AfterEvent(); });
  return true;
}

// Between an INSTANCE and the link (or SIMULATOR) that its stream goes to.
void Swarm::Tap(size_t k) {
  if (cluster_.simulators.empty()) return;
  const caf::actor host = cluster_.simulators[k / s_.shard_size];
  const caf::actor way = cluster_.links.empty() ? host : cluster_.links[2 * k];
  StreamWatch* stream = watched_[k].stream.get();
  watched_[k].tap = sim_.system().spawn([this, stream, host, way](caf::event_based_actor* self) -> caf::behavior {
    return {[this, stream, host, way, self](const StreamCall& call) {
      stream->OnSent(call.message);
      self->send(bypass_ ? host : way, call);
    }};
  });
  caf::anon_send(cluster_.instances[k], ConnectCall{watched_[k].tap, host});
}

EngineRequest Swarm::OnDispatch(InstanceId instance, const RequestMeta& request) {
  const std::string name = "request " + std::to_string(request.id.value());
  verdict_.Expect(log_->requests[request.id.value() - 1].outcome == OutcomeKind::kLost, name + " is placed after its end");
  if (!dispatched_.insert(request.id.value()).second)  // a retry: no engine may still have it
    for (const Watched& w : watched_) {
      const Snapshot s = w.engine->engine().TakeSnapshot(false);
      for (const auto* list : {&s.running, &s.waiting})
        for (const Snapshot::Request& r : *list) verdict_.Expect(!(r.request == request.id), name + " is on two engines");
    }
  if (options_.level == SyncLevel::kFull) watched_[instance.value()].stream->OnDispatch(request.id);
  const bool eos = options_.instances[instance.value()].engine.config.stop_at_eos;
  return EngineRequestOf(s_.trace.requests[request.id.value() - 1], eos, false);
}

void Swarm::OnDecision(const DecisionRecord& d) {
  ++decisions_;
  for (const uint64_t x :
       {d.request.value(), uint64_t{d.instance.value()}, static_cast<uint64_t>(d.at.nanos()), d.state_version,
        std::bit_cast<uint64_t>(d.score), std::bit_cast<uint64_t>(d.runner_up),
        static_cast<uint64_t>(d.prediction.ttft.nanos()), static_cast<uint64_t>(d.prediction.e2e_p90.nanos())})
    verdict_.Observe(x);
  if (!d.predicted) return;
  Watched& w = watched_[d.instance.value()];
  verdict_.Expect(d.prediction.as_of <= d.at, "a prediction is from the future");
  verdict_.Expect(options_.scheduler_count > 1 || s_.open_rounds_max > 1 || w.as_of <= d.prediction.as_of,
                  "a mirror's as_of went back");
  w.as_of = d.prediction.as_of;
}

void Swarm::AfterEvent() {
  verdict_.Expect(last_now_ <= sim_.now(), "the clock went back");
  last_now_ = sim_.now();
  CheckEngine(watched_[next_checked_++ % watched_.size()]);
  for (const Watched& w : watched_)
    if (w.simulator != nullptr && !w.mirror_dead)
      verdict_.Expect(w.simulator->sync_counters().held_max <= static_cast<uint64_t>(options_.sequencer.window_messages) + 1,
                      "more messages held than the window");
}

void Swarm::CheckEngine(const Watched& w) {
  const Status s = w.engine->engine().core().CheckInvariants();
  if (!s.ok()) verdict_.Fail("engine: " + s.error().message);
}

void Swarm::Play() {
  struct Event {
    Instant at;
    std::function<void()> happen;
  };
  std::vector<Event> events;
  std::vector<std::string> names;
  for (const RunOptions::Instance& i : options_.instances) names.push_back(i.name);
  for (const RestartEvent& e : options_.faults.RestartsOf(names, s_.trace.requests.back().meta.arrival))
    events.push_back({e.at, [this, e] { sim_.Send(cluster_.instances[e.instance], RestartCall{e.downtime}); }});
  for (size_t k = 0; k < s_.trace.requests.size(); ++k)
    if (s_.submitted[k])
      events.push_back({s_.trace.requests[k].meta.arrival, [this, k] { sim_.Send(client_, SubmitCall{k}); }});
  for (const Scenario::Withdrawal& w : s_.withdrawals)
    if (s_.submitted[w.request])
      events.push_back({w.at, [this, w] {
                          const RequestId id = s_.trace.requests[w.request].meta.id;
                          sim_.Send(cluster_.schedulers[id.value() % cluster_.schedulers.size()], WithdrawCall{id});
                        }});
  for (const Scenario::SimulatorDeath& d : s_.deaths)
    events.push_back({d.at, [this, d] {
                        if (d.host >= cluster_.simulators.size()) return;
                        for (size_t k = d.host * s_.shard_size; k < std::min(watched_.size(), (d.host + 1) * s_.shard_size);
                             ++k)
                          watched_[k].mirror_dead = true;
                        sim_.Kill(cluster_.simulators[d.host]);
                      }});
  events.push_back({s_.freeze, [this] { CheckMirrors(); }});
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.at < b.at; });
  for (const Event& e : events) {
    sim_.RunUntil(e.at);
    if (verdict_.failed()) return;
    e.happen();
  }
}

// Every mirror gets a snapshot at once: from then on it is as its engine, whatever came before.
void Swarm::CheckMirrors() {
  if (options_.level != SyncLevel::kFull || cluster_.simulators.empty()) return;
  bypass_ = true;
  for (size_t k = 0; k < watched_.size(); ++k) {
    const Watched& w = watched_[k];
    if (w.mirror_dead || !w.engine->up(sim_.now())) continue;
    sim_.Send(cluster_.instances[k],
              ResyncRequest{InstanceId(static_cast<uint32_t>(k)), SourceId(0), w.engine->epoch(), 0, false});
    const Snapshot truth = w.engine->engine().TakeSnapshot(false);
    verdict_.Expect(truth.running.size() + truth.waiting.size() == w.engine->held(),
                    Name(k) + ": its snapshot lists " + std::to_string(truth.running.size()) + " + " +
                        std::to_string(truth.waiting.size()) + " requests, it holds " + std::to_string(w.engine->held()));
    verdict_.Expect(w.stream->complete(), Name(k) + ": a snapshot did not close the gap");
    // The reference takes what runs in anew, step by step.
    if (s_.predictor == PredictorKind::kReference) continue;
    const auto waiting = truth.waiting.size() + w.simulator->unconfirmed();
    // In sum: what is in its first prefill, or in the step in flight, counts as waiting in some mirrors.
    verdict_.Expect(w.mirror->running() + w.mirror->waiting() == static_cast<int32_t>(truth.running.size() + waiting),
                    Name(k) + ": after a snapshot its mirror has " + std::to_string(w.mirror->running()) + " + " +
                        std::to_string(w.mirror->waiting()) + " requests, the engine " + std::to_string(truth.running.size()) +
                        " and, with reservations, " + std::to_string(waiting));
    CompareWithFreshMirror(k);
    ++compared_;
  }
  bypass_ = false;
}

// A mirror that knows nothing but the reservations and the snapshot is given the same from here on, and must answer alike.
void Swarm::CompareWithFreshMirror(size_t k) {
  const Watched& w = watched_[k];
  InstanceProfile profile = options_.instances[k].profile;
  if (profile.calibrate || profile.limits.prefix_caching) return;  // learnt state is apart
  profile.instance = InstanceId(static_cast<uint32_t>(k));
  auto fresh = MakePredictor(s_.predictor, profile, w.lengths);
  if (!fresh.ok()) return verdict_.Fail(fresh.error().message);
  w.mirror->CompareWith(std::move(fresh).value());
}

void Swarm::Settle() {
  Instant t = sim_.now();
  for (int k = 0; k < 3000 && log_->ended < log_->submitted && !verdict_.failed(); ++k)
    sim_.RunUntil(t += Duration::Seconds(1));
  // Longer than any partition, reservation or retry; lossy links may need several snapshots.
  for (int k = 0; k < 60 && !verdict_.failed(); ++k) {
    sim_.RunUntil(t += Duration::Seconds(1));
    if (k >= 12 && Empty()) break;
  }
  if (verdict_.failed()) return;
  CheckOutcomes();
  CheckEmpty();
}

bool Swarm::Empty() const {
  return std::all_of(watched_.begin(), watched_.end(), [this](const Watched& w) {
    if (w.mirror == nullptr || w.mirror_dead) return true;
    const bool told = options_.level == SyncLevel::kPoll || w.stream->complete();
    const bool counts = options_.level == SyncLevel::kFull || s_.predictor != PredictorKind::kReference;
    return told && (!counts || w.mirror->waiting() + w.mirror->running() == 0) && w.simulator->unconfirmed() == 0;
  });
}

void Swarm::CheckOutcomes() {
  verdict_.Expect(log_->duplicated == 0, std::to_string(log_->duplicated) + " requests ended twice");
  for (size_t k = 0; k < s_.trace.requests.size(); ++k) {
    if (!s_.submitted[k]) continue;
    const RunRequest& r = log_->requests[k];
    const std::string name = "request " + std::to_string(k + 1);
    verdict_.Observe(static_cast<uint64_t>(r.outcome));
    verdict_.Observe(static_cast<uint64_t>(r.finish.nanos()));
    verdict_.Expect(r.outcome != OutcomeKind::kLost, name + " is lost: it never ended");
    if (r.outcome != OutcomeKind::kFinished) continue;
    const TraceRequest& asked = s_.trace.requests[k];
    const int64_t limit = asked.meta.max_tokens.value_or(asked.truth.output_tokens).value();
    const int64_t due = std::min(limit, asked.truth.output_tokens.value());
    // SGLang ends a request early that would outgrow its pool.
    const EngineConfig& config = options_.instances[r.instance.value()].engine.config;
    const bool pool_full = config.kind == EngineKind::kSglang && r.output_tokens < due &&
                           asked.meta.prompt_tokens.value() + r.output_tokens + 4 >= config.num_gpu_blocks;
    verdict_.Expect(r.output_tokens == due || pool_full,
                    name + " got " + std::to_string(r.output_tokens) + " tokens of " + std::to_string(due));
    verdict_.Expect(r.arrival <= r.decided && r.decided <= r.first_token && r.first_token <= r.finish,
                    name + ": arrival, decision, first token and end are out of order");
  }
}

void Swarm::CheckEmpty() {
  for (size_t i = 0; i < cluster_.schedulers.size(); ++i) {
    const SchedulerStatus s = sim_.Ask<SchedulerStatus>(cluster_.schedulers[i], StatusQuery{});
    verdict_.Expect(s.open_rounds == 0 && s.queued == 0 && s.assigned == 0,
                    "scheduler " + std::to_string(i) + " keeps " + std::to_string(s.open_rounds) + " rounds, " +
                        std::to_string(s.queued) + " events, " + std::to_string(s.assigned) + " assignments");
  }
  for (size_t k = 0; k < watched_.size(); ++k) {
    const Watched& w = watched_[k];
    CheckEngine(w);
    const EngineCore& core = w.engine->engine().core();
    verdict_.Expect(core.running() == 0 && core.waiting() == 0, Name(k) + ": its engine keeps requests");
    if (w.mirror == nullptr || w.mirror_dead) continue;
    verdict_.Expect(w.simulator->unconfirmed() == 0, Name(k) + ": reservations stay");
    verdict_.Expect(options_.level == SyncLevel::kPoll || w.stream->complete(), Name(k) + ": its mirror never caught up");
    verdict_.Expect(w.simulator->assigned() == 0, Name(k) + ": " + std::to_string(w.simulator->assigned()) +
                                                      " requests that ended are still taken for assigned");
    // Without steps the reference counts as of its last event; an end that is told in the middle of a step leaves with that step.
    if (options_.level != SyncLevel::kFull && s_.predictor == PredictorKind::kReference) continue;
    verdict_.Expect(w.mirror->waiting() == 0 && w.mirror->running() == 0,
                    Name(k) + ": its mirror keeps " + std::to_string(w.mirror->waiting()) + " waiting and " +
                        std::to_string(w.mirror->running()) + " running requests");
  }
}

void Swarm::Report(SwarmResult& r) {
  for (const Watched& w : watched_) {
    if (w.engine != nullptr) r.preemptions += w.engine->counters().preemptions;
    if (w.engine != nullptr) r.engine_epochs += w.engine->epoch().value() - 1;
    if (w.simulator != nullptr && !w.mirror_dead) Add(r.sync, w.simulator->sync_counters());
  }
  std::vector<caf::actor> links = cluster_.links;
  links.insert(links.end(), cluster_.control_links.begin(), cluster_.control_links.end());
  for (const caf::actor& link : links) {
    const LinkCounters c = sim_.Ask<LinkCounters>(link, StatusQuery{});
    for (const uint64_t x : {c.sent, c.dropped, c.burst_lost, c.partitioned, c.duplicated, c.held_back}) verdict_.Observe(x);
  }
  for (const caf::actor& s : cluster_.schedulers) r.retried += sim_.Ask<SchedulerStatus>(s, StatusQuery{}).counters.retried;
  r.decisions = decisions_;
  r.mirrors_compared = compared_;
  for (const Watched& w : watched_)
    if (w.mirror != nullptr && !w.mirror_dead) r.answers_compared += w.mirror->compared();
  r.digest = verdict_.digest();
  r.unseed = verdict_.Unseed();
}

}  // namespace

SwarmResult RunScenario(const Scenario& scenario) { return Swarm(scenario).Run(); }

}  // namespace foretoken::testing
