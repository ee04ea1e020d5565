// The control actor of a node: answers what commands ask of a running system (foretoken status, instances) with JSON.
#pragma once

#include <caf/actor.hpp>
#include <caf/fwd.hpp>
#include <memory>
#include <string>
#include <vector>

#include "configs/topology.h"
#include "integration/observe/observation_board.h"
#include "integration/transport/node.h"

namespace foretoken {

struct ControlOptions {
  caf::actor node;
  std::vector<caf::actor> schedulers;
  std::vector<caf::actor> instances;  // by InstanceId; null: elsewhere
  std::vector<std::string> instance_names;
  std::vector<std::string> node_names;
  std::shared_ptr<ObservationBoard> board;  // what `status` also shows; null: nobody observes
};

caf::actor SpawnControl(caf::actor_system& system, ControlOptions options);

}  // namespace foretoken
