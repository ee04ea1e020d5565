// The client actor: stands where a GATEWAY would. It submits the requests of a trace to the SCHEDULERs and keeps each one's record.
// Paced by itself (live) or told which request is due (SubmitCall; virtual time).
#pragma once

#include <caf/actor.hpp>
#include <caf/fwd.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "runtime/base/units.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/workload/trace.h"

namespace foretoken {

// Filled by the client actor; read it when `done` was called, or when the actor has ended.
struct ClientLog {
  std::vector<RunRequest> requests;        // in trace order
  std::vector<Duration> decision_latency;  // submission to decision, first decisions only, in order of decision
  size_t submitted = 0;
  size_t ended = 0;
  uint64_t duplicated = 0;  // outcomes of requests that had ended already
};

struct ClientActorOptions {
  std::shared_ptr<const Trace> trace;  // ids are consecutive; arrivals on the clock's time
  std::shared_ptr<ClientLog> log;
  bool paced = false;          // submit each request at its arrival
  std::function<void()> done;  // called in the actor when all have ended; may be empty
};

// Sent to the client: where to. The request with id r goes to scheduler r mod n.
struct StartCall {
  std::vector<caf::actor> schedulers;
};
// Submit request `index` of the trace now.
struct SubmitCall {
  size_t index = 0;
};
// Submit nothing more; `done` is called when what is under way has ended.
struct StopSubmittingCall {};

caf::actor SpawnClient(caf::actor_system& system, const HostClock& clock, ClientActorOptions options);

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::StartCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::SubmitCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::StopSubmittingCall)
