// The SIMULATOR actor: a shell over SimulatorCore (runtime/predict). It hosts one, or those of a shard: one message per shard
// and decision then replaces one per instance.
#pragma once

#include <caf/fwd.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "runtime/predict/simulator_core.h"
#include "schema/record.h"

namespace foretoken {

struct SimulatorActorOptions {
  std::vector<std::unique_ptr<SimulatorCore>> cores;  // of consecutive instances, ascending; not empty
  std::vector<caf::actor> resync_to;                  // per core: the INSTANCE, or a LINK in front of it
  // What the cores take and make (kSimulatorRecords), as SchedulerActorOptions::record. May be empty.
  std::function<void(LogRecord)> record = {};
};

// From whoever puts a LINK in front of an INSTANCE, or takes it away: where its ResyncRequests and HeartbeatReplies go from now on.
struct ResyncRouteCall {
  InstanceId instance;
  caf::actor to;
};

caf::actor SpawnSimulator(caf::actor_system& system, const HostClock& clock, SimulatorActorOptions options);

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::ResyncRouteCall)
