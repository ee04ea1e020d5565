// The SCHEDULER actor: a shell over SchedulerCore (runtime/sched).
#pragma once

#include <caf/fwd.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/observe/request_journal.h"
#include "runtime/sched/scheduler_core.h"
#include "runtime/workload/length_estimator.h"
#include "schema/record.h"

namespace foretoken {

// An actor that hosts the SIMULATORs of instances first .. first + count - 1.
struct SimulatorHost {
  caf::actor actor;
  InstanceId first;
  uint32_t count = 1;
};

struct SchedulerActorOptions {
  SchedulerCore::Options core;
  std::vector<SchedulerCore::InstanceInfo> infos;
  std::shared_ptr<LengthEstimator> lengths;
  std::vector<SimulatorHost> simulators;  // ascending; empty: none (a policy that needs no predictions)
  std::vector<caf::actor> instances;      // by InstanceId
  // Rounds open at once; what comes beyond waits its turn, in order. 1: strictly one after another, as the plain virtual host.
  size_t open_rounds_max = 1024;
  size_t index = 0;  // among the SCHEDULERs of its process: orders deadlines of one instant
  std::function<void(const DecisionRecord&)> on_decision;  // called in the actor; may be empty
  // Everything that the core takes, with the time that it is told, and what it decides, in order (the number of the SCHEDULER is left
  // to the receiver). Called in the actor; may be empty.
  std::function<void(LogRecord)> record;
  std::function<void(const PredictedReply&)> on_reply;  // likewise, before the reply is used
  // Spawns an actor of this behaviour. Empty: one that workers run. Beside a NODE it may be one that the network's thread runs, which
  // spares a decision the wake-ups of a worker, one per answer.
  std::function<caf::actor(std::function<caf::behavior(caf::scheduled_actor*)>)> spawn;
  std::optional<RequestJournal::Options> journal;  // for whoever watches (WatchQuery); absent: none is kept
};

// Error: as SchedulerCore::Make.
Result<caf::actor> SpawnScheduler(caf::actor_system& system, const HostClock& clock, SchedulerActorOptions options);

}  // namespace foretoken
