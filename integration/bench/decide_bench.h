// What a decision costs through the real actors of one process: from a client's ScheduleCall to its DispatchCall, over K candidates
// that are loaded as stated, the winner's Enqueue and one sync message per decision included. Only the engines are missing: what they
// would send comes from a feeder that was filled beforehand, so that an engine's own work is not measured.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/model/prediction.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

struct DecideBenchOptions {
  std::vector<int32_t> candidates = {1, 8, 64, 256, 1024};
  std::vector<int32_t> in_flight = {1, 8};
  std::vector<std::string> hosting = {"actor", "shard"};
  PredictorKind predictor = PredictorKind::kTimeline;
  int32_t running = 32;  // per instance
  int32_t waiting = 16;
  int32_t shard_size = 64;
  int32_t workers = 1;
  double seconds = 1.5;  // per row
  uint64_t seed = 1;
};

struct DecideBenchRow {
  int32_t candidates = 0;
  std::string hosting;
  std::string predictor;
  int32_t running = 0;
  int32_t waiting = 0;
  int32_t in_flight = 0;
  double p50_us = 0;
  double p99_us = 0;
  double p999_us = 0;
  double decisions_per_second = 0;
  uint64_t decisions = 0;
  uint64_t unanswered = 0;  // candidates whose prediction did not come in time
};

Result<std::vector<DecideBenchRow>> RunDecideBench(const StepTimeModel& model, const DecideBenchOptions& options);

}  // namespace foretoken
