// NodeRouter: what a NODE does with each message (node.h): which SIMULATORs are here, where the others are, what is under way with whom. A
// class of its own so that the actor is only its handlers; private to the package.
#pragma once

#include <caf/io/broker.hpp>
#include <deque>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "integration/transport/front_desk.h"
#include "integration/transport/node.h"

namespace foretoken {

class NodeRouter final : private NodeLinks::Events, private SimulatorEffects {
 public:
  NodeRouter(caf::io::broker* self, const HostClock& clock, NodeOptions options);

  // Error: as SpawnNode.
  Status Start();

  // From roles in this process.
  void On(const AttachCall& call);
  void On(const PredictCall& call, const caf::actor& scheduler);
  void On(const EnqueueCall& call, const caf::actor& scheduler);
  void On(const Cancel& cancel);
  void On(const DispatchCall& call, const caf::actor& scheduler);
  void On(StreamCall& call);
  void On(const TokenEvent& event);
  void On(const RequestOutcome& outcome);
  void On(const ScheduleCall& call, const caf::actor& client) { desk_.On(call, client); }
  void On(const WithdrawCall& call) { desk_.On(call); }
  void On(const DecisionNote& note) { desk_.On(note); }
  void On(const RejectNote& note) { desk_.On(note); }
  void On(DrainCall);
  void On(const ControlAnswer& answer) { links_.Reply(answer.to, answer.reply); }
  void On(const MemberCall& call);
  JoinAnswer On(const AddInstanceCall& call);
  void On(const LeftCall& call);
  void On(const FollowCall& call);
  void On(const Tick& tick);
  NodeStatus Query();
  MirrorsReport Watched();

  NodeLinks& links() { return links_; }

 private:
  struct Asked {  // a question of a SCHEDULER here; by our own number, which is what travels
    caf::actor scheduler;
    DecisionId decision;
    InstanceId enqueued;  // of an EnqueueRequest
    bool is_enqueue = false;
    // Whom we wait for, and for which targets; erased when it has answered.
    std::vector<std::pair<NodeId, std::vector<InstanceId>>> waiting;
  };
  struct Away {  // a request of ours that runs elsewhere
    caf::actor scheduler;
    caf::actor client;
    InstanceId instance;
  };
  struct Held {  // a request that runs here for another node's SCHEDULER
    NodeId owner;
    InstanceId instance;
  };

  // NodeLinks::Events
  NodeHello Hello() override;
  void OnPeerUp(NodeId peer, const NodeHello& hello) override;
  void OnPeerDown(NodeId peer) override;
  void OnMessage(NodeId peer, Message& message) override;
  void OnControl(caf::io::connection_handle from, ControlRequest& request) override;
  // SimulatorEffects
  void RequestResync(InstanceId instance, Epoch epoch, uint64_t from_seq, Instant at) override;

  // From other nodes.
  void Take(NodeId peer, StreamMessage& m);
  void Take(NodeId peer, ResyncRequest& m);
  void Take(NodeId peer, Schedule& m) { desk_.Take(peer, m); }
  void Take(NodeId peer, Decision& m) { desk_.Take(peer, m); }
  void Take(NodeId peer, PredictBatch& m);
  void Take(NodeId peer, PredictionBatch& m);
  void Take(NodeId peer, EnqueueRequest& m);
  void Take(NodeId peer, EnqueueReply& m);
  void Take(NodeId peer, Cancel& m);
  void Take(NodeId peer, Dispatch& m);
  void Take(NodeId peer, TokenEvent& m);
  void Take(NodeId peer, RequestOutcome& m);
  void Take(NodeId peer, OwnershipNotice& m);
  void Take(NodeId peer, ControlRequest& m);
  template <class M>
  void Take(NodeId, M&) {  // not said between nodes
    ++counters_.stray;
  }

