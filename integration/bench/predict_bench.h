// What a prediction costs: every predictor over instances that are full as stated, each prediction for a new request and followed
// by its Enqueue, while an emulated engine of the same state delivers its steps. Measures time per Predict (median and 99th
// percentile), memory per instance, and how often the timeline's kept state served.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

struct PredictBenchOptions {
  std::vector<int32_t> running = {8, 32, 128, 256};
  std::vector<int32_t> waiting = {0, 16, 64, 256};
  uint64_t seed = 1;
  int32_t predictions = 2400;  // per row; the slow reference takes fewer
  // Two predictions per step: 100 predictions/s against the 50 steps/s of an 8B model.
  int32_t predictions_per_step = 2;
  std::vector<std::string> predictors;  // rows by name; empty: all
  std::optional<bool> reuse;            // rows with or without it; absent: both
  double disagreeing_steps = 0.1;       // share of steps in which a running request ends that nobody expected to
};

struct PredictBenchRow {
  std::string predictor;
  bool reuse = false;
  int32_t running = 0;
  int32_t waiting = 0;
  double ns_p50 = 0;
  double ns_p99 = 0;
  double enqueue_ns_p50 = 0;
  double step_ns_p50 = 0;
  size_t bytes_per_instance = 0;
  double reuse_share = 0;      // predictions that found the kept state
  double rebuild_share = 0;    // that had to run it anew
  double disagreed_share = 0;  // of steps, where the predictor compares them
  double demoted_share = 0;    // answers from a simpler predictor: none, demotion is off
  int32_t predictions = 0;
};

Result<std::vector<PredictBenchRow>> RunPredictBench(const StepTimeModel& model, const PredictBenchOptions& options);

// A router's prefix index: filled to `blocks_per_instance` everywhere, then asked for a 12,000-token prompt at every instance.
struct PrefixIndexCost {
  size_t blocks = 0;  // (block, instance) pairs held
  size_t bytes = 0;
  double lookup_ns_p50 = 0;  // at all instances
  double lookup_ns_p99 = 0;
  double insert_ns_p50 = 0;  // at one, which lets go of as many
};
PrefixIndexCost MeasurePrefixIndex(uint32_t instances, int64_t blocks_per_instance, uint64_t seed);

}  // namespace foretoken
