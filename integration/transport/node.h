// The NODE actor: a process's place in the cluster. It is the one broker of the process: it owns the SIMULATORs that the process hosts, and
// stands in for every role that lives elsewhere, so that SCHEDULERs and INSTANCEs send to it as they would to the role itself:
//   SCHEDULER --PredictCall--> NODE: its own SIMULATORs answer at once, the others' nodes get one frame each and answer with one
//   SCHEDULER --EnqueueCall, Cancel--> NODE --> the SIMULATOR's owner;  --DispatchCall, Cancel--> NODE --> the INSTANCE's node
//   INSTANCE --StreamCall--> NODE --> the SIMULATOR, here or at its owner;  --TokenEvent, RequestOutcome--> NODE --> the SCHEDULER's node
// A Cancel without a reason takes a reservation back (SIMULATOR); one with a reason ends the request (INSTANCE).
//
//   client --ScheduleCall, WithdrawCall--> NODE --> a SCHEDULER's node, where the client's has none;  --DecisionNote, RejectNote, TokenEvent,
//   RequestOutcome--> NODE --> the client's node (FrontDesk)
//
// What a lost node means: predictions asked of it are answered as unreachable at once; requests that it ran are reported as failed to their
// SCHEDULER, which decides again; requests that its SCHEDULERs had here are cancelled; SIMULATORs that it owned of INSTANCEs here go on
// here under a higher term; requests of clients here that its SCHEDULERs had are given to another SCHEDULER.
#pragma once

#include <caf/actor.hpp>
#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/behavior.hpp>
#include <caf/fwd.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "integration/transport/node_links.h"
#include "runtime/cluster/hosted_simulators.h"
#include "runtime/cluster/ownership.h"
#include "runtime/cluster/roster.h"
#include "schema/record.h"

