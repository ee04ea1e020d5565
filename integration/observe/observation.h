// Observation: the whole system at one moment, as a value: what the dashboard shows, `status --json` prints and /metrics exports.
//
// How it comes about, and how to use it:
//   * A host (integration/serve/live_run, node_run, the gateway) owns an ObservationBoard and takes an Observation a few times a second,
//     on its own thread or actor: SCHEDULERs and SIMULATORs answer a WatchQuery with values, ObservationBuilder makes one Observation of
//     them, and the board hands it to everybody who watches. However many watch, it is taken once. Nobody watching: once a second.
//   * A watcher (a page, `top`, a scrape) calls board.Touch() and reads board.Latest(), from any thread. It never asks an actor anything.
//   * The one JSON form is JsonOf (observation_json.h). What is not in it is not in any of the three.
// It holds numbers, names and ids; of requests' contents there is nothing anywhere in it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/instance.h"
#include "runtime/observe/decision_seen.h"
#include "runtime/observe/mirror_view.h"
#include "runtime/observe/request_journal.h"
#include "runtime/observe/sliding_sketch.h"
#include "runtime/sched/scheduler_core.h"
#include "runtime/sched/slo_headroom.h"

namespace foretoken {

// What stays the same while a system runs, but for a reload of its policy.
struct SystemFacts {
  std::string host;  // "serve", "node", "gateway"
  std::string name;  // of the node, or of the topology
  std::string policy;
  std::string predictor;
  std::string sync_level;
  Slo slo;
  bool faults_switchable = false;
};

struct InstanceSeen {
  std::string name;
  std::string kind;   // of engine: "h100"; what instances are grouped by
  std::string model;  // the first that it serves; empty: not known
  InstanceState state = InstanceState::kServing;
  bool reachable = true;    // its INSTANCE, as far as is known here
  bool gone = false;        // it has left for good: it is not shown, and its name stays for what it did
  bool mirrored = false;    // `mirror` is there: its SIMULATOR is in this process
  std::string owner;        // the node that owns its SIMULATOR; empty: this process
  uint64_t term = 0;        // of that ownership; 0: there is none
  int32_t outstanding = 0;  // requests that the SCHEDULERs here have there
  MirrorView mirror;
  // Over the last seconds of its steps.
  double steps_per_second = 0;
  double drift_running = 0;  // mean of |believed - reported| running requests, per step
  double drift_waiting = 0;
  double step_bias = 0;  // mean of believed / actual - 1 of a step's duration
  double step_ape = 0;   // mean of its absolute value
  // Faults switched on; all zero: none.
  Duration fault_delay;
  double fault_reorder = 0;
  double fault_drop = 0;
  bool fault_down = false;
};

enum class SyncEventKind : uint8_t {
  kGap,
  kReordered,
  kDuplicate,
  kResync,
  kEpoch,         // the engine was started anew
  kDisagreement,  // steps after which the mirror was off by a running request or more, on their mean
  kLiveness,      // `detail` says what it is now
  kDemotion,      // a simpler predictor answers
  kRescaled,      // a gateway's mirror found the engine's speed to be of another kind
  kState,         // membership; `detail` says what it is now
};
std::string_view SyncEventName(SyncEventKind kind);

struct SyncEvent {
  uint64_t number = 0;
  Instant at;  // when it was noticed
  InstanceId instance;
  SyncEventKind kind = SyncEventKind::kGap;
  uint64_t count = 1;  // of them since the observation before, or within two seconds of the first
  std::string detail;
};

// Means and quantiles of the window; seconds, but for the errors: |predicted / actual - 1|.
struct WindowFigures {
  Duration window;
  double arrivals_per_second = 0;
  double decisions_per_second = 0;
  double finished_per_second = 0;
  double output_tokens_per_second = 0;
  double slo_attainment = 0;  // share of those that ended in the window; 0 when none did
  uint64_t with_slo = 0;
  uint64_t finished = 0, output_tokens = 0;
  Spread ttft, e2e, tpot, decision, ttft_error, e2e_error;
  PredictedSums predicted;
  double ttft_bias = 0, e2e_bias = 0;            // mean of predicted / actual - 1
  double ttft_below_p90 = 0, e2e_below_p90 = 0;  // share of actual values at or below the predicted p90
};

struct Observation {
  uint64_t number = 0;  // 1, 2, ... of this host
  Instant at;           // on the host's clock
  double uptime_s = 0;
  int64_t unix_ms = 0;
  SystemFacts facts;
  RequestTotals totals;
  RequestLatencies latencies;
  WindowFigures window;
  SchedulerCounters scheduler;  // summed
  uint64_t schedulers = 0;
  uint64_t open_rounds = 0;
  uint64_t queued = 0;
  SloHeadroom headroom;
  std::vector<InstanceSeen> instances;  // by InstanceId
  std::vector<DecisionSeen> decisions;  // latest first
  std::vector<SyncEvent> events;        // latest first
  uint64_t incomplete = 0;              // roles that did not answer in time
};

}  // namespace foretoken
