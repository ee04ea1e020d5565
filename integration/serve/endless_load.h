// The ENDLESS LOAD actor: submits the requests of a trace again and again, in real time, until it is told to stop: a later round's have
// new ids and later arrivals. It keeps nothing of what came of them but a count, so it can run for days.
#pragma once

#include <caf/actor.hpp>
#include <caf/fwd.hpp>
#include <functional>
#include <memory>

#include "actors/host_clock.h"
#include "runtime/base/ids.h"
#include "runtime/workload/trace.h"

namespace foretoken {

struct EndlessLoadOptions {
  std::shared_ptr<const Trace> trace;  // not empty
  std::function<void()> done;          // called in the actor: told to stop, and all that was submitted has ended
};

// The trace's request that `id` stands for; ids count on from those of the trace.
inline const TraceRequest& RoundOf(const Trace& trace, RequestId id) {
  return trace.requests[(id.value() - trace.requests.front().meta.id.value()) % trace.requests.size()];
}

// Begins with a StartCall and ends with a StopSubmittingCall (actors/client.h).
caf::actor SpawnEndlessLoad(caf::actor_system& system, const HostClock& clock, EndlessLoadOptions options);

}  // namespace foretoken
