#include "integration/recorder/replay_log.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>

#include "actors/cluster.h"
#include "configs/topology_reader.h"
#include "integration/recorder/log_file.h"
#include "integration/simulate/compose_run.h"
#include "runtime/base/prng.h"
#include "runtime/cluster/hosted_simulators.h"
#include "runtime/predict/enqueue_request.h"

namespace foretoken {
namespace {

// One SCHEDULER of the session. Its effects go nowhere: what came of them is in the log.
class Player final : private SchedulerEffects {
 public:
  Player(std::unique_ptr<LengthEstimator> lengths, std::vector<std::string> names, ReplayObserver* observer)
      : lengths_(std::move(lengths)), names_(std::move(names)), observer_(observer) {}

  Status Make(SchedulerCore::Options options, std::vector<SchedulerCore::InstanceInfo> infos) {
    policy_ = options.policy;
    infos_ = infos;
    auto core = SchedulerCore::Make(std::move(options), std::move(infos), lengths_.get());
    if (!core.ok()) return core.error();
    core_ = std::move(core).value();
    return Status();
  }

  // A record of something taken. False: it is one of something made.
  bool Play(const LogRecord& record) {
    record_ = &record;
    const Instant at = record.at;
    if (const auto* d = std::get_if<DeadlineRecord>(&record.body)) {
      core_->OnDeadline(d->decision, at, *this);
    } else if (const auto* c = std::get_if<CandidateRecord>(&record.body)) {
      core_->SetState(c->instance, c->usable ? InstanceState::kServing : InstanceState::kDead);
    } else if (const auto* j = std::get_if<JoinRecord>(&record.body)) {
      Join(*j, at);
    } else if (const auto* l = std::get_if<LeftRecord>(&record.body)) {
      core_->RemoveInstance(l->instance);
    } else if (const auto* p = std::get_if<PolicyRecord>(&record.body)) {
      policy_ = p->policy;
      return core_->SetPolicy(p->policy, p->weights).ok();
    } else if (const auto* m = std::get_if<Message>(&record.body)) {
      return !std::holds_alternative<Decision>(*m) && Take(*m, at);
    } else {
      return false;
    }
    return true;
  }

  // What was made lately and has not been compared yet.
  std::deque<Decision> made;

 private:
  bool Take(const Message& message, Instant at) {
    if (const auto* s = std::get_if<Schedule>(&message)) {
      auto& held = requests_[s->request.id];
      held = std::make_unique<RequestMeta>(s->request);
      core_->OnSchedule(*held, at, *this);
    } else if (const auto* p = std::get_if<PredictionBatch>(&message)) {
      for (const Prediction& one : p->predictions) core_->OnPrediction(p->decision, one, at, *this);
      for (const InstanceId i : p->unreachable) core_->OnUnreachable(p->decision, i, at, *this);
    } else if (const auto* e = std::get_if<EnqueueReply>(&message)) {
      core_->OnEnqueueReply(*e, at, *this);
    } else if (const auto* t = std::get_if<TokenEvent>(&message)) {
      core_->OnFirstToken(t->request, at);
    } else if (const auto* o = std::get_if<RequestOutcome>(&message)) {
      TakeOutcome(*o, at);
    } else {
      return false;
    }
    return true;
  }
  // As the SCHEDULER does (actors/scheduler.cc).
  void Join(const JoinRecord& j, Instant at) {
    if (j.kind.value() >= infos_.size()) return;
    SchedulerCore::InstanceInfo info = infos_[j.kind.value()];
    info.facts.name = j.name;
    info.facts.state = InstanceState::kDead;
    core_->AddInstance(j.instance, std::move(info));
    if (j.fresh) core_->BeginSlowStart(j.instance, at);
    if (names_.size() <= j.instance.value()) names_.resize(j.instance.value() + 1);
    names_[j.instance.value()] = j.name;
  }
  void TakeOutcome(const RequestOutcome& o, Instant at) {
    if (o.kind == OutcomeKind::kFinished) {
      core_->OnFinished(o.request, o.output_tokens, at);
    } else if (o.kind == OutcomeKind::kCancelled) {
      core_->OnCancelled(o.request, *this);
    } else {
      const auto held = requests_.find(o.request);
      if (held != requests_.end()) core_->OnEngineFailure(*held->second, o.reason, at, *this);
      return;  // it may go on elsewhere
    }
    requests_.erase(o.request);
  }

