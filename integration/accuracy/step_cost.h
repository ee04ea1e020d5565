// The step times of a measured run's machine, from a file or folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "integration/accuracy/replay.h"
#include "runtime/base/result.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken::accuracy {

struct LoadedStepCost {
  StepCost cost;
  std::shared_ptr<const StepTimeLaw> by_shape;  // the same as a step's shape tells it
  std::vector<std::string> assumptions;         // what the file leaves open, and what was taken
};

// `table`: a table's CSV (ours or NVIDIA's columns), or a folder with a per-layer vLLM profile, whose model's config.json is
// `model_shape` (empty: beside the folder). `host_overhead_ms` per step; negative: 0 for a profile, 1 for a table that contains none.
// Error: names file, line and rule.
Result<LoadedStepCost> LoadStepCost(const std::string& table, const std::string& model_shape, double host_overhead_ms);

}  // namespace foretoken::accuracy
