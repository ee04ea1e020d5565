// What a decision costs when the SIMULATORs live in other processes: one router node here, the others as processes of their own on
// loopback, each with loaded SIMULATORs (loaded_simulator.h) behind real NODEs. Per decision: PredictBatch and PredictionBatch with every
// node, EnqueueRequest and its reply, Dispatch and RequestOutcome with the winner's, where one sync message follows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "integration/bench/loaded_simulator.h"
#include "runtime/base/result.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

struct ClusterBenchOptions {
  LoadOptions load;
  int32_t nodes = 4;  // beside the router
  int32_t instances_per_node = 2;
  std::vector<int32_t> in_flight = {1, 16};
  std::vector<bool> tls = {false, true};
  int32_t predict_max = 0;  // SchedulerCore::Options
  double seconds = 2;       // per row
  std::string program;      // this program's file: what the other nodes run
};

struct ClusterBenchRow {
  int32_t nodes = 0;
  int32_t candidates = 0;
  bool tls = false;
  int32_t in_flight = 0;
  double p50_us = 0;
  double p99_us = 0;
  double decisions_per_second = 0;
  double frames_per_decision = 0;  // both ways, at the router
  double bytes_per_decision = 0;
  double round_trip_us = 0;  // of a heartbeat, the median over the nodes
  uint64_t decisions = 0;
  uint64_t unanswered = 0;  // candidates whose prediction did not come
};

Result<std::vector<ClusterBenchRow>> RunClusterBench(const StepTimeModel& model, const ClusterBenchOptions& options);

// One of the other processes: node `node` (from 1) of `ports.size()`; serves until standard input ends.
struct ClusterBenchNode {
  LoadOptions load;
  int32_t node = 0;
  int32_t instances_per_node = 2;
  std::vector<uint16_t> ports;  // of all nodes, the router's first
  std::string certificates;     // folder; empty: plain
};
Status ServeClusterBenchNode(const StepTimeModel& model, const ClusterBenchNode& options);

}  // namespace foretoken