  // SchedulerEffects
  void SendPredict(DecisionId, std::span<const InstanceId>, const PredictQuery&) override {}
  void SendEnqueue(const EnqueueOrder& order) override {
    if (observer_ == nullptr) return;
    std::vector<CandidateView> views;
    const auto candidates = core_->last_candidates();
    const auto scores = core_->last_scores();
    for (size_t k = 0; k < candidates.size(); ++k) {
      const Candidate& c = candidates[k];
      CandidateView v{names_[c.instance.value()], c.load, c.prediction != nullptr, {}, scores[k]};
      if (c.prediction != nullptr) v.prediction = *c.prediction;
      views.push_back(std::move(v));
    }
    observer_->OnChosen(*record_, order.decision, order.reservation.request, policy_, views);
  }
  void SendCancel(InstanceId, RequestId) override {}
  void Dispatch(InstanceId, const RequestMeta&) override {}
  void Reject(RequestId request, OutcomeReason reason) override {
    Decision d;
    d.request = request;
    d.reason = reason;
    made.push_back(std::move(d));
  }
  void Decided(const DecisionRecord& r) override {
    Decision d{r.decision, r.request, {{r.instance, PlacementRole::kWhole}}, OutcomeReason::kNone, r.predictor, r.score, {}};
    d.stamps.ended = r.at;
    made.push_back(std::move(d));
  }
  void ArmDeadline(DecisionId, Instant) override {}

  std::unique_ptr<LengthEstimator> lengths_;
  std::vector<std::string> names_;                  // by instance
  std::vector<SchedulerCore::InstanceInfo> infos_;  // of those that it began with
  ReplayObserver* observer_;
  std::string policy_;
  std::unique_ptr<SchedulerCore> core_;
  std::unordered_map<RequestId, std::unique_ptr<RequestMeta>> requests_;
  const LogRecord* record_ = nullptr;
};

// The SIMULATORs of the session's process, each with what it was told.
class Mirrors final : private SimulatorEffects {
 public:
  Mirrors(const RunOptions& run, bool node, ReplayResult& result)
      : run_(run),
        hosted_(run.instances.size(), node && run.level != SyncLevel::kNone,
                [this](InstanceId i) {
                  const auto joined = kinds_.find(i);
                  return joined == kinds_.end() ? MakeSimulatorCore(run_, i.value(), true)
                                                : MakeSimulatorCore(run_, joined->second.value(), true, i);
                }),
        result_(result) {}

  Status Play(LogRecord& record) {
    const Instant at = record.at;
    if (const auto* j = std::get_if<JoinRecord>(&record.body)) {
      if (j->kind.value() >= run_.instances.size()) return Error{"an instance that joined is like none of the topology"};
      kinds_.emplace(j->instance, j->kind);
      return Status();
    }
    if (const auto* h = std::get_if<HostingRecord>(&record.body)) {
      if (h->instance.value() >= run_.instances.size() && kinds_.count(h->instance) == 0)
        return Error{"the SIMULATOR of an instance that never joined"};
      if (!h->here) return hosted_.Disown(h->instance), Status();
      return hosted_.Own(h->instance, h->term);
    }
    if (const auto* t = std::get_if<TimerRecord>(&record.body)) {
      if (SimulatorCore* core = hosted_.Find(t->instance)) core->OnTimer(at, *this);
    } else if (auto* m = std::get_if<Message>(&record.body)) {
      Take(*m, at);
    }
    return Status();
  }

