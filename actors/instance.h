// The INSTANCE actor over an emulated engine: a shell over InstanceCore (runtime/sync).
#pragma once

#include <caf/fwd.hpp>
#include <functional>
#include <memory>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "runtime/engine/engine_core.h"
#include "runtime/model/request.h"
#include "runtime/sync/instance_core.h"

namespace foretoken {

struct InstanceActorOptions {
  InstanceId instance;
  std::unique_ptr<InstanceCore> core;
  // The request as the engine gets it: what only the emulation may know, its true length, comes from here.
  std::function<EngineRequest(const RequestMeta&)> for_engine;
};

// Does nothing before its ConnectCall.
caf::actor SpawnInstance(caf::actor_system& system, const HostClock& clock, InstanceActorOptions options);

}  // namespace foretoken
