// FrontDesk: the part of a NODE that stands between clients (GATEWAY, load) and SCHEDULERs on different nodes.
//   client --ScheduleCall--> NODE ==Schedule==> NODE --ScheduleCall--> SCHEDULER
//   client <--DecisionNote, RejectNote, TokenEvent, RequestOutcome-- NODE <==Decision, TokenEvent, RequestOutcome== NODE
// Guarantees: every request of a client here ends with an outcome or a rejection. When its SCHEDULER's node is lost, drains, or finds no
// instance, another SCHEDULER is asked; what the first one had begun is cancelled by the nodes that ran it. Without any SCHEDULER a request
// waits, for `patience` at most, and is offered again four times a second.
#pragma once

#include <caf/actor.hpp>
#include <caf/io/broker.hpp>
#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "integration/transport/node_links.h"

namespace foretoken {

class FrontDesk {
 public:
  FrontDesk(caf::io::broker* self, const HostClock& clock, NodeLinks& links, Duration patience);

  void Attach(std::vector<caf::actor> schedulers) { schedulers_ = std::move(schedulers); }

  // Clients here.
  void On(const ScheduleCall& call, const caf::actor& client);
  void On(const WithdrawCall& call);
  // SCHEDULERs here, about requests of clients elsewhere; INSTANCEs about what they run of these. False: no such request.
  void On(const DecisionNote& note);
  void On(const RejectNote& note);
  bool On(const TokenEvent& event);
  bool On(const RequestOutcome& outcome);

  // What was withdrawn has ended: whoever has sent it anew may have it. Called by the NODE for those that ended with a lost node. False: it was
  // not withdrawn.
  bool EndWithdrawn(RequestId request);

  // From other nodes. False: not about a request of this desk.
  void Take(NodeId peer, Schedule& m);
  void Take(NodeId peer, Decision& m);
  bool Take(NodeId peer, const TokenEvent& m);
  bool Take(NodeId peer, const RequestOutcome& m);
  bool Take(NodeId peer, const Cancel& m);  // the client has gone

  // The peer hosts a SCHEDULER, or takes nothing new any more.
  void OnScheduler(NodeId peer, bool usable);
  void OnPeerDown(NodeId peer);
  // Ends what has waited for too long. Call when Next() has come.
  void Tick(Instant now);
  Instant Next() const;

  size_t schedulers() const { return usable_.size(); }  // on other nodes, usable now
  size_t placed() const { return placed_.size(); }      // requests of clients here
  size_t fronted() const { return fronted_.size(); }    // requests that SCHEDULERs here have for other nodes
  uint64_t resubmitted() const { return resubmitted_; }

 private:
  static constexpr Duration kOfferAgain = Duration::Millis(250);
  static constexpr Duration kWithdrawalLife = Duration::Seconds(5);  // an end of which nobody tells: its engine restarted
  struct Withdrawn {
    Instant since;
    std::optional<std::pair<NodeId, Schedule>> anew;  // who has sent it since
  };
  struct Placed {
    caf::actor client;
    RequestPtr request;
    Instant submitted;
    Instant since;              // without a place: since it came, or since it lost the one it had
    NodeId node;                // who schedules it
    bool waiting = false;       // nobody does: listed in unplaced_
    bool decided = false;       // it had a place since `since`
    std::vector<NodeId> tried;  // found no instance for it
  };

  void Accept(NodeId peer, Schedule& m);
  void Wait(Placed& p);
  void Place(Placed& p);
  void Replace(Placed& p);
  Placed* Of(NodeId peer, RequestId request);

  caf::io::broker* self_;
  HostClock clock_;
  NodeLinks& links_;
  Duration patience_;
  std::vector<caf::actor> schedulers_;
  std::vector<NodeId> usable_;
  size_t turn_ = 0;
  std::unordered_map<RequestId, Placed> placed_;
  std::deque<std::pair<Instant, RequestId>> unplaced_;  // since when; may have been placed meanwhile
  std::unordered_map<RequestId, NodeId> fronted_;       // whose client it is
  std::unordered_map<RequestId, Withdrawn> withdrawn_;  // from SCHEDULERs here, their client's node was lost; not ended yet
  std::deque<std::pair<Instant, RequestId>> withdrawn_order_;
  uint64_t resubmitted_ = 0;
};

}  // namespace foretoken
