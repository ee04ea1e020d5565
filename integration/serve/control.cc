//   NODE --ControlCall--> control --NodeQuery, StatusQuery, MemberCall--> NODE, SCHEDULERs, INSTANCEs
//   NODE <-ControlAnswer- control
#include "integration/serve/control.h"

#include <algorithm>
#include <boost/json.hpp>
#include <caf/all.hpp>
#include <memory>
#include <optional>
#include <utility>

#include "integration/observe/observation_json.h"

namespace foretoken {
namespace {

constexpr std::chrono::seconds kPatience(2);  // with a role that does not answer
constexpr size_t kObservedMost = 512;         // instances at 1 KB each, in an answer that must stay below a frame's 1 MiB

namespace json = boost::json;

json::object Describe(const LinkCounts& c) {
  return {{"frames_in", c.frames_in},
          {"frames_out", c.frames_out},
          {"bytes_in", c.bytes_in},
          {"bytes_out", c.bytes_out},
          {"connects", c.connects},
          {"disconnects", c.disconnects},
          {"silent", c.silent},
          {"malformed", c.malformed},
          {"refused", c.refused},
          {"predicts_shed", c.predicts_shed},
          {"buffers_overflown", c.buffers_overflown},
          {"unsent", c.unsent}};
}

json::object Describe(const NodeCounters& c) {
  return {{"predict_frames", c.predict_frames},
          {"unreachable", c.unreachable},
          {"refused_by_term", c.refused_by_term},
          {"takeovers", c.takeovers},
          {"handed_over", c.handed_over},
          {"reannounced", c.reannounced},
          {"failed_with_node", c.failed_with_node},
          {"cancelled_with_node", c.cancelled_with_node},
          {"resubmitted", c.resubmitted},
          {"joined", c.joined},
          {"left", c.left},
          {"not_joined", c.not_joined},
          {"stray", c.stray}};
}

json::object Describe(const SchedulerCounters& c) {
  return {{"decisions", c.decisions},
          {"repicks", c.repicks},
          {"late_replies", c.late_replies},
          {"expired_rounds", c.expired_rounds},
          {"unanswered", c.unanswered},
          {"by_ledger", c.by_ledger},
          {"retried", c.retried},
          {"rejected_no_candidate", c.rejected_no_candidate},
          {"rejected_retries", c.rejected_retries},
          {"shed", c.shed},
          {"unknown_outcomes", c.unknown_outcomes}};
}

json::object Describe(const SimulatorStatus& s) {
  return {{"predictions", s.counters.predictions},
          {"stale_predictions", s.counters.stale_predictions},
          {"enqueues", s.counters.enqueues},
          {"overtaken", s.counters.overtaken},
          {"foreign", s.counters.foreign},
          {"lost_assignments", s.counters.lost_assignments},
          {"applied", s.sync.applied},
          {"gaps", s.sync.gap},
          {"resyncs", s.sync.resync},
          {"epoch_changes", s.sync.epoch_change}};
}

// Gathers the answers to one question; replies when it is destroyed, which is when the last answer or its time-out has come.
class Gathering {
 public:
  Gathering(caf::event_based_actor* self, caf::actor to, ControlAnswer answer)
      : self_(self), to_(std::move(to)), answer_(std::move(answer)) {}
  ~Gathering() {
    if (answer_.reply.ok) answer_.reply.text = json::serialize(out);
    self_->send(to_, std::move(answer_));
  }
  json::object out;

 private:
  caf::event_based_actor* self_;
  caf::actor to_;
  ControlAnswer answer_;
};

class ControlShell {
 public:
  ControlShell(caf::event_based_actor* self, ControlOptions options) : self_(self), o_(std::move(options)) {}

  void On(const ControlCall& call) {
    const std::string& verb = call.request.verb;
    if (verb == "status") return Status(call);
    if (verb == "add") return Add(call);
    for (const auto& [name, state] :
         {std::pair("cordon", InstanceState::kCordoned), std::pair("drain", InstanceState::kDraining),
          std::pair("uncordon", InstanceState::kServing), std::pair("remove", InstanceState::kDead)})
      if (verb == name) return SetState(call, state);
    Answer(call, false, "unknown command \"" + verb.substr(0, 40) + "\": status, add, remove, cordon, uncordon, drain");
  }