  bool Abandoned(RequestId request, InstanceId instance) const;
  bool EndAbandoned(RequestId request, InstanceId instance);
  const RosterMember* Member(InstanceId instance) const { return roster_.Find(instance); }
  bool HasEngine(InstanceId instance) const {
    return instance.value() < options_.instances.size() && options_.instances[instance.value()] != nullptr;
  }
  bool Runs(NodeId node, InstanceId instance) const {
    const RosterMember* m = Member(instance);
    return m != nullptr && m->engine == node;
  }
  NodeId self_id() const { return options_.links.self; }
  NodeId OwnerOf(InstanceId instance) const { return view_.Of(instance).owner; }
  const std::string& NameOfNode(NodeId node) const { return options_.links.nodes[node.value()].name; }

  bool Mirror(StreamMessage& message);
  // Calls of SIMULATORs here, recorded where that is wanted.
  Status Own(InstanceId instance, uint64_t term);
  void PredictHere(DecisionId decision, const std::vector<InstanceId>& targets, const PredictQuery& query, Instant now,
                   PredictionBatch& out);
  EnqueueReply Reserve(SimulatorCore& core, const EnqueueRequest& order, Instant now);
  void TakeBack(SimulatorCore& core, const Cancel& cancel);
  void Ended(SimulatorCore& core, const RequestOutcome& outcome);
  void SimulatorTimers(Instant now);
  template <class Body>
  void Record(Instant now, Body body) const {
    if (options_.record) options_.record({now, kSimulatorRecords, std::move(body)});
  }
  void Log(const std::string& line) const;
  void Decide();  // ownership of the SIMULATORs of the INSTANCEs here
  void Learn(const Ownership& claim);
  void Announce(InstanceId instance);
  // Membership (node_membership.cc).
  void TakeMember(NodeId peer, const ControlRequest& m);
  void TakeJoin(NodeId peer, const ControlRequest& m);
  void TakeGone(const ControlRequest& m);
  // False: it cannot be.
  bool Learn(const RosterMember& member, uint64_t term, bool fresh);
  bool Begin(const RosterMember& member, uint64_t term);
  void Forget(InstanceId instance);
  void TellSchedulers(const RosterMember& member, bool fresh);
  void TellMember(NodeId peer, const RosterMember& member, bool fresh);
  void TellAll(const ControlRequest& news);
  void TellRoster(NodeId peer);
  std::string FreeName(const std::string& wanted, InstanceId kind) const;
  void TellCandidates(InstanceId instance);
  void TellState(NodeId peer, InstanceId instance);
  void TellDraining(NodeId peer);
  void FailQuestions(NodeId peer);
  void FailRequests(NodeId peer);
  void Cut(Instant now);  // what is too old to matter
  void Arm(Instant at);
  Instant NextWork() const;

  caf::io::broker* self_;
  HostClock clock_;
  NodeOptions options_;
  NodeLinks links_;
  FrontDesk desk_;
  Roster roster_;
  OwnershipView view_;
  OwnershipArbiter arbiter_;
  HostedSimulators simulators_;
  std::vector<caf::actor> schedulers_;
  caf::actor control_;
  bool draining_ = false;
  uint16_t port_ = 0;
  std::vector<InstanceState> states_;  // by instance, as membership says
  std::vector<bool> leaving_;          // by instance, of those that run here
  std::vector<bool> version_differs_;  // by instance: its node has it configured otherwise
  std::vector<std::pair<Instant, InstanceId>> resyncs_due_;
  uint64_t next_number_ = 1;
  std::unordered_map<uint64_t, Asked> asked_;
  std::deque<std::pair<Instant, uint64_t>> asked_order_;
  std::unordered_map<RequestId, Away> away_;
  std::unordered_map<RequestId, Held> held_;
  // Cancelled here because their SCHEDULER's node was lost, and not ended yet: where. Another SCHEDULER may send the same request meanwhile.
  std::unordered_map<RequestId, std::vector<InstanceId>> abandoned_;
  std::unordered_map<RequestId, EnqueueRequest> reserved_;  // lately; told anew to whoever comes to own the SIMULATOR
  std::deque<std::pair<Instant, RequestId>> reserved_order_;
  std::vector<std::vector<InstanceId>> split_;  // scratch: targets by node
  Instant alarm_ = Instant::Max();
  NodeCounters counters_;
};

}  // namespace foretoken
