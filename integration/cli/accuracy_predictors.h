// `foretoken accuracy --predictors`: what each predictor would have said at each arrival of a real run.
#pragma once

#include <optional>
#include <string>

#include "runtime/perf/step_time_model.h"

namespace foretoken {

struct PredictorAccuracyRequest {
  std::string truth;  // directory: steps_<instance>.jsonl.gz and trace_<instance>.jsonl.gz, or requests.jsonl and meta.json
  std::optional<StepTimeModel> table;  // of --table; needed where no steps were recorded
  int64_t kv_blocks = 0;
  bool json = false;
};

// True: the directory holds step-by-step recordings.
bool HoldsRecordings(const std::string& directory);
// Prints; returns the exit code.
int RunPredictorAccuracy(const PredictorAccuracyRequest& request);

}  // namespace foretoken