 private:
  void Take(Message& message, Instant at) {
    if (auto* s = std::get_if<StreamMessage>(&message)) {
      hosted_.OnStream(*s, at, *this);
    } else if (const auto* asked = std::get_if<PredictBatch>(&message)) {
      PredictionBatch out;
      hosted_.Predict(asked->instances, QueryOf(asked->question), at, out);
      for (Prediction& p : out.predictions) made_[p.instance].push_back(std::move(p));
    } else if (const auto* told = std::get_if<PredictionBatch>(&message)) {
      for (const Prediction& p : told->predictions) Compare(p);
    } else if (const auto* e = std::get_if<EnqueueRequest>(&message)) {
      if (SimulatorCore* core = hosted_.Find(e->instance)) answered_[e->instance].push_back(core->OnEnqueue(OrderOf(*e), at));
    } else if (const auto* r = std::get_if<EnqueueReply>(&message)) {
      Compare(*r);
    } else if (const auto* c = std::get_if<Cancel>(&message)) {
      if (SimulatorCore* core = hosted_.Find(c->instance)) core->OnCancel(c->request, at);
    } else if (const auto* o = std::get_if<RequestOutcome>(&message)) {
      if (SimulatorCore* core = hosted_.Find(o->instance)) core->OnEnded(o->request, o->output_tokens, o->at);
    }
  }
  void Compare(const Prediction& then) {
    auto& made = made_[then.instance];
    Count(!made.empty() && made.front() == then, then.instance,
          made.empty() ? "no prediction now"
                       : "another prediction: E2E " + Seconds(then.e2e) + " then, " + Seconds(made.front().e2e) + " now");
    if (!made.empty()) made.pop_front();
  }
  void Compare(const EnqueueReply& then) {
    auto& made = answered_[then.instance];
    if (!made.empty() && then.accepted) made.front().fresh = then.fresh;  // which means nothing then, and does not travel
    Count(!made.empty() && made.front() == then, then.instance, "another answer to a reservation");
    if (!made.empty()) made.pop_front();
  }
  void Count(bool same, InstanceId instance, const std::string& otherwise) {
    ++result_.predictions;
    if (same) {
      ++result_.predictions_identical;
    } else if (result_.first_prediction_difference.empty()) {
      result_.first_prediction_difference = "instance " + std::to_string(instance.value()) + ": " + otherwise;
    }
  }
  static std::string Seconds(Duration d) { return std::to_string(d.seconds()) + " s"; }
  void RequestResync(InstanceId, Epoch, uint64_t, Instant) override {}

  const RunOptions& run_;
  HostedSimulators hosted_;
  std::unordered_map<InstanceId, InstanceId> kinds_;                   // of those that joined
  std::unordered_map<InstanceId, std::deque<Prediction>> made_;        // not compared yet
  std::unordered_map<InstanceId, std::deque<EnqueueReply>> answered_;  // likewise
  ReplayResult& result_;
};

class Replay {
 public:
  explicit Replay(ReplayObserver* observer) : observer_(observer) {}

  Result<ReplayResult> Run(const std::string& path) {
    auto log = LogReader::Open(path);
    if (!log.ok()) return log.error();
    LogRecord record;
    if (!log->Next(record) || !std::holds_alternative<SessionRecord>(record.body))
      return Error{path + ": not a log of `foretoken serve --record`" + (log->damaged().empty() ? "" : ": " + log->damaged())};
    result_.session = std::get<SessionRecord>(record.body);
    const Status made = MakePlayers();
    if (!made.ok()) return Error{path + ": " + made.error().message};
    Instant first = Instant::Max();
    while (log->Next(record)) {
      first = std::min(first, record.at);
      result_.span = std::max(result_.span, record.at - first);
      if (observer_ != nullptr) observer_->OnRecord(record);
      if (const auto* j = std::get_if<JoinRecord>(&record.body)) {
        if (result_.instances.size() <= j->instance.value()) result_.instances.resize(j->instance.value() + 1, "?");
        result_.instances[j->instance.value()] = j->name;
      }
      if (std::holds_alternative<FullRecord>(record.body)) {
        result_.full = true;
      } else if (record.scheduler == kSimulatorRecords) {
        const Status played = mirrors_->Play(record);
        if (!played.ok()) return Error{path + ": " + played.error().message};
      } else if (record.scheduler < players_.size() && !players_[record.scheduler]->Play(record)) {
        Compare(record, players_[record.scheduler]->made);
      }
    }
    result_.records = log->records();
    result_.damaged = log->damaged();
    if (!result_.full && result_.damaged.empty())
      for (const auto& p : players_) result_.extra += p->made.size();  // cut off in the middle of an event: one at most
    return std::move(result_);
  }