 private:
  void Answer(const ControlCall& call, bool ok, std::string text) {
    self_->send(o_.node, ControlAnswer{call.from, {call.request.id, ok, std::move(text)}});
  }
  // Arguments: the kind, the node of its SIMULATOR (empty: this one), its name (empty: one is made up).
  void Add(const ControlCall& call) {
    const auto& a = call.request.arguments;
    if (a.size() != 3) return Answer(call, false, "add: a kind, a node and a name, of which the latter two may be empty");
    const auto kind = o_.kind_of(a[0]);
    if (!kind.ok()) return Answer(call, false, kind.error().message);
    NodeId simulator = o_.self;
    if (!a[1].empty()) {
      const auto at = std::find(o_.node_names.begin(), o_.node_names.end(), a[1]);
      if (at == o_.node_names.end()) return Answer(call, false, "no node \"" + a[1].substr(0, 80) + "\"");
      simulator = NodeId(static_cast<uint32_t>(at - o_.node_names.begin()));
    }
    self_->request(o_.node, kPatience, AddInstanceCall{a[2], *kind, simulator})
        .then(
            [this, call](const JoinAnswer& j) {
              if (!j.refusal.empty()) return Answer(call, false, j.refusal);
              Answer(call, true,
                     json::serialize(json::object{{"instance", j.name},
                                                  {"id", j.instance.value()},
                                                  {"node", o_.node_names[o_.self.value()]},
                                                  {"state", StateName(InstanceState::kServing)}}));
            },
            [this, call](const caf::error&) { Answer(call, false, "the node does not answer"); });
  }

  // By names or numbers. All of them, or none.
  void SetState(const ControlCall& call, InstanceState state) {
    if (call.request.arguments.empty()) return Answer(call, false, call.request.verb + ": which instance?");
    self_->request(o_.node, kPatience, NodeQuery{})
        .then([this, call, state](const NodeStatus& s) { SetState(call, state, s); },
              [this, call](const caf::error&) { Answer(call, false, "the node does not answer"); });
  }
  void SetState(const ControlCall& call, InstanceState state, const NodeStatus& s) {
    std::vector<InstanceId> chosen;
    json::array were;
    for (const std::string& name : call.request.arguments) {
      const auto named = [&name](const InstanceStatusHere& i) { return i.name == name; };
      auto at = std::find_if(s.instances.begin(), s.instances.end(), named);
      if (at == s.instances.end())
        at = std::find_if(s.instances.begin(), s.instances.end(),
                          [&name](const InstanceStatusHere& i) { return std::to_string(i.instance.value()) == name; });
      if (at == s.instances.end()) return Answer(call, false, "no instance \"" + name.substr(0, 80) + "\", or it has left");
      if (!at->reachable)
        return Answer(call, false,
                      name + ": its node " + o_.node_names[at->node.value()] + " is away: try again when it is back");
      if (at->leaving && state != InstanceState::kDead)
        return Answer(call, false, name + " is leaving: add another one, `instances add --kind ...`");
      chosen.push_back(at->instance);
      were.push_back(json::string(at->leaving ? "leaving" : StateName(at->state)));
    }
    for (const InstanceId i : chosen) self_->send(o_.node, MemberCall{i, state});
    const std::string now = state == InstanceState::kDead ? "leaving" : StateName(state);
    Answer(call, true,
           json::serialize(json::object{
               {"instances", json::value_from(call.request.arguments)}, {"state", now}, {"were", std::move(were)}}));
  }

  template <class S>
  void Ask(const caf::actor& whom, std::shared_ptr<Gathering> into, std::function<void(json::object&, const S&)> use) {
    self_->request(whom, kPatience, StatusQuery{})
        .then([into, use](const S& s) { use(into->out, s); }, [into](const caf::error&) { into->out["incomplete"] = true; });
  }

