//   client --ScheduleCall--> SCHEDULER --PredictCall--> SIMULATOR hosts (all at once)
//                                     <-PredictedReply-
//                                     --EnqueueCall---> the winner's host
//                                     <-EnqueueReply--
//   client <--DecisionNote-- SCHEDULER --DispatchCall-> INSTANCE --TokenEvent, RequestOutcome--> SCHEDULER, client
// Replies that come after the round's deadline, or from a host that was given up, are counted by the core.
#include "actors/scheduler.h"

#include <algorithm>
#include <caf/actor_ostream.hpp>
#include <caf/all.hpp>
#include <deque>
#include <utility>
#include <variant>

#include "runtime/base/id_map.h"

namespace foretoken {
namespace {

// The actor, whichever kind it is.
class Self {
 public:
  explicit Self(caf::scheduled_actor* actor) : actor_(actor) {}
  template <class... Ts>
  void send(const caf::actor& to, Ts&&... content) const {
    caf::unsafe_send_as(actor_, to, std::forward<Ts>(content)...);
  }
  const Self* operator->() const { return this; }

 private:
  caf::scheduled_actor* actor_;
};

class SchedulerShell final : private SchedulerEffects {
 public:
  SchedulerShell(caf::scheduled_actor* self, const HostClock& clock, SchedulerActorOptions options,
                 std::unique_ptr<SchedulerCore> core)
      : self_(self),
        clock_(clock),
        options_(std::move(options)),
        core_(std::move(core)),
        alarm_(self, clock, SlotClass::kOther, options_.index) {
    if (options_.journal) journal_ = std::make_unique<RequestJournal>(*options_.journal);
    host_of_.resize(options_.instances.size());
    for (uint32_t h = 0; h < options_.simulators.size(); ++h) {
      const SimulatorHost& host = options_.simulators[h];
      for (uint32_t k = 0; k < host.count; ++k) host_of_[host.first.value() + k] = h;
      self->monitor(host.actor);
    }
    down_.resize(options_.simulators.size());
  }

  // What may open a round, or change what the next one sees, keeps its order.
  struct ScheduleEvent {
    ScheduleCall call;
    caf::strong_actor_ptr client;
  };
  using Event = std::variant<ScheduleEvent, TokenEvent, RequestOutcome, WithdrawCall>;

  void Offer(Event event) {
    if (!queue_.empty() || core_->open_rounds() >= options_.open_rounds_max) return queue_.push_back(std::move(event));
    Handle(event);
    Pump();
  }