 private:
  Status MakePlayers() {
    const SessionRecord& s = result_.session;
    const auto topology = ParseTopology(s.topology_text, s.topology_file, s.overrides, s.folder);
    if (!topology.ok()) return Error{"its topology cannot be read again: " + topology.errors().ToString()};
    if (topology->predictor.length_estimator == LengthEstimatorKind::kOracle)
      return Error{"predictor.length_estimator: oracle: the true lengths are not in a log"};
    auto composed = ComposeRun(*topology, Trace{});
    if (!composed.ok()) return composed.error();
    run_ = std::make_unique<RunOptions>(std::move(composed).value());
    mirrors_ = std::make_unique<Mirrors>(*run_, !s.node.empty(), result_);
    const RunOptions* run = run_.get();
    uint32_t node = 0;
    while (!s.node.empty() && node < topology->nodes.size() && topology->nodes[node].name != s.node) ++node;
    result_.instances = topology->InstanceNames();
    for (uint32_t k = 0; k < s.schedulers; ++k) {
      auto lengths = run->make_lengths(run->scheduler.seed);
      if (!lengths.ok()) return lengths.error();
      auto player = std::make_unique<Player>(std::move(lengths).value(), result_.instances, observer_);
      SchedulerCore::Options options = run->scheduler;
      options.seed = SchedulerSeed(options.seed, node, k);
      options.sole = s.sole;
      std::vector<SchedulerCore::InstanceInfo> infos;
      for (const RunOptions::Instance& i : run->instances) infos.push_back({i.profile.step_time, i.facts});
      const Status made = player->Make(std::move(options), std::move(infos));
      if (!made.ok()) return made;
      players_.push_back(std::move(player));
    }
    return Status();
  }

  void Compare(const LogRecord& record, std::deque<Decision>& made) {
    Decision then;
    if (const auto* r = std::get_if<RejectionRecord>(&record.body)) {
      then.request = r->request;
      then.reason = r->reason;
    } else if (const auto* m = std::get_if<Message>(&record.body); m != nullptr && std::holds_alternative<Decision>(*m)) {
      then = std::get<Decision>(*m);
      then.stamps = {Instant(), Instant(), then.stamps.ended};  // the core knows no other
    } else {
      return;
    }
    ++result_.decisions;
    const bool alike = !made.empty() && made.front() == then;
    if (observer_ != nullptr) observer_->OnDecision(record, then, alike);
    if (alike) {
      ++result_.identical;
      made.pop_front();
      return;
    }
    ++result_.different;
    if (result_.first_difference.empty()) result_.first_difference = Difference(then, made);
    if (!made.empty()) made.pop_front();
  }
  std::string Name(const Decision& d) const {
    if (d.placement.empty()) return "a rejection";
    const uint32_t i = d.placement.front().instance.value();
    return (i < result_.instances.size() ? result_.instances[i] : "?") + " (score " + std::to_string(d.score) + ")";
  }
  std::string Difference(const Decision& then, const std::deque<Decision>& made) const {
    const std::string head = "request " + std::to_string(then.request.value()) + ": then " + Name(then);
    return made.empty() ? head + ", now nothing"
                        : head + ", now " + Name(made.front()) + " for request " + std::to_string(made.front().request.value());
  }

  ReplayObserver* observer_;
  ReplayResult result_;
  std::unique_ptr<RunOptions> run_;
  std::unique_ptr<Mirrors> mirrors_;
  std::vector<std::unique_ptr<Player>> players_;
};

}  // namespace

Result<ReplayResult> ReplayLog(const std::string& path, ReplayObserver* observer) { return Replay(observer).Run(path); }

uint64_t SchedulerSeed(uint64_t seed, uint32_t node, uint32_t k) {
  const uint64_t nth = uint64_t{node} * 1024 + k;
  return nth == 0 ? seed : Mix64(seed, nth);
}

}  // namespace foretoken
