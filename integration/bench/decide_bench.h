// What a decision costs through the real actors of one process: from a client's ScheduleCall to its DecisionNote, over K candidates
// that are loaded as stated, the winner's Enqueue and one sync message per decision included.
//
// And its critical path: a decision completes at the slowest reply, so with enough workers it takes the longest prediction and what
// waits, with one worker the sum of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "integration/bench/loaded_simulator.h"
#include "runtime/base/result.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

class ObservationBoard;

struct DecideBenchOptions {
  LoadOptions load;
  std::vector<int32_t> candidates = {1, 8, 64, 256, 1024};
  std::vector<int32_t> in_flight = {1, 8};
  std::vector<std::string> hosting = {"actor", "shard"};
  int32_t shard_size = 64;
  int32_t workers = 1;
  int32_t predict_max = 0;  // SchedulerCore::Options
  double seconds = 1.5;     // per row
  bool floor = true;        // measure the same called directly, too
  // A journal is kept and observations are put there, as in a system that is watched; null: neither.
  std::shared_ptr<ObservationBoard> board;
};

struct DecideBenchRow {
  int32_t candidates = 0;
  std::string hosting;
  int32_t in_flight = 0;
  double p50_us = 0;
  double p99_us = 0;
  double p999_us = 0;
  double decisions_per_second = 0;
  uint64_t decisions = 0;
  uint64_t unanswered = 0;  // candidates whose prediction did not come in time
  double floor_p50_us = 0;  // the same called directly (decide_floor.h), measured in the same run; 0: it was not
  // Medians over the decisions, from the replies' stamps.
  double max_compute_us = 0;  // the longest prediction
  double sum_compute_us = 0;  // all of them
  double max_queue_us = 0;    // the longest wait from the call to the start of a prediction
};

Result<std::vector<DecideBenchRow>> RunDecideBench(const StepTimeModel& model, const DecideBenchOptions& options);

}  // namespace foretoken