namespace foretoken {

// Where the topology puts the parts of an instance.
struct InstancePlace {
  NodeId engine;     // INSTANCE
  NodeId simulator;  // SIMULATOR, as long as that node lives
  uint64_t config_version = 0;
};

struct NodeOptions {
  NodeLinks::Options links;             // limits.instances is the NODE's to set
  std::vector<std::string> roles;       // ours, for the hello
  std::vector<InstancePlace> places;    // by InstanceId
  std::vector<std::string> names = {};  // by InstanceId; empty: "0", "1", ...
  std::vector<caf::actor> instances;    // by InstanceId; null: elsewhere
  // `kind`: the instance of the topology that `instance`, which may have joined at run time, is like.
  std::function<Result<std::unique_ptr<SimulatorCore>>(InstanceId instance, InstanceId kind)> make_simulator;
  // The INSTANCE of one that joins here, its stream and outcomes connected to `node`. Called in the NODE. May be empty: none can join here.
  std::function<Result<caf::actor>(InstanceId instance, InstanceId kind, const std::string& name, const caf::actor& node)>
      make_instance = {};
  // What the SIMULATORs here take and make (kSimulatorRecords), as SchedulerActorOptions::record. May be empty.
  std::function<void(LogRecord)> record;
  bool streams = true;                  // sync level above none: a mirror knows nothing before its stream has begun
  bool outcomes_to_simulators = false;  // the stream does not tell of ends (sync level below full)
  Duration confirm_timeout = Duration::Seconds(5);
  Duration return_after = Duration::Seconds(2);           // OwnershipArbiter::Options
  Duration patience = Duration::Seconds(10);              // of a client's request while no SCHEDULER is reachable
  Duration resync_after_takeover = Duration::Millis(20);  // reservations are announced anew before the snapshot comes
};

// Once, after the NODE: who schedules here. Each is told which instances may be used (CandidateCall).
struct AttachCall {
  std::vector<caf::actor> schedulers;
  caf::actor control;  // answers ControlCalls; may be null
};
// NODE -> control: a command wants something. Answered by a ControlAnswer.
struct ControlCall {
  caf::io::connection_handle from;
  ControlRequest request;
};
struct ControlAnswer {
  caf::io::connection_handle to;
  ControlReply reply;
};
// Membership: an instance joins at this node. Answered by a JoinAnswer.
struct AddInstanceCall {
  std::string name;  // empty: the kind's with a number
  InstanceId kind;   // of the topology
  NodeId simulator;  // where its SIMULATOR is at home
};
struct JoinAnswer {
  std::string refusal;  // empty: it has joined
  InstanceId instance;
  std::string name;
};
// Membership: only a serving instance is chosen for anything new; kDead: it takes nothing new, and leaves for good when what it has has ended.
// The node that runs the INSTANCE keeps its state and tells all; another one passes this on to it.
struct MemberCall {
  InstanceId instance;
  InstanceState state = InstanceState::kServing;
};
// The SCHEDULERs here take nothing new from other nodes' clients; those are told.
struct DrainCall {};
// Answered by a NodeStatus, whatever is going on. A WatchQuery is answered by a MirrorsReport of the SIMULATORs owned here.
struct NodeQuery {};

struct NodeCounters {
  uint64_t predict_frames = 0;       // PredictBatches sent
  uint64_t unreachable = 0;          // predictions answered for nodes that are not there or too slow to read
  uint64_t refused_by_term = 0;      // answers of stale owners
  uint64_t takeovers = 0;            // SIMULATORs that came to us
  uint64_t handed_over = 0;          // SIMULATORs that left us
  uint64_t reannounced = 0;          // reservations told to a new owner
  uint64_t failed_with_node = 0;     // requests reported as failed because their node was lost
  uint64_t cancelled_with_node = 0;  // requests given up because their SCHEDULER's node was lost
  uint64_t resubmitted = 0;  // requests of clients here given to another SCHEDULER: theirs was lost, or reached no instance
  uint64_t joined = 0;       // instances that came at run time, as far as this node has heard
  uint64_t left = 0;         // instances that have left for good
  uint64_t not_joined = 0;   // notices of instances that cannot be: another has the number
  uint64_t stray = 0;        // messages about what is not here, or no longer wanted
};

struct InstanceStatusHere {
  InstanceId instance;
  std::string name;
  InstanceId kind;    // the instance of the topology that it is like
  NodeId node;        // that runs its INSTANCE
  caf::actor engine;  // the INSTANCE, where it runs here
  NodeId owner;
  uint64_t term = 0;
  bool reachable = false;  // its INSTANCE's node
  bool mirrored = false;   // its SIMULATOR's node is reachable, and here: has its snapshot
  InstanceState state = InstanceState::kServing;
  bool leaving = false;  // known at its own node
};

struct NodeStatus {
  std::string name;
  uint16_t port = 0;
  LinkCounts links;
  NodeCounters counters;
  std::vector<PeerStatus> peers;
  std::vector<InstanceStatusHere> instances;  // those that have left are forgotten
  SimulatorStatus simulators;                 // summed over those owned here
  size_t owned = 0;
  size_t held_for_others = 0;       // requests that run here for other nodes' SCHEDULERs
  size_t sent_away = 0;             // requests of ours that run elsewhere
  size_t placed_elsewhere = 0;      // requests of clients here that SCHEDULERs elsewhere have
  size_t fronted = 0;               // requests that SCHEDULERs here have for clients elsewhere
  size_t schedulers_elsewhere = 0;  // nodes whose SCHEDULERs may be asked now
};

// "serving", "cordoned", ...: in status and commands.
std::string StateName(InstanceState state);

// The actor listens before this returns. Error: cannot listen, or no SIMULATOR can be made.
Result<caf::actor> SpawnNode(caf::actor_system& system, const HostClock& clock, NodeOptions options);

// For SchedulerActorOptions::spawn: an actor that runs in the NODE's thread.
std::function<caf::actor(std::function<caf::behavior(caf::scheduled_actor*)>)> BesideNode(caf::actor_system& system);

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::AttachCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::ControlCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::ControlAnswer)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::MemberCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::AddInstanceCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::JoinAnswer)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::DrainCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::NodeQuery)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::NodeStatus)