  void On(const RouteCall& call) { route_ = call; }
  void On(const PredictedReply& reply) {
    if (options_.on_reply) options_.on_reply(reply);
    const Instant now = clock_.Now();
    if (options_.record) Record(now, PredictionBatch{reply.decision, reply.predictions, reply.unreachable, reply.stamps});
    for (const Prediction& p : reply.predictions) core_->OnPrediction(reply.decision, p, now, *this);
    for (const InstanceId i : reply.unreachable) core_->OnUnreachable(reply.decision, i, now, *this);
    Pump();
  }
  void On(const EnqueueReply& reply) {
    const Instant now = clock_.Now();
    if (options_.record) Record(now, reply);
    core_->OnEnqueueReply(reply, now, *this);
    Pump();
  }
  void On(const Tick& tick) {
    const Instant now = clock_.Now();
    while (!deadlines_.empty() && deadlines_.front().at <= now) {
      const DecisionId decision = deadlines_.front().decision;
      deadlines_.pop_front();
      if (options_.record && core_->IsOpen(decision)) options_.record({now, 0, DeadlineRecord{decision}});
      core_->OnDeadline(decision, now, *this);
    }
    ForgetClosed();
    alarm_.Rearm(tick, deadlines_.empty() ? Instant::Max() : deadlines_.front().at);
    Pump();
  }
  void OnSimulatorDown(const caf::actor_addr& gone) {
    for (uint32_t h = 0; h < options_.simulators.size(); ++h) {
      if (options_.simulators[h].actor.address() != gone) continue;
      down_[h] = true;
      // Open rounds are among those whose deadline has not passed; the core ignores the others.
      const std::deque<Deadline> open = deadlines_;
      for (const Deadline& d : open) GiveUp(d.decision, h);
    }
    Pump();
  }
  void On(const CandidateCall& call) {
    if (options_.record) options_.record({clock_.Now(), 0, CandidateRecord{call.instance, call.usable}});
    core_->SetState(call.instance, call.usable ? InstanceState::kServing : InstanceState::kDead);
  }
  void On(const JoinCall& call) {
    const Instant now = clock_.Now();
    if (options_.record) options_.record({now, 0, JoinRecord{call.instance, call.kind, call.name, call.fresh}});
    SchedulerCore::InstanceInfo info = options_.infos[call.kind.value()];
    info.facts.name = call.name;
    info.facts.state = InstanceState::kDead;  // until its CandidateCall
    core_->AddInstance(call.instance, std::move(info));
    if (call.fresh) core_->BeginSlowStart(call.instance, now);
    const size_t size = std::max<size_t>(options_.instances.size(), call.instance.value() + 1);
    options_.instances.resize(size);
    options_.instances[call.instance.value()] = call.dispatch;
    host_of_.resize(size, 0);  // of a cluster of nodes there is one, the NODE
    if (!options_.simulators.empty()) options_.simulators.front().count = static_cast<uint32_t>(size);
  }
  void On(const LeftCall& call) {
    if (options_.record) options_.record({clock_.Now(), 0, LeftRecord{call.instance}});
    core_->RemoveInstance(call.instance);
  }
  void On(const PolicyCall& call) {
    const foretoken::Status set = core_->SetPolicy(call.policy, call.weights);
    if (set.ok() && options_.record) options_.record({clock_.Now(), 0, PolicyRecord{call.policy, call.weights}});
  }
  SchedulerStatus Status() const {
    SchedulerStatus s{core_->counters(), core_->open_rounds(), queue_.size(), core_->ledger().assigned(), 0};
    for (const bool down : down_) s.simulators_down += down;
    return s;
  }
  caf::result<JournalReport> Watched() const {
    if (journal_ == nullptr) return caf::make_error(caf::sec::invalid_argument);
    JournalReport report{std::make_shared<JournalView>(journal_->View(clock_.Now())), Status(), {}};
    for (uint32_t k = 0; k < options_.instances.size(); ++k)
      report.outstanding.push_back(core_->ledger().load(InstanceId(k)).requests);
    return report;
  }

 private:
  struct Held {
    RequestPtr request;
    caf::strong_actor_ptr client;
    Instant submitted;
    bool withdrawn = false;
  };
  struct Deadline {
    Instant at;
    DecisionId decision;
  };

  void Handle(Event& event) {
    std::visit([this](auto& e) { Do(e); }, event);
  }
  // After every event: what waited for a round to end has its turn.
  void Pump() {
    EndWithdrawn();
    while (!queue_.empty() && core_->open_rounds() < options_.open_rounds_max) {
      Event event = std::move(queue_.front());
      queue_.pop_front();
      Handle(event);
      EndWithdrawn();
    }
  }
  // Those that were dispatched although their client had left, since their round was open.
  void EndWithdrawn() {
    for (const RequestId request : std::exchange(withdrawn_, {})) End(request);
  }

  void Do(ScheduleEvent& e) {
    const RequestMeta& request = *e.call.request;
    if (!held_.Insert(request.id.value(), Held{e.call.request, e.client, e.call.submitted, false})) {
      SendTo(e.client, RejectNote{request.id, OutcomeReason::kShed});  // the id is in use: never placed twice
      return;
    }
    const Instant now = clock_.Now();
    if (options_.record) Record(now, Schedule{request, e.call.submitted});
    if (journal_) journal_->OnSubmitted(request, e.call.submitted, now);
    core_->OnSchedule(request, now, *this);
  }
  void Do(const TokenEvent& e) {
    const Instant now = clock_.Now();
    if (options_.record) Record(now, e);
    if (journal_) journal_->OnFirstToken(e.request, e.at);
    core_->OnFirstToken(e.request, now);
  }
  void Do(const RequestOutcome& o) {
    Held* held = held_.Find(o.request.value());
    const bool cancelled =
        o.kind == OutcomeKind::kCancelled || (o.kind != OutcomeKind::kFinished && held != nullptr && held->withdrawn);
    if (o.kind != OutcomeKind::kFinished && !cancelled && held == nullptr) return;
    const Instant now = clock_.Now();
    if (options_.record) {
      RequestOutcome taken = o;
      if (cancelled) taken.kind = OutcomeKind::kCancelled;
      Record(now, taken);
    }
    if (journal_ && (cancelled || o.kind == OutcomeKind::kFinished))
      journal_->OnEnded(o.request, cancelled ? OutcomeKind::kCancelled : o.kind, o.output_tokens, cancelled ? now : o.at);
    if (o.kind == OutcomeKind::kFinished) {
      core_->OnFinished(o.request, o.output_tokens, now);
      held_.Erase(o.request.value());
    } else if (cancelled) {
      core_->OnCancelled(o.request, *this);
      held_.Erase(o.request.value());
    } else {
      const RequestPtr request = held->request;  // a rejection ends `held`
      core_->OnEngineFailure(*request, o.reason, now, *this);
    }
  }
  void Do(const WithdrawCall& w) {
    Held* held = held_.Find(w.request.value());
    if (held == nullptr) return;  // ended before the withdrawal came
    held->withdrawn = true;
    if (core_->ledger().Where(w.request)) End(w.request);
  }
  // The client has gone and an engine has the request: it ends when the engine says so.
  void End(RequestId request) {
    if (const auto where = core_->ledger().Where(request))
      self_->send(options_.instances[where->value()], Cancel{request, *where, OutcomeReason::kClientGone});
  }

