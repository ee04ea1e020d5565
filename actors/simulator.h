// The SIMULATOR actor: a shell over SimulatorCore (runtime/predict). It hosts one, or those of a shard: one message per shard
// and decision then replaces one per instance.
#pragma once

#include <caf/fwd.hpp>
#include <memory>
#include <vector>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "runtime/predict/simulator_core.h"

namespace foretoken {

struct SimulatorActorOptions {
  std::vector<std::unique_ptr<SimulatorCore>> cores;  // of consecutive instances, ascending; not empty
  std::vector<caf::actor> resync_to;                  // per core: the INSTANCE, or a LINK in front of it
};

caf::actor SpawnSimulator(caf::actor_system& system, const HostClock& clock, SimulatorActorOptions options);

}  // namespace foretoken
