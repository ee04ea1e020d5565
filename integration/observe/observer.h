// The OBSERVER actor: takes an Observation of the actors of one process, a few times a second while somebody watches and once a second
// while nobody does, and puts it on the board. Nobody waits for it.
#pragma once

#include <caf/actor.hpp>
#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/fwd.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/host_clock.h"
#include "integration/observe/fault_control.h"
#include "integration/observe/observation.h"
#include "integration/observe/observation_board.h"

namespace foretoken {

// One that is there, or joins at run time, behind the others. Message to the OBSERVER.
struct ObserveInstanceCall {
  std::string name;
  std::string kind;
  std::string model;                             // the first that it serves
  std::optional<FleetLoad::Engine> engine = {};  // as it is configured
};

struct ObserverOptions {
  SystemFacts facts;
  std::vector<ObserveInstanceCall> instances;  // by InstanceId
  std::vector<caf::actor> schedulers;          // each keeps a journal
  std::vector<caf::actor> simulators;          // hosts, or the NODE
  caf::actor node;                             // may be null: who owns what, and what membership says
  std::vector<std::string> node_names;         // by NodeId
  std::shared_ptr<FaultControl> faults;        // may be null
  std::shared_ptr<ObservationBoard> board;     // never null
};

// It also takes a PolicyCall: what the policy is called from now on.
caf::actor SpawnObserver(caf::actor_system& system, const HostClock& clock, ObserverOptions options);

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::ObserveInstanceCall)