  void Status(const ControlCall& call) {
    auto into = std::make_shared<Gathering>(self_, o_.node, ControlAnswer{call.from, {call.request.id, true, ""}});
    if (o_.board) {
      o_.board->Touch();
      if (const auto seen = o_.board->Latest()) {
        json::object observed = JsonOf(*seen);
        if (seen->instances.size() > kObservedMost)
          observed.erase("instances");  // a frame has a limit; the dashboard shows all
        into->out["observed"] = std::move(observed);
      }
    }
    self_->request(o_.node, kPatience, NodeQuery{})
        .then(
            [this, into](const NodeStatus& s) {
              DescribeNode(s, into->out);
              for (const InstanceStatusHere& i : s.instances)
                if (i.engine) AskEngine(i, into);
            },
            [into](const caf::error&) { into->out["incomplete"] = true; });
    for (const caf::actor& a : o_.schedulers)
      Ask<SchedulerStatus>(a, into, [](json::object& out, const SchedulerStatus& s) {
        json::object d = Describe(s.counters);
        d["open_rounds"] = s.open_rounds;
        d["queued"] = s.queued;
        d["assigned"] = s.assigned;
        auto& list = out["schedulers"];
        if (!list.is_array()) list = json::array();
        list.as_array().push_back(std::move(d));
      });
  }
  void AskEngine(const InstanceStatusHere& i, const std::shared_ptr<Gathering>& into) {
    Ask<InstanceStatus>(i.engine, into, [name = i.name](json::object& out, const InstanceStatus& s) {
      auto& engines = out["engines"];
      if (!engines.is_object()) engines = json::object();
      engines.as_object()[name] =
          json::object{{"steps", s.counters.steps}, {"preemptions", s.counters.preemptions}, {"under_way", s.held}};
    });
  }

  void DescribeNode(const NodeStatus& s, json::object& out) const {
    out["node"] = s.name;
    out["port"] = s.port;
    json::array peers;
    for (const PeerStatus& p : s.peers) {
      json::object d{{"node", p.name}, {"connected", p.connected}, {"waiting_bytes", p.waiting_bytes}};
      if (p.round_trip) d["round_trip_us"] = static_cast<double>(p.round_trip->nanos()) / 1e3;
      peers.push_back(std::move(d));
    }
    out["peers"] = std::move(peers);
    json::array instances;
    for (const InstanceStatusHere& i : s.instances)
      instances.push_back(json::object{{"instance", i.name},
                                       {"id", i.instance.value()},
                                       {"node", o_.node_names[i.node.value()]},
                                       {"simulator_on", o_.node_names[i.owner.value()]},
                                       {"term", i.term},
                                       {"reachable", i.reachable},
                                       {"mirrored", i.mirrored},
                                       {"state", i.leaving ? "leaving" : StateName(i.state)}});
    out["instances"] = std::move(instances);
    out["simulators_owned"] = s.owned;
    out["simulators"] = Describe(s.simulators);
    out["held_for_others"] = s.held_for_others;
    out["sent_away"] = s.sent_away;
    out["placed_elsewhere"] = s.placed_elsewhere;
    out["fronted"] = s.fronted;
    out["links"] = Describe(s.links);
    out["counters"] = Describe(s.counters);
  }

  caf::event_based_actor* self_;
  ControlOptions o_;
};

struct ControlState {
  std::unique_ptr<ControlShell> shell;
  static inline const char* name = "control";
};

caf::behavior Control(caf::stateful_actor<ControlState>* self, const std::shared_ptr<ControlOptions>& options) {
  self->state.shell = std::make_unique<ControlShell>(self, std::move(*options));
  ControlShell* shell = self->state.shell.get();
  return {[shell](const ControlCall& call) { shell->On(call); }};
}

}  // namespace

caf::actor SpawnControl(caf::actor_system& system, ControlOptions options) {
  return system.spawn(Control, std::make_shared<ControlOptions>(std::move(options)));
}

}  // namespace foretoken