  // SchedulerEffects
  void SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) override {
    const Held* held = held_.Find(query.request->id.value());
    PredictCall call{decision, held->request, query, {targets.begin(), targets.end()}, clock_.Now()};
    call.query.request = call.request.get();
    uint32_t last = UINT32_MAX;
    hosts_.clear();
    for (const InstanceId t : targets) {
      const uint32_t h = host_of_[t.value()];
      if (h != last) hosts_.push_back(h);
      last = h;
    }
    const std::vector<uint32_t> hosts = hosts_;  // giving one up may end the round and open another
    const caf::message message = caf::make_message(std::move(call));
    for (const uint32_t h : hosts)
      if (!down_[h]) SendToHost(h, message);
    for (const uint32_t h : hosts)
      if (down_[h]) GiveUp(decision, h);
  }
  void SendEnqueue(const EnqueueOrder& order) override {
    if (journal_) journal_->OnChosen(order.reservation.request, core_->last_candidates(), core_->last_scores());
    if (options_.simulators.empty()) return;
    const uint32_t h = host_of_[order.instance.value()];
    if (down_[h]) {  // nobody keeps reservations for it
      if (order.guarded) core_->OnEnqueueReply({order.decision, order.instance, true, {}, {}}, clock_.Now(), *this);
      return;
    }
    EnqueueCall call{held_.Find(order.reservation.request.value())->request, order};
    call.order.query.request = call.request.get();
    SendToHost(h, caf::make_message(std::move(call)));
  }
  void SendCancel(InstanceId instance, RequestId request) override {
    if (options_.simulators.empty() || down_[host_of_[instance.value()]]) return;
    SendToHost(host_of_[instance.value()], caf::make_message(Cancel{request, instance, OutcomeReason::kNone}));
  }
  void Dispatch(InstanceId instance, const RequestMeta& request) override {
    const Held* held = held_.Find(request.id.value());
    self_->send(options_.instances[instance.value()],
                DispatchCall{decided_, instance, held->request, caf::actor_cast<caf::actor>(held->client)});
    if (held->withdrawn) withdrawn_.push_back(request.id);
  }
  void Reject(RequestId request, OutcomeReason reason) override {
    const Held* held = held_.Find(request.value());
    if (held == nullptr) return;
    if (options_.record) options_.record({clock_.Now(), 0, RejectionRecord{request, reason}});
    if (journal_) journal_->OnRejected(request, reason, clock_.Now());
    SendTo(held->client, RejectNote{request, reason});
    held_.Erase(request.value());
  }
  void Decided(const DecisionRecord& r) override {
    decided_ = r.decision;
    if (journal_) journal_->OnDecided(r);
    const Held* held = held_.Find(r.request.value());
    DecisionNote note;
    note.decision = {r.decision, r.request, {{r.instance, PlacementRole::kWhole}}, OutcomeReason::kNone, r.predictor,
                     r.score,    {}};
    note.decision.stamps = {held->submitted, held->submitted, r.at};
    if (options_.record) Record(r.at, note.decision);
    note.predicted = r.predicted;
    if (r.predicted) note.prediction = r.prediction;
    SendTo(held->client, std::move(note));
    if (options_.on_decision) options_.on_decision(r);
  }
  void ArmDeadline(DecisionId decision, Instant at) override {
    ForgetClosed();
    deadlines_.push_back({at, decision});
    alarm_.Arm(at);
  }

