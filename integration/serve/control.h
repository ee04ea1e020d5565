// The control actor of a node: answers what commands ask of a running system (foretoken status, instances) with JSON.
#pragma once

#include <caf/actor.hpp>
#include <caf/fwd.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "configs/topology.h"
#include "integration/observe/observation_board.h"
#include "integration/transport/node.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"

namespace foretoken {

struct ControlOptions {
  caf::actor node;
  std::vector<caf::actor> schedulers;
  // The instance of the topology that one of this kind is like. Error: which kinds there are.
  std::function<Result<InstanceId>(const std::string& kind)> kind_of;
  std::vector<std::string> node_names;
  NodeId self;                              // which of them this is
  std::shared_ptr<ObservationBoard> board;  // what `status` also shows; null: nobody observes
};

caf::actor SpawnControl(caf::actor_system& system, ControlOptions options);

}  // namespace foretoken
