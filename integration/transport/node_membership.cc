// The part of NodeRouter that knows who belongs to the cluster: states of instances, those that join and leave at run time, and what of it the
// nodes tell each other. Whoever connects tells all that it knows (TellRoster), so that a node that has restarted learns what it had.
#include <algorithm>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <charconv>
#include <optional>

#include "integration/transport/node_router.h"

namespace foretoken {
namespace {

constexpr const char* kMemberVerb = "member";      // instance, state: a wish to its node, news from it
constexpr const char* kDrainingVerb = "draining";  // the SCHEDULERs of this node take nothing new
constexpr const char* kJoinVerb = "join";          // a RosterMember with its term; "fresh", "known" or "leaving"
constexpr const char* kGoneVerb = "gone";          // instances that have left for good
constexpr const char* kFollowVerb = "follow";      // request, instance: its client wants every token
constexpr size_t kGonePerNotice = 4096;

std::optional<InstanceState> StateOf(const std::string& name) {
  for (const InstanceState s :
       {InstanceState::kServing, InstanceState::kCordoned, InstanceState::kDraining, InstanceState::kDead})
    if (StateName(s) == name) return s;
  return std::nullopt;
}

template <class N>
bool Read(const std::string& text, N& number) {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  return ec == std::errc() && end == text.data() + text.size();
}

std::string Text(InstanceId id) { return std::to_string(id.value()); }

// "h100-3" -> "h100".
std::string Stem(const std::string& name) {
  const size_t end = name.find_last_not_of("0123456789");
  return end != std::string::npos && end > 0 && name[end] == '-' ? name.substr(0, end) : name;
}

}  // namespace

// ---- States.

void NodeRouter::On(const MemberCall& call) {
  const RosterMember* m = Member(call.instance);
  if (m == nullptr) return;
  const uint32_t i = call.instance.value();
  if (!HasEngine(call.instance)) {
    links_.Send(m->engine, ControlRequest{0, kMemberVerb, {Text(call.instance), StateName(call.state)}});
    return;
  }
  if (leaving_[i]) return;  // nobody brings it back
  leaving_[i] = call.state == InstanceState::kDead;
  states_[i] = leaving_[i] ? InstanceState::kDraining : call.state;
  TellCandidates(call.instance);
  for (uint32_t n = 0; n < options_.links.nodes.size(); ++n)
    if (links_.Connected(NodeId(n))) TellState(NodeId(n), call.instance);
  self_->send(options_.instances[i], AdmitCall{call.state == InstanceState::kServing});
  if (leaving_[i]) self_->send(options_.instances[i], LeaveCall{});
}

// Those that joined here, too: what runs here may end, and nothing new begins.
void NodeRouter::On(DrainCall) {
  draining_ = true;
  for (uint32_t i = 0; i < roster_.size(); ++i)
    if (HasEngine(InstanceId(i))) On(MemberCall{InstanceId(i), InstanceState::kDraining});
  for (uint32_t n = 0; n < options_.links.nodes.size(); ++n)
    if (links_.Connected(NodeId(n))) TellDraining(NodeId(n));
}

void NodeRouter::TellDraining(NodeId peer) { links_.Send(peer, ControlRequest{0, kDrainingVerb, {}}); }

void NodeRouter::TellState(NodeId peer, InstanceId instance) {
  const uint32_t i = instance.value();
  const InstanceState state = leaving_[i] ? InstanceState::kDead : states_[i];
  links_.Send(peer, ControlRequest{0, kMemberVerb, {Text(instance), StateName(state)}});
}

void NodeRouter::TellCandidates(InstanceId instance) {
  const RosterMember* m = Member(instance);
  if (m == nullptr) return;
  const uint32_t i = instance.value();
  const bool reachable = HasEngine(instance) || links_.Connected(m->engine);
  const bool usable = reachable && !version_differs_[i] && states_[i] == InstanceState::kServing;
  for (const caf::actor& s : schedulers_) self_->send(s, CandidateCall{instance, usable});
}

void NodeRouter::On(const FollowCall& call) {
  if (HasEngine(call.instance)) return self_->send(options_.instances[call.instance.value()], call);
  if (const RosterMember* m = Member(call.instance))
    links_.Send(m->engine, ControlRequest{0, kFollowVerb, {std::to_string(call.request.value()), Text(call.instance)}});
}

void NodeRouter::Take(NodeId peer, ControlRequest& m) {
  if (m.verb == kDrainingVerb) return desk_.OnScheduler(peer, false);
  if (m.verb == kMemberVerb) return TakeMember(peer, m);
  if (m.verb == kJoinVerb) return TakeJoin(peer, m);
  if (m.verb == kGoneVerb) return TakeGone(m);
  uint64_t request = 0;
  uint32_t instance = 0;
  if (m.verb == kFollowVerb && m.arguments.size() == 2 && Read(m.arguments[0], request) && Read(m.arguments[1], instance) &&
      HasEngine(InstanceId(instance)))
    return On(FollowCall{RequestId(request), InstanceId(instance)});
  ++counters_.stray;
}

// A wish when the INSTANCE is here, news when it is there; anything else is nonsense.
void NodeRouter::TakeMember(NodeId peer, const ControlRequest& m) {
  uint32_t i = 0;
  const bool shaped = m.arguments.size() == 2 && Read(m.arguments[0], i);
  const std::optional<InstanceState> state = shaped ? StateOf(m.arguments[1]) : std::nullopt;
  if (!state || Member(InstanceId(i)) == nullptr) return void(++counters_.stray);
  if (HasEngine(InstanceId(i))) return On(MemberCall{InstanceId(i), *state});
  if (!Runs(peer, InstanceId(i))) return void(++counters_.stray);
  leaving_[i] = state == InstanceState::kDead;
  states_[i] = leaving_[i] ? InstanceState::kDraining : *state;
  TellCandidates(InstanceId(i));
}

// ---- Joining.

// Empty: what was wanted is taken.
std::string NodeRouter::FreeName(const std::string& wanted, InstanceId kind) const {
  if (!wanted.empty()) return roster_.Named(wanted) == nullptr ? wanted : "";
  const std::string stem = Stem(Member(kind) != nullptr ? Member(kind)->name : options_.names[kind.value()]);
  for (uint32_t n = roster_.size();; ++n) {
    std::string name = stem + "-" + std::to_string(n);
    if (roster_.Named(name) == nullptr) return name;
  }
}

JoinAnswer NodeRouter::On(const AddInstanceCall& call) {
  const auto& nodes = options_.links.nodes;
  if (call.kind.value() >= options_.places.size() || call.simulator.value() >= nodes.size())
    return {"no such kind, or no such node", {}, {}};
  if (!options_.make_instance) return {"this node runs no instances", {}, {}};
  if (draining_) return {"this node is about to end", {}, {}};
  // Whoever has just started knows no numbers that it gave before: a peer does.
  bool alone = nodes.size() > 1;
  for (uint32_t n = 0; n < nodes.size(); ++n) alone = alone && !links_.Connected(NodeId(n));
  if (alone) return {"no other node is connected, so that nobody would know of it: try again when one is", {}, {}};
  const std::string name = FreeName(call.name, call.kind);
  if (name.empty()) {
    const RosterMember* there = roster_.Named(call.name);
    if (there->engine == self_id() && there->kind == call.kind && !leaving_[there->instance.value()])
      return {"", there->instance, there->name};  // said twice
    return {"there is an instance " + call.name + " already, on node " + NameOfNode(there->engine) +
                ": choose another name, or remove it first",
            {},
            {}};
  }
  const auto number = roster_.Fresh(self_id());
  if (!number.ok()) return {number.error().message, {}, {}};
  const RosterMember m{*number, name, call.kind, self_id(), call.simulator, options_.places[call.kind.value()].config_version};
  if (!Learn(m, 1, true)) return {"its engine cannot be made: the log says why", {}, {}};
  return {"", m.instance, m.name};
}

// From now on a member here: its INSTANCE and SIMULATOR begin where they are to be, SCHEDULERs know it, and so do all who are connected.
bool NodeRouter::Learn(const RosterMember& m, uint64_t term, bool fresh) {
  const auto news = roster_.Join(m);
  if (!news.ok()) {
    ++counters_.not_joined;
    Log("an instance cannot join: " + news.error().message);
    return false;
  }
  if (!*news) return true;
  const uint32_t i = m.instance.value();
  if (states_.size() <= i) {
    states_.resize(i + 1, InstanceState::kServing);
    leaving_.resize(i + 1);
    version_differs_.resize(i + 1);
    options_.instances.resize(i + 1);
  }
  view_.Add(m.instance, m.simulator);
  Record(clock_.Now(), JoinRecord{m.instance, m.kind, m.name, fresh});
  version_differs_[i] = m.config_version != options_.places[m.kind.value()].config_version;
  if (version_differs_[i])
    Log("node " + NameOfNode(m.engine) + " has another configuration of the kind of " + m.name + ": it is not used");
  ++counters_.joined;
  Log("instance " + m.name + " (" + Text(m.instance) + ") joins on node " + NameOfNode(m.engine));
  TellSchedulers(m, fresh);
  if (!Begin(m, term)) return false;
  TellCandidates(m.instance);
  if (m.engine != self_id()) return true;
  for (uint32_t n = 0; n < options_.links.nodes.size(); ++n)
    if (links_.Connected(NodeId(n))) {
      TellMember(NodeId(n), m, fresh);
      TellState(NodeId(n), m.instance);  // those who remember it from before our restart may know another
    }
  Decide();
  return true;
}

bool NodeRouter::Begin(const RosterMember& m, uint64_t term) {
  if (m.engine == self_id()) {
    Result<caf::actor> engine = Error{"this node runs no instances"};
    if (options_.make_instance) engine = options_.make_instance(m.instance, m.kind, m.name, caf::actor_cast<caf::actor>(self_));
    if (!engine.ok()) {
      Log("instance " + m.name + ": " + engine.error().message);
      Forget(m.instance);
      return false;
    }
    options_.instances[m.instance.value()] = std::move(engine).value();
    arbiter_.Add({m.instance, m.simulator});
    arbiter_.OnHeard(m.instance, term);
  }
  if (m.simulator != self_id()) return true;
  const Status owned = Own(m.instance, 1);
  if (!owned.ok()) Log("cannot own the simulator of " + m.name + ": " + owned.error().message);
  return true;
}

void NodeRouter::TellSchedulers(const RosterMember& m, bool fresh) {
  const caf::actor& engine = options_.instances[m.instance.value()];
  const caf::actor dispatch = engine ? engine : caf::actor_cast<caf::actor>(self_);
  for (const caf::actor& s : schedulers_) self_->send(s, JoinCall{m.instance, m.kind, m.name, dispatch, fresh});
}

void NodeRouter::TellMember(NodeId peer, const RosterMember& m, bool fresh) {
  const bool leaving = leaving_[m.instance.value()];
  links_.Send(peer, ControlRequest{0,
                                   kJoinVerb,
                                   {Text(m.instance), m.name, Text(m.kind), std::to_string(m.engine.value()),
                                    std::to_string(m.simulator.value()), std::to_string(m.config_version),
                                    std::to_string(view_.Of(m.instance).term),
                                    leaving ? "leaving"
                                    : fresh ? "fresh"
                                            : "known"}});
}

void NodeRouter::TellRoster(NodeId peer) {
  std::vector<std::string> gone;
  const auto tell_gone = [&] {
    if (!gone.empty()) links_.Send(peer, ControlRequest{0, kGoneVerb, std::exchange(gone, {})});
  };
  for (const InstanceId i : roster_.Gone()) {
    gone.push_back(Text(i));
    if (gone.size() == kGonePerNotice) tell_gone();
  }
  tell_gone();
  for (uint32_t i = 0; i < roster_.size(); ++i) {
    const RosterMember* m = Member(InstanceId(i));
    if (m != nullptr && roster_.Joined(m->instance)) TellMember(peer, *m, false);
  }
}

void NodeRouter::TakeJoin(NodeId peer, const ControlRequest& m) {
  const auto& a = m.arguments;
  uint32_t instance = 0, kind = 0, engine = 0, simulator = 0;
  RosterMember member;
  uint64_t term = 0;
  if (a.size() != 8 || !Read(a[0], instance) || !Read(a[2], kind) || !Read(a[3], engine) || !Read(a[4], simulator) ||
      !Read(a[5], member.config_version) || !Read(a[6], term))
    return void(++counters_.stray);
  member = {InstanceId(instance), a[1], InstanceId(kind), NodeId(engine), NodeId(simulator), member.config_version};
  const bool mine = member.engine == self_id();
  // What left while we were away, or we died before its end: nothing of it runs.
  if (mine && a[7] == "leaving" && !HasEngine(member.instance)) {
    Forget(member.instance);
    return TellAll({0, kGoneVerb, {Text(member.instance)}});
  }
  // Of a third node's only that it is there: the rest that node says itself.
  if (!Learn(member, term, a[7] == "fresh" && member.engine == peer)) return;
  if (!mine || Member(member.instance) == nullptr) return;
  arbiter_.OnHeard(member.instance, term);
  Decide();
}

// ---- Leaving.

void NodeRouter::TellAll(const ControlRequest& news) {
  for (uint32_t n = 0; n < options_.links.nodes.size(); ++n)
    if (links_.Connected(NodeId(n))) links_.Send(NodeId(n), news);
}

// The INSTANCE here has nothing under way any more.
void NodeRouter::On(const LeftCall& call) {
  if (!HasEngine(call.instance)) return;
  Forget(call.instance);
  TellAll({0, kGoneVerb, {Text(call.instance)}});
}

void NodeRouter::TakeGone(const ControlRequest& m) {
  for (const std::string& text : m.arguments) {
    uint32_t i = 0;
    if (!Read(text, i) || i >= roster_.limit()) return void(++counters_.stray);
    if (HasEngine(InstanceId(i))) {
      On(MemberCall{InstanceId(i), InstanceState::kDead});  // it left before we restarted: again, then
    } else {
      Forget(InstanceId(i));
    }
  }
}

void NodeRouter::Forget(InstanceId instance) {
  const RosterMember* m = Member(instance);
  const std::string name = m != nullptr ? m->name : "";
  if (!roster_.Leave(instance) || m == nullptr) return;
  ++counters_.left;
  Log("instance " + name + " (" + Text(instance) + ") has left");
  arbiter_.Remove(instance);
  options_.instances[instance.value()] = {};
  if (simulators_.Owns(instance)) {
    Record(clock_.Now(), HostingRecord{instance, simulators_.TermOf(instance), false});
    simulators_.Disown(instance);
  }
  for (const caf::actor& s : schedulers_) self_->send(s, LeftCall{instance});
}

}  // namespace foretoken