  // Nearly every round is over long before its deadline: waking up for each would cost more than the decision.
  void ForgetClosed() {
    while (!deadlines_.empty() && !core_->IsOpen(deadlines_.front().decision)) deadlines_.pop_front();
  }
  void GiveUp(DecisionId decision, uint32_t h) {
    const SimulatorHost& host = options_.simulators[h];
    for (uint32_t k = 0; k < host.count; ++k) {
      const InstanceId instance(host.first.value() + k);
      const Instant now = clock_.Now();
      if (options_.record) Record(now, PredictionBatch{decision, {}, {instance}, {}});
      core_->OnUnreachable(decision, instance, now, *this);
    }
  }
  // Through a link the sender is the link of the way back: answers take it.
  void SendToHost(uint32_t h, const caf::message& message) {
    if (route_.forth.empty()) return self_->send(options_.simulators[h].actor, message);
    caf::send_as(route_.back[h], route_.forth[h], message);
  }
  void Record(Instant now, Message message) { options_.record({now, 0, std::move(message)}); }
  template <class M>
  void SendTo(const caf::strong_actor_ptr& to, M message) {
    if (to) self_->send(caf::actor_cast<caf::actor>(to), std::move(message));
  }

  Self self_;
  HostClock clock_;
  SchedulerActorOptions options_;
  std::unique_ptr<SchedulerCore> core_;
  std::unique_ptr<RequestJournal> journal_;  // null: none is kept
  Alarm alarm_;
  std::vector<uint32_t> host_of_;   // by instance: index in options_.simulators
  std::vector<bool> down_;          // by host
  RouteCall route_;                 // empty: straight to the hosts
  std::vector<uint32_t> hosts_;     // scratch of SendPredict
  IdMap<Held> held_;                // requests not ended
  std::deque<Deadline> deadlines_;  // in order: every round has the same time
  std::deque<Event> queue_;
  std::vector<RequestId> withdrawn_;
  DecisionId decided_;
};

struct Setup {
  HostClock clock;
  SchedulerActorOptions options;
  std::unique_ptr<SchedulerCore> core;
};

// The shell lives in the handlers, which end with the actor.
caf::behavior Scheduler(caf::scheduled_actor* self, const std::shared_ptr<Setup>& setup) {
  const auto shell = std::make_shared<SchedulerShell>(self, setup->clock, std::move(setup->options), std::move(setup->core));
  self->set_down_handler([to = shell.get()](const caf::down_msg& down) { to->OnSimulatorDown(down.source); });
  return {
      [shell](const RouteCall& call) { shell->On(call); },
      [shell](const PredictedReply& reply) { shell->On(reply); },
      [shell](const EnqueueReply& reply) { shell->On(reply); },
      [shell, self](const ScheduleCall& call) {
        shell->Offer(SchedulerShell::ScheduleEvent{call, self->current_sender()});
      },
      [shell](const TokenEvent& event) { shell->Offer(event); },
      [shell](const RequestOutcome& outcome) { shell->Offer(outcome); },
      [shell](const WithdrawCall& call) { shell->Offer(call); },
      [shell](const CandidateCall& call) { shell->On(call); },
      [shell](const JoinCall& call) { shell->On(call); },
      [shell](const LeftCall& call) { shell->On(call); },
      [shell](const PolicyCall& call) { shell->On(call); },
      [shell](const Tick& tick) { shell->On(tick); },
      [shell](StatusQuery) { return shell->Status(); },
      [shell](WatchQuery) { return shell->Watched(); },
  };
}

caf::behavior OfWorkers(caf::event_based_actor* self, const std::shared_ptr<Setup>& setup) { return Scheduler(self, setup); }

}  // namespace

Result<caf::actor> SpawnScheduler(caf::actor_system& system, const HostClock& clock, SchedulerActorOptions options) {
  auto core = SchedulerCore::Make(options.core, options.infos, options.lengths.get());
  if (!core.ok()) return core.error();
  const auto spawn = options.spawn;
  auto setup = std::make_shared<Setup>(Setup{clock, std::move(options), std::move(core).value()});
  if (spawn) return spawn([setup](caf::scheduled_actor* self) { return Scheduler(self, setup); });
  return caf::actor(system.spawn(OfWorkers, setup));
}

}  // namespace foretoken
