#include "integration/transport/node_router.h"

#include <algorithm>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <variant>

namespace foretoken {
namespace {

constexpr Duration kQuestionLife = Duration::Seconds(10);  // no SCHEDULER waits longer for a prediction

std::vector<RosterMember> MembersOf(const NodeOptions& o) {
  std::vector<RosterMember> members;
  for (uint32_t i = 0; i < o.places.size(); ++i) {
    const InstancePlace& p = o.places[i];
    const std::string name = i < o.names.size() ? o.names[i] : std::to_string(i);
    members.push_back({InstanceId(i), name, InstanceId(i), p.engine, p.simulator, p.config_version});
  }
  return members;
}

// Messages may name whoever may yet join.
NodeLinks::Options LinksOf(const NodeOptions& o) {
  NodeLinks::Options links = o.links;
  links.limits.instances = static_cast<uint32_t>(o.places.size() + o.links.nodes.size() * Roster::kNumbersPerNode);
  return links;
}

std::vector<NodeId> HomesOf(const std::vector<InstancePlace>& places) {
  std::vector<NodeId> homes;
  for (const InstancePlace& p : places) homes.push_back(p.simulator);
  return homes;
}

OwnershipArbiter MakeArbiter(const NodeOptions& o, Instant now) {
  std::vector<OwnershipArbiter::Hosted> hosted;
  for (uint32_t i = 0; i < o.places.size(); ++i)
    if (o.places[i].engine == o.links.self) hosted.push_back({InstanceId(i), o.places[i].simulator});
  return OwnershipArbiter({o.links.self, o.links.nodes.size(), o.links.dead_after, o.return_after}, std::move(hosted), now);
}

}  // namespace

NodeRouter::NodeRouter(caf::io::broker* self, const HostClock& clock, NodeOptions options)
    : self_(self),
      clock_(clock),
      options_(std::move(options)),
      links_(self, clock, LinksOf(options_), *this),
      desk_(self, clock, links_, options_.patience),
      roster_(MembersOf(options_), options_.links.nodes.size()),
      view_(HomesOf(options_.places)),
      arbiter_(MakeArbiter(options_, clock.Now())),
      simulators_(options_.places.size(), options_.streams,
                  [this](InstanceId i) { return options_.make_simulator(i, Member(i)->kind); }),
      states_(options_.places.size(), InstanceState::kServing),
      leaving_(options_.places.size()),
      version_differs_(options_.places.size()),
      split_(options_.links.nodes.size()) {}

Status NodeRouter::Start() {
  for (uint32_t i = 0; i < options_.places.size(); ++i) {
    if (options_.places[i].simulator != self_id()) continue;
    const Status owned = Own(InstanceId(i), 1);
    if (!owned.ok()) return owned;
  }
  const auto port = links_.Listen();
  if (!port.ok()) return port.error();
  port_ = *port;
  Arm(clock_.Now());
  return Status();
}

void NodeRouter::Arm(Instant at) {
  if (at >= alarm_) return;
  alarm_ = at;
  // Without a sender: one that is never taken out of our own mailbox must not keep us alive.
  clock_.Deliver(at, SlotClass::kOther, 0, caf::strong_actor_ptr(self_->ctrl()),
                 caf::make_mailbox_element(caf::strong_actor_ptr(), caf::make_message_id(), caf::no_stages, Tick{at}));
}

Instant NodeRouter::NextWork() const {
  Instant next = std::min({links_.Next(), simulators_.NextTimer(), arbiter_.Next(), desk_.Next()});
  if (!resyncs_due_.empty()) next = std::min(next, resyncs_due_.front().first);
  return next;
}

void NodeRouter::On(const Tick& tick) {
  if (tick.at == alarm_) alarm_ = Instant::Max();
  const Instant now = clock_.Now();
  if (links_.Next() <= now) links_.Tick(now);
  SimulatorTimers(now);
  desk_.Tick(now);
  if (arbiter_.Next() <= now) Decide();
  while (!resyncs_due_.empty() && resyncs_due_.front().first <= now) {
    const InstanceId instance = resyncs_due_.front().second;
    resyncs_due_.erase(resyncs_due_.begin());
    if (simulators_.AwaitsSnapshot(instance)) RequestResync(instance, Epoch(0), 0, now);
  }
  Cut(now);
  Arm(std::max(NextWork(), now + Duration::Micros(100)));
}

void NodeRouter::Cut(Instant now) {
  while (!asked_order_.empty() && now - asked_order_.front().first >= kQuestionLife) {
    asked_.erase(asked_order_.front().second);
    asked_order_.pop_front();
  }
  while (!reserved_order_.empty() && now - reserved_order_.front().first >= options_.confirm_timeout) {
    reserved_.erase(reserved_order_.front().second);
    reserved_order_.pop_front();
  }
}

// ---- From roles in this process.

void NodeRouter::On(const AttachCall& call) {
  schedulers_ = call.schedulers;
  desk_.Attach(call.schedulers);
  control_ = call.control;
  for (uint32_t i = 0; i < roster_.size(); ++i) {
    const RosterMember* m = Member(InstanceId(i));
    if (m != nullptr && roster_.Joined(m->instance)) TellSchedulers(*m, false);
    TellCandidates(InstanceId(i));
  }
}

void NodeRouter::On(const PredictCall& call, const caf::actor& scheduler) {
  for (auto& targets : split_) targets.clear();
  for (const InstanceId t : call.targets) split_[OwnerOf(t).value()].push_back(t);
  PredictedReply reply;  // what is known at once
  reply.decision = call.decision;
  Asked asked{scheduler, call.decision, {}, false, {}};
  const uint64_t number = next_number_++;
  Message message{PredictBatch{}};  // made once, sent to each node with its own instances
  PredictBatch& batch = std::get<PredictBatch>(message);
  for (uint32_t n = 0; n < split_.size(); ++n) {
    if (split_[n].empty() || NodeId(n) == self_id()) continue;
    if (batch.instances.empty()) batch = {DecisionId(number), {}, QuestionOf(call.query), call.submitted};
    batch.instances = split_[n];
    if (links_.MayPredict(NodeId(n)) && links_.Send(NodeId(n), message)) {
      ++counters_.predict_frames;
      asked.waiting.emplace_back(NodeId(n), split_[n]);
    } else {
      counters_.unreachable += split_[n].size();
      reply.unreachable.insert(reply.unreachable.end(), split_[n].begin(), split_[n].end());
    }
  }
  const Instant now = clock_.Now();
  if (!asked.waiting.empty()) {
    asked_.emplace(number, std::move(asked));
    asked_order_.emplace_back(now, number);
  }
  PredictionBatch here;
  here.unreachable = std::move(reply.unreachable);
  PredictHere(call.decision, split_[self_id().value()], call.query, now, here);
  if (here.predictions.empty() && here.unreachable.empty()) return;
  reply.predictions = std::move(here.predictions);
  reply.unreachable = std::move(here.unreachable);
  reply.stamps = {call.submitted, now, clock_.Now()};
  self_->send(scheduler, std::move(reply));
}

void NodeRouter::On(const EnqueueCall& call, const caf::actor& scheduler) {
  const Instant now = clock_.Now();
  const InstanceId instance = call.order.instance;
  const NodeId owner = OwnerOf(instance);
  EnqueueRequest order = RequestOf(call.order, now);
  if (SimulatorCore* core = simulators_.Find(instance)) {
    EnqueueReply reply = Reserve(*core, order, now);
    Arm(core->NextTimer());
    if (call.order.guarded) self_->send(scheduler, std::move(reply));
  } else {
    const uint64_t number = next_number_++;
    order.decision = DecisionId(number);
    const bool sent = links_.Send(owner, order);
    if (sent && call.order.guarded) {
      asked_.emplace(number, Asked{scheduler, call.order.decision, instance, true, {{owner, {instance}}}});
      asked_order_.emplace_back(now, number);
    } else if (call.order.guarded) {  // nobody keeps reservations for it
      self_->send(scheduler, EnqueueReply{call.order.decision, instance, true, {}, {}});
    }
  }
  order.guarded = false;
  const RequestId request = order.question.request.id;
  reserved_.insert_or_assign(request, std::move(order));
  reserved_order_.emplace_back(now, request);
}

void NodeRouter::On(const Cancel& cancel) {
  if (cancel.reason == OutcomeReason::kNone) {
    reserved_.erase(cancel.request);
    if (SimulatorCore* core = simulators_.Find(cancel.instance)) return TakeBack(*core, cancel);
    links_.Send(OwnerOf(cancel.instance), cancel);
  } else {
    if (const RosterMember* m = Member(cancel.instance)) links_.Send(m->engine, cancel);
  }
}

void NodeRouter::On(const DispatchCall& call, const caf::actor& scheduler) {
  const Instant now = clock_.Now();
  const RosterMember* member = Member(call.instance);  // null: it has left meanwhile
  const RequestId request = call.request->id;
  if (member == nullptr || !links_.Send(member->engine, Dispatch{call.decision, call.instance, *call.request, now})) {
    self_->send(scheduler, RequestOutcome{request, call.instance, OutcomeKind::kFailed, OutcomeReason::kEngineDown, {}, now});
    return;
  }
  away_.insert_or_assign(request, Away{scheduler, call.client, call.instance});
}

void NodeRouter::On(StreamCall& call) {
  if (!Mirror(call.message)) links_.Send(OwnerOf(call.message.instance), call.message);
}

// False: its SIMULATOR is not here.
bool NodeRouter::Mirror(StreamMessage& message) {
  const InstanceId instance = message.instance;
  if (!simulators_.Owns(instance)) return false;
  const bool awaited = simulators_.AwaitsSnapshot(instance);
  const Instant now = clock_.Now();
  if (options_.record) Record(now, Message(message));
  simulators_.OnStream(message, now, *this);
  if (awaited && !simulators_.AwaitsSnapshot(instance)) Log("mirrors instance " + std::to_string(instance.value()));
  Arm(simulators_.Find(instance)->NextTimer());
  return true;
}

// ---- SIMULATORs here.

Status NodeRouter::Own(InstanceId instance, uint64_t term) {
  const Status owned = simulators_.Own(instance, term);
  if (owned.ok()) Record(clock_.Now(), HostingRecord{instance, term, true});
  return owned;
}

void NodeRouter::PredictHere(DecisionId decision, const std::vector<InstanceId>& targets, const PredictQuery& query,
                             Instant now, PredictionBatch& out) {
  const size_t before = out.predictions.size();
  simulators_.Predict(targets, query, now, out);
  if (!options_.record || targets.empty()) return;
  Record(now, Message(PredictBatch{decision, targets, QuestionOf(query), now}));
  PredictionBatch made;
  made.decision = decision;
  made.predictions.assign(out.predictions.begin() + static_cast<std::ptrdiff_t>(before), out.predictions.end());
  made.terms.assign(out.terms.begin() + static_cast<std::ptrdiff_t>(before), out.terms.end());
  Record(now, Message(std::move(made)));
}

EnqueueReply NodeRouter::Reserve(SimulatorCore& core, const EnqueueRequest& order, Instant now) {
  if (options_.record) Record(now, Message(order));
  EnqueueReply reply = core.OnEnqueue(OrderOf(order), now);
  if (options_.record) Record(now, Message(reply));
  return reply;
}

void NodeRouter::TakeBack(SimulatorCore& core, const Cancel& cancel) {
  const Instant now = clock_.Now();
  Record(now, Message(cancel));
  core.OnCancel(cancel.request, now);
}

void NodeRouter::Ended(SimulatorCore& core, const RequestOutcome& outcome) {
  Record(outcome.at, Message(outcome));
  core.OnEnded(outcome.request, outcome.output_tokens, outcome.at);
}

void NodeRouter::SimulatorTimers(Instant now) {
  if (simulators_.NextTimer() > now) return;
  for (uint32_t i = 0; i < roster_.size() && options_.record; ++i)
    if (SimulatorCore* core = simulators_.Find(InstanceId(i)); core != nullptr && core->NextTimer() <= now)
      Record(now, TimerRecord{InstanceId(i)});
  simulators_.OnTimer(now, *this);
}

void NodeRouter::Log(const std::string& line) const {
  if (options_.links.log) options_.links.log(line);
}

bool NodeRouter::Abandoned(RequestId request, InstanceId instance) const {
  const auto at = abandoned_.find(request);
  return at != abandoned_.end() && std::find(at->second.begin(), at->second.end(), instance) != at->second.end();
}

// An INSTANCE tells of each dispatch's end once, so the first end after the cancellation is the abandoned one's.
bool NodeRouter::EndAbandoned(RequestId request, InstanceId instance) {
  if (!Abandoned(request, instance)) return false;
  const auto at = abandoned_.find(request);
  at->second.erase(std::find(at->second.begin(), at->second.end(), instance));
  if (at->second.empty()) abandoned_.erase(at);
  return true;
}

void NodeRouter::On(const TokenEvent& event) {
  if (Abandoned(event.request, event.instance)) return;
  const auto held = held_.find(event.request);
  if (held != held_.end()) {
    links_.Send(held->second.owner, event);
  } else if (!desk_.On(event)) {
    ++counters_.stray;
  }
}

void NodeRouter::On(const RequestOutcome& outcome) {
  if (options_.outcomes_to_simulators && outcome.kind == OutcomeKind::kFinished) {
    if (SimulatorCore* core = simulators_.Find(outcome.instance)) {
      Ended(*core, outcome);
    } else {
      links_.Send(OwnerOf(outcome.instance), outcome);
    }
  }
  if (EndAbandoned(outcome.request, outcome.instance)) return;
  const auto held = held_.find(outcome.request);
  if (held == held_.end()) return void(desk_.On(outcome));  // of a SCHEDULER here, which has it already
  links_.Send(held->second.owner, outcome);
  held_.erase(held);
}

// ---- Ownership.

void NodeRouter::Decide() {
  for (const Ownership& o : arbiter_.Decide(clock_.Now())) {
    Learn(o);
    const OwnershipNotice notice{o.instance, o.term, NameOfNode(o.owner)};
    for (uint32_t n = 0; n < options_.links.nodes.size(); ++n)
      if (links_.Connected(NodeId(n))) links_.Send(NodeId(n), notice);
  }
  Arm(NextWork());
}

void NodeRouter::Learn(const Ownership& claim) {
  const bool was_mine = simulators_.Owns(claim.instance);
  if (!view_.Learn(claim)) return;
  if (claim.owner == self_id()) {
    const Status owned = Own(claim.instance, claim.term);
    if (!owned.ok())
      return Log("cannot own the simulator of instance " + std::to_string(claim.instance.value()) + ": " +
                 owned.error().message);
    if (was_mine) return;
    Log("owns the simulator of instance " + std::to_string(claim.instance.value()) + " under term " +
        std::to_string(claim.term));
    ++counters_.takeovers;
    resyncs_due_.emplace_back(clock_.Now() + options_.resync_after_takeover, claim.instance);
    Arm(resyncs_due_.front().first);
  } else if (was_mine) {
    simulators_.Disown(claim.instance);
    Record(clock_.Now(), HostingRecord{claim.instance, claim.term, false});
    ++counters_.handed_over;
    Log("no longer owns the simulator of instance " + std::to_string(claim.instance.value()));
  }
  Announce(claim.instance);
}

// What the old owner knew and the engine may not have heard of yet. What the engine has is in its snapshot, which comes after this.
void NodeRouter::Announce(InstanceId instance) {
  for (const auto& [request, order] : reserved_) {
    if (order.instance != instance) continue;
    ++counters_.reannounced;
    if (SimulatorCore* core = simulators_.Find(instance)) {
      Reserve(*core, order, clock_.Now());
    } else {
      links_.Send(OwnerOf(instance), order);
    }
  }
}

void NodeRouter::RequestResync(InstanceId instance, Epoch epoch, uint64_t from_seq, Instant) {
  const ResyncRequest request{instance, SourceId(0), epoch, from_seq, false};
  if (HasEngine(instance)) {
    self_->send(options_.instances[instance.value()], request);
  } else {
    if (const RosterMember* m = Member(instance)) links_.Send(m->engine, request);
  }
}

// ---- Peers.

NodeHello NodeRouter::Hello() {
  NodeHello hello;
  hello.roles = options_.roles;
  for (uint32_t i = 0; i < roster_.size(); ++i)
    if (const RosterMember* m = Member(InstanceId(i)))
      hello.hosted.push_back({m->instance, m->config_version, view_.Of(m->instance).term});
  return hello;
}

void NodeRouter::OnPeerUp(NodeId peer, const NodeHello& hello) {
  for (const NodeHello::Hosted& h : hello.hosted) {
    const uint32_t i = h.instance.value();
    arbiter_.OnHeard(h.instance, h.term);
    if (!Runs(peer, h.instance)) continue;
    version_differs_[i] = h.config_version != Member(h.instance)->config_version;
    if (version_differs_[i])
      Log("node " + hello.node + " has another configuration of instance " + std::to_string(i) + ": it is not used");
  }
  if (std::find(hello.roles.begin(), hello.roles.end(), "scheduler") != hello.roles.end()) desk_.OnScheduler(peer, true);
  if (draining_) TellDraining(peer);
  TellRoster(peer);
  arbiter_.OnPeerUp(peer, clock_.Now());
  for (const Ownership& o : arbiter_.Standing()) links_.Send(peer, OwnershipNotice{o.instance, o.term, NameOfNode(o.owner)});
  Decide();
  for (uint32_t i = 0; i < roster_.size(); ++i) {
    if (Runs(peer, InstanceId(i))) TellCandidates(InstanceId(i));
    if (HasEngine(InstanceId(i))) TellState(peer, InstanceId(i));
  }
}

void NodeRouter::OnPeerDown(NodeId peer) {
  arbiter_.OnPeerDown(peer, clock_.Now());
  for (uint32_t i = 0; i < roster_.size(); ++i)
    if (Runs(peer, InstanceId(i))) TellCandidates(InstanceId(i));
  FailQuestions(peer);
  FailRequests(peer);
  desk_.OnPeerDown(peer);
  Decide();
}

void NodeRouter::FailQuestions(NodeId peer) {
  for (auto at = asked_.begin(); at != asked_.end();) {
    Asked& asked = at->second;
    const auto waiting = std::find_if(asked.waiting.begin(), asked.waiting.end(), [peer](auto& w) { return w.first == peer; });
    if (waiting == asked.waiting.end()) {
      ++at;
      continue;
    }
    if (asked.is_enqueue) {
      self_->send(asked.scheduler, EnqueueReply{asked.decision, asked.enqueued, true, {}, {}});
    } else {
      counters_.unreachable += waiting->second.size();
      self_->send(asked.scheduler, PredictedReply{asked.decision, {}, {}, std::move(waiting->second)});
    }
    asked.waiting.erase(waiting);
    at = asked.waiting.empty() ? asked_.erase(at) : std::next(at);
  }
}

void NodeRouter::FailRequests(NodeId peer) {
  const Instant now = clock_.Now();
  for (auto at = away_.begin(); at != away_.end();) {
    const auto& [request, away] = *at;
    if (!Runs(peer, away.instance)) {
      ++at;
      continue;
    }
    ++counters_.failed_with_node;
    self_->send(away.scheduler,
                RequestOutcome{request, away.instance, OutcomeKind::kFailed, OutcomeReason::kEngineRestarted, {}, now});
    desk_.EndWithdrawn(request);
    at = away_.erase(at);
  }
  for (auto at = held_.begin(); at != held_.end();) {
    const auto& [request, held] = *at;
    if (held.owner != peer) {
      ++at;
      continue;
    }
    ++counters_.cancelled_with_node;
    self_->send(options_.instances[held.instance.value()], Cancel{request, held.instance, OutcomeReason::kClientGone});
    abandoned_[request].push_back(held.instance);
    at = held_.erase(at);
  }
}

void NodeRouter::OnMessage(NodeId peer, Message& message) {
  std::visit([this, peer](auto& m) { Take(peer, m); }, message);
}

void NodeRouter::OnControl(caf::io::connection_handle from, ControlRequest& request) {
  if (control_) return self_->send(control_, ControlCall{from, std::move(request)});
  links_.Reply(from, {request.id, false, "this node takes no commands"});
}

void NodeRouter::Take(NodeId peer, StreamMessage& m) {
  const bool from_engine = Runs(peer, m.instance);
  if (!from_engine || !Mirror(m)) ++counters_.stray;
}

void NodeRouter::Take(NodeId, ResyncRequest& m) {
  if (!HasEngine(m.instance)) return void(++counters_.stray);
  self_->send(options_.instances[m.instance.value()], std::move(m));
}

void NodeRouter::Take(NodeId peer, PredictBatch& m) {
  const Instant now = clock_.Now();
  Message message{PredictionBatch{}};
  PredictionBatch& answer = std::get<PredictionBatch>(message);
  answer.decision = m.decision;
  PredictHere(m.decision, m.instances, QueryOf(m.question), now, answer);
  answer.stamps = {m.submitted, now, clock_.Now()};
  links_.Send(peer, message);
}

void NodeRouter::Take(NodeId peer, PredictionBatch& m) {
  const auto at = asked_.find(m.decision.value());
  if (at == asked_.end() || m.terms.size() != m.predictions.size()) return void(++counters_.stray);
  Asked& asked = at->second;
  const auto waiting = std::find_if(asked.waiting.begin(), asked.waiting.end(), [peer](auto& w) { return w.first == peer; });
  if (waiting == asked.waiting.end()) return void(++counters_.stray);
  PredictedReply reply{asked.decision, {}, m.stamps, std::move(waiting->second)};  // unreachable unless answered
  for (size_t k = 0; k < m.predictions.size(); ++k) {
    Prediction& p = m.predictions[k];
    const auto target = std::find(reply.unreachable.begin(), reply.unreachable.end(), p.instance);
    if (target == reply.unreachable.end() || !view_.Accepts(p.instance, peer, m.terms[k])) continue;
    reply.unreachable.erase(target);
    reply.predictions.push_back(std::move(p));
  }
  counters_.unreachable += reply.unreachable.size();
  self_->send(asked.scheduler, std::move(reply));
  asked.waiting.erase(waiting);
  if (asked.waiting.empty()) asked_.erase(at);
}

void NodeRouter::Take(NodeId peer, EnqueueRequest& m) {
  EnqueueReply reply{m.decision, m.instance, true, {}, {}};
  if (SimulatorCore* core = simulators_.Find(m.instance)) {
    reply = Reserve(*core, m, clock_.Now());
    Arm(core->NextTimer());
  } else {
    ++counters_.stray;  // it has another owner by now; whoever sent this hears of it and announces it there
  }
  if (m.guarded) links_.Send(peer, reply);
}

void NodeRouter::Take(NodeId peer, EnqueueReply& m) {
  const auto at = asked_.find(m.decision.value());
  if (at == asked_.end() || !at->second.is_enqueue || at->second.waiting.front().first != peer) return void(++counters_.stray);
  m.decision = at->second.decision;
  m.instance = at->second.enqueued;
  self_->send(at->second.scheduler, std::move(m));
  asked_.erase(at);
}

void NodeRouter::Take(NodeId peer, Cancel& m) {
  if (m.reason == OutcomeReason::kNone) {
    if (SimulatorCore* core = simulators_.Find(m.instance)) return TakeBack(*core, m);
    return void(++counters_.stray);
  }
  const auto held = held_.find(m.request);
  if (held != held_.end() && held->second.owner == peer) {
    self_->send(options_.instances[held->second.instance.value()], m);
  } else if (!desk_.Take(peer, m)) {
    ++counters_.stray;
  }
}

void NodeRouter::Take(NodeId peer, Dispatch& m) {
  if (!HasEngine(m.instance)) {  // it has left, or is not there yet
    ++counters_.stray;
    links_.Send(peer, RequestOutcome{m.request.id, m.instance, OutcomeKind::kFailed, OutcomeReason::kShed, {}, clock_.Now()});
    return;
  }
  const auto before = held_.find(m.request.id);
  if (before != held_.end() && before->second.owner == peer) return void(++counters_.stray);
  // Its former SCHEDULER is lost to the one that asks and not to us, yet; or what it began there is about to end: elsewhere, please.
  if (before != held_.end() || Abandoned(m.request.id, m.instance)) {
    links_.Send(peer, RequestOutcome{m.request.id, m.instance, OutcomeKind::kFailed, OutcomeReason::kShed, {}, clock_.Now()});
    return;
  }
  held_.emplace(m.request.id, Held{peer, m.instance});
  const caf::actor& instance = options_.instances[m.instance.value()];
  self_->send(instance, DispatchCall{m.decision, m.instance, std::make_shared<const RequestMeta>(std::move(m.request)), {}});
}

void NodeRouter::Take(NodeId peer, TokenEvent& m) {
  const auto away = away_.find(m.request);
  if (away == away_.end() || away->second.instance != m.instance) {
    if (!desk_.Take(peer, m)) ++counters_.stray;
    return;
  }
  if (m.first == 0) {
    reserved_.erase(m.request);
    self_->send(away->second.scheduler, m);
  }
  if (away->second.client) self_->send(away->second.client, m);
}

void NodeRouter::Take(NodeId peer, RequestOutcome& m) {
  const auto away = away_.find(m.request);
  if (away != away_.end() && away->second.instance == m.instance) {
    reserved_.erase(m.request);
    self_->send(away->second.scheduler, m);
    if (away->second.client && m.kind != OutcomeKind::kFailed) self_->send(away->second.client, m);
    if (m.kind == OutcomeKind::kFailed) desk_.EndWithdrawn(m.request);
    away_.erase(away);
  } else if (SimulatorCore* core = simulators_.Find(m.instance); core != nullptr && options_.outcomes_to_simulators) {
    Ended(*core, m);
  } else if (!desk_.Take(peer, m)) {
    ++counters_.stray;
  }
}

void NodeRouter::Take(NodeId peer, OwnershipNotice& m) {
  const auto& nodes = options_.links.nodes;
  const auto owner = std::find_if(nodes.begin(), nodes.end(), [&m](const NodeAddress& n) { return n.name == m.owner; });
  if (!Runs(peer, m.instance) || owner == nodes.end()) return void(++counters_.stray);
  Learn({m.instance, NodeId(static_cast<uint32_t>(owner - nodes.begin())), m.term});
}

std::string StateName(InstanceState state) {
  switch (state) {
    case InstanceState::kServing: return "serving";
    case InstanceState::kWarming: return "warming";
    case InstanceState::kCordoned: return "cordoned";
    case InstanceState::kDraining: return "draining";
    case InstanceState::kAsleep: return "asleep";
    case InstanceState::kDead: return "dead";
  }
  return "unknown";
}

MirrorsReport NodeRouter::Watched() {
  MirrorsReport report;
  const Instant now = clock_.Now();
  for (uint32_t i = 0; i < roster_.size(); ++i)
    if (SimulatorCore* core = simulators_.Find(InstanceId(i))) report.mirrors.push_back(ViewOf(*core, now));
  return report;
}

NodeStatus NodeRouter::Query() {
  NodeStatus s;
  s.name = NameOfNode(self_id());
  s.port = port_;
  s.links = links_.counts();
  s.counters = counters_;
  s.counters.refused_by_term = view_.refused_by_term();
  s.peers = links_.Peers();
  for (uint32_t i = 0; i < roster_.size(); ++i) {
    const InstanceId id(i);
    const RosterMember* m = Member(id);
    if (m == nullptr) continue;
    const Ownership& o = view_.Of(id);
    const bool reachable = HasEngine(id) || links_.Connected(m->engine);
    const bool mirrored =
        o.owner == self_id() ? simulators_.Owns(id) && !simulators_.AwaitsSnapshot(id) : links_.Connected(o.owner);
    s.instances.push_back({id, m->name, m->kind, m->engine, HasEngine(id) ? options_.instances[i] : caf::actor(), o.owner,
                           o.term, reachable, mirrored, states_[i], leaving_[i]});
    if (SimulatorCore* core = simulators_.Find(id)) {
      ++s.owned;
      Add(s.simulators.counters, core->counters());
      Add(s.simulators.sync, core->sync_counters());
      Add(s.simulators.drift, core->drift());
    }
  }
  s.held_for_others = held_.size();
  s.sent_away = away_.size();
  s.placed_elsewhere = desk_.placed();
  s.fronted = desk_.fronted();
  s.schedulers_elsewhere = desk_.schedulers();
  s.counters.resubmitted = desk_.resubmitted();
  return s;
}

}  // namespace foretoken
