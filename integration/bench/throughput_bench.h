// Does a predictor keep up? Decisions arrive by themselves (open loop, at so many a second per instance, alone or in bursts), each
// asks every candidate and reserves at the best, while every instance's steps come at 50 a second. What a decision takes is measured
// as processor time of one core; when it starts follows from that and from the arrivals: one server, in order of arrival. So waiting
// is told from computing, and a run takes no longer than its decisions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "integration/bench/loaded_simulator.h"
#include "runtime/base/result.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

struct ThroughputOptions {
  LoadOptions load;
  std::vector<int32_t> candidates = {1, 4, 16, 64, 256};
  std::vector<int32_t> bursts = {1, 16};  // decisions that arrive at once
  double per_instance = 2;                // decisions a second and instance
  int32_t decisions = 4000;               // per row, at most
  double seconds = 3;                     // of computing per row, at most
};

struct ThroughputRow {
  std::string predictor;
  bool reuse = false;
  int32_t candidates = 0;
  int32_t burst = 1;
  double arrivals_per_second = 0;
  uint64_t decisions = 0;
  double predictions_per_second = 0;  // that one core can make
  double utilization = 0;             // arrivals * time per decision: beyond 1 it does not keep up, and waiting only grows
  // Microseconds: submit -> start -> end.
  double latency_p50 = 0, latency_p95 = 0, latency_p99 = 0, latency_p999 = 0;
  double compute_p50 = 0, compute_p95 = 0, compute_p99 = 0, compute_p999 = 0;
  double queue_p50 = 0, queue_p95 = 0, queue_p99 = 0, queue_p999 = 0;
};

// A row for every predictor (pattern and timeline with and without reuse), number of candidates and burst.
Result<std::vector<ThroughputRow>> RunThroughputBench(const StepTimeModel& model, const ThroughputOptions& options);

}  // namespace foretoken
