// Cluster: all the actors of one process - SCHEDULERs, SIMULATOR hosts, INSTANCEs, and LINKs where the fault plan asks for them - from
// the same RunOptions as the plain virtual host takes, wired together. It owns nothing but handles; Stop() ends them all.
#pragma once

#include <caf/actor.hpp>
#include <caf/fwd.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "actors/host_clock.h"
#include "runtime/base/result.h"
#include "runtime/engine/engine_core.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/observe/request_journal.h"
#include "runtime/sched/scheduler_core.h"
#include "schema/record.h"

namespace foretoken {

struct ClusterOptions {
  size_t shard_size = 1;          // SIMULATORs per actor
  size_t open_rounds_max = 1024;  // per SCHEDULER
  bool heartbeats = false;        // also without faults: live, silence means something
  bool switchable_links = false;  // LINKs also without a fault plan, so that faults can be switched on (FaultCall)
  std::optional<RequestJournal::Options> journal;  // of each SCHEDULER; its number is set
  std::function<EngineRequest(InstanceId, const RequestMeta&)> for_engine;
  std::function<void(const DecisionRecord&)> on_decision;  // called in SCHEDULER actors; may be empty
  std::function<std::function<void(LogRecord)>(uint32_t scheduler)>
      recorder;                                     // SchedulerActorOptions::record of each; may be empty
  std::function<void(LogRecord)> simulator_record;  // SimulatorActorOptions::record; may be empty
  // For tests that check invariants on one thread: each core, once, before its actor owns it; valid as long as the actor. May be empty.
  std::function<void(const InstanceCore&)> on_instance;
  std::function<void(const SimulatorCore&)> on_simulator;
};

struct Cluster {
  std::vector<caf::actor> schedulers;
  std::vector<caf::actor> simulators;     // hosts; empty when nothing reads predictions or streams
  std::vector<caf::actor> instances;      // by InstanceId
  std::vector<caf::actor> links;          // instance -> simulator at 2k, simulator -> instance at 2k + 1; empty without
  size_t shard_size = 1;                  // SIMULATORs per host
  std::vector<caf::actor> control_links;  // SCHEDULER -> SIMULATOR host and back, where the plan has faults for them

  // Ends every actor. Live: await their end with the actor system's destructor or await_all_actors_done().
  void Stop() const;
};

// The cores of instance k of a run, for hosts that wire actors in another way. `heartbeats`: silence means something.
// `as`: the number of one that is like the run's k-th instance and not that; its engine draws noise of its own.
Result<std::unique_ptr<InstanceCore>> MakeInstanceCore(const RunOptions& run, uint32_t k, bool heartbeats, Epoch first_epoch,
                                                       std::optional<InstanceId> as = std::nullopt);
Result<std::unique_ptr<SimulatorCore>> MakeSimulatorCore(const RunOptions& run, uint32_t k, bool heartbeats,
                                                         std::optional<InstanceId> as = std::nullopt);

// Error: what in the options cannot be run.
// Other faults from now on, live: links are put in where there were none, and those that are there take the new faults. Times in the plan
// count from now; its restarts are the caller's to make. Error: what takes a restart of the process; nothing changes then.
Status ReplaceFaults(caf::actor_system& system, const HostClock& clock, const RunOptions& run, const FaultPlan& plan,
                     Cluster& cluster);

Result<Cluster> SpawnCluster(caf::actor_system& system, const HostClock& clock, const RunOptions& run,
                             const ClusterOptions& options);

}  // namespace foretoken
