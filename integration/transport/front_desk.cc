#include "integration/transport/front_desk.h"

#include <algorithm>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <utility>

namespace foretoken {

FrontDesk::FrontDesk(caf::io::broker* self, const HostClock& clock, NodeLinks& links, Duration patience)
    : self_(self), clock_(clock), links_(links), patience_(patience) {}

// ---- Clients here.

void FrontDesk::On(const ScheduleCall& call, const caf::actor& client) {
  const auto [at, fresh] =
      placed_.try_emplace(call.request->id, Placed{client, call.request, call.submitted, clock_.Now(), {}, false, false, {}});
  if (!fresh) return self_->send(client, RejectNote{call.request->id, OutcomeReason::kShed});  // the id is in use
  Place(at->second);
}

// In turn, so that SCHEDULERs share the load; each sees what the others reserve.
void FrontDesk::Place(Placed& p) {
  for (size_t k = 0; k < usable_.size(); ++k) {
    const NodeId node = usable_[turn_++ % usable_.size()];
    if (std::find(p.tried.begin(), p.tried.end(), node) != p.tried.end()) continue;
    if (!links_.Send(node, Schedule{*p.request, p.submitted})) continue;
    p.node = node;
    p.waiting = false;
    return;
  }
  Wait(p);
}

void FrontDesk::Wait(Placed& p) {
  p.waiting = true;
  p.tried.clear();
  unplaced_.emplace_back(clock_.Now(), p.request->id);
}

void FrontDesk::Replace(Placed& p) {
  ++resubmitted_;
  if (std::exchange(p.decided, false)) p.since = clock_.Now();  // patience is for those that have no place
  Place(p);
}

void FrontDesk::On(const WithdrawCall& call) {
  const auto at = placed_.find(call.request);
  if (at == placed_.end()) return;
  const Placed& p = at->second;
  if (!p.waiting) {
    links_.Send(p.node, Cancel{call.request, InstanceId(0), OutcomeReason::kClientGone});
    return;  // the outcome comes from there
  }
  self_->send(
      p.client,
      RequestOutcome{call.request, InstanceId(0), OutcomeKind::kCancelled, OutcomeReason::kClientGone, {}, clock_.Now()});
  placed_.erase(at);
}

Instant FrontDesk::Next() const {
  Instant next = unplaced_.empty() ? Instant::Max() : unplaced_.front().first + kOfferAgain;
  if (!withdrawn_order_.empty()) next = std::min(next, withdrawn_order_.front().first + kWithdrawalLife);
  return next;
}

void FrontDesk::Tick(Instant now) {
  while (!withdrawn_order_.empty() && now - withdrawn_order_.front().first >= kWithdrawalLife) {
    const auto [since, request] = withdrawn_order_.front();
    withdrawn_order_.pop_front();
    const auto at = withdrawn_.find(request);
    if (at != withdrawn_.end() && at->second.since == since) EndWithdrawn(request);
  }
  for (size_t due = unplaced_.size(); due > 0 && now - unplaced_.front().first >= kOfferAgain; --due) {
    const auto at = placed_.find(unplaced_.front().second);
    unplaced_.pop_front();
    if (at == placed_.end() || !at->second.waiting) continue;
    if (now - at->second.since < patience_) {
      Place(at->second);
      continue;
    }
    self_->send(at->second.client, RejectNote{at->first, OutcomeReason::kNoCandidate});
    placed_.erase(at);
  }
}

FrontDesk::Placed* FrontDesk::Of(NodeId peer, RequestId request) {
  const auto at = placed_.find(request);
  return at != placed_.end() && !at->second.waiting && at->second.node == peer ? &at->second : nullptr;
}

// A SCHEDULER that reaches no instance is not the cluster's last word: another may.
void FrontDesk::Take(NodeId peer, Decision& m) {
  Placed* p = Of(peer, m.request);
  if (p == nullptr) return;
  if (!m.placement.empty()) {
    p->decided = true;
    DecisionNote note;
    note.decision = std::move(m);
    return self_->send(p->client, std::move(note));
  }
  if (std::exchange(p->decided, false)) p->since = clock_.Now();
  p->tried.push_back(peer);
  const bool another = std::any_of(usable_.begin(), usable_.end(),
                                   [p](NodeId n) { return std::find(p->tried.begin(), p->tried.end(), n) == p->tried.end(); });
  if (m.reason == OutcomeReason::kNoCandidate && another) return Replace(*p);
  if (m.reason == OutcomeReason::kNoCandidate && clock_.Now() - p->since < patience_) return Wait(*p);
  self_->send(p->client, RejectNote{m.request, m.reason});
  placed_.erase(m.request);
}

bool FrontDesk::Take(NodeId peer, const TokenEvent& m) {
  const Placed* p = Of(peer, m.request);
  if (p != nullptr) self_->send(p->client, m);
  return p != nullptr;
}

bool FrontDesk::Take(NodeId peer, const RequestOutcome& m) {
  const Placed* p = Of(peer, m.request);
  if (p == nullptr) return false;
  self_->send(p->client, m);
  placed_.erase(m.request);
  return true;
}

void FrontDesk::OnScheduler(NodeId peer, bool usable) {
  const auto at = std::find(usable_.begin(), usable_.end(), peer);
  if (!usable && at != usable_.end()) usable_.erase(at);
  if (!usable) return;
  if (at == usable_.end()) usable_.push_back(peer);
  auto waiting = std::exchange(unplaced_, {});
  for (const auto& [since, request] : waiting) {
    const auto p = placed_.find(request);
    if (p != placed_.end() && p->second.waiting) Place(p->second);
  }
}

void FrontDesk::OnPeerDown(NodeId peer) {
  OnScheduler(peer, false);
  for (auto& [request, p] : placed_)
    if (!p.waiting && p.node == peer) Replace(p);
  for (auto at = fronted_.begin(); at != fronted_.end();) {
    if (at->second != peer) {
      ++at;
      continue;
    }
    self_->send(schedulers_[at->first.value() % schedulers_.size()], WithdrawCall{at->first});
    withdrawn_.insert_or_assign(at->first, Withdrawn{clock_.Now(), std::nullopt});
    withdrawn_order_.emplace_back(clock_.Now(), at->first);
    at = fronted_.erase(at);
  }
  for (auto& [request, w] : withdrawn_)
    if (w.anew && w.anew->first == peer) w.anew.reset();
}

// ---- SCHEDULERs here, for clients elsewhere.

void FrontDesk::Take(NodeId peer, Schedule& m) {
  const RequestId id = m.request.id;
  const auto refuse = [&](OutcomeReason reason) {
    Decision d;
    d.request = id;
    d.reason = reason;
    links_.Send(peer, d);
  };
  if (schedulers_.empty()) return refuse(OutcomeReason::kNoCandidate);
  if (fronted_.count(id) > 0) return refuse(OutcomeReason::kShed);
  const auto ending = withdrawn_.find(id);
  if (ending == withdrawn_.end()) return Accept(peer, m);
  ending->second.anew.emplace(peer, std::move(m));
}

bool FrontDesk::EndWithdrawn(RequestId request) {
  const auto at = withdrawn_.find(request);
  if (at == withdrawn_.end()) return false;
  auto anew = std::move(at->second.anew);
  withdrawn_.erase(at);
  if (anew) Accept(anew->first, anew->second);
  return true;
}

void FrontDesk::Accept(NodeId peer, Schedule& m) {
  const RequestId id = m.request.id;
  fronted_.emplace(id, peer);
  self_->send(schedulers_[id.value() % schedulers_.size()],
              ScheduleCall{std::make_shared<const RequestMeta>(std::move(m.request)), m.submitted});
}

bool FrontDesk::Take(NodeId peer, const Cancel& m) {
  const auto at = fronted_.find(m.request);
  if (at == fronted_.end() || at->second != peer) return false;
  self_->send(schedulers_[m.request.value() % schedulers_.size()], WithdrawCall{m.request});
  return true;
}

void FrontDesk::On(const DecisionNote& note) {
  const auto at = fronted_.find(note.decision.request);
  if (at != fronted_.end()) links_.Send(at->second, note.decision);
}

void FrontDesk::On(const RejectNote& note) {
  const auto at = fronted_.find(note.request);
  if (at == fronted_.end()) return void(EndWithdrawn(note.request));
  Decision d;
  d.request = note.request;
  d.reason = note.reason;
  links_.Send(at->second, d);
  fronted_.erase(at);
}

bool FrontDesk::On(const TokenEvent& event) {
  const auto at = fronted_.find(event.request);
  if (at == fronted_.end()) return false;
  links_.Send(at->second, event);
  return true;
}

bool FrontDesk::On(const RequestOutcome& outcome) {
  const auto at = fronted_.find(outcome.request);
  if (at == fronted_.end()) return EndWithdrawn(outcome.request);
  links_.Send(at->second, outcome);
  fronted_.erase(at);
  return true;
}

}  // namespace foretoken
