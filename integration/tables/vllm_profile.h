// Importer of a vllm-profile directory (LLMServingSim): attention.csv, dense.csv, per_sequence.csv and meta.yaml, in
// microseconds per layer, with the model's shape from <basename>.json beside the directory.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/perf/profile_step_law.h"
#include "runtime/perf/step_time_table.h"

namespace foretoken::tables {

struct VllmProfile {
  LayerProfile layers;  // of the whole model
  int64_t layer_count = 0;
  std::string gpu, model;
  std::vector<std::string> assumptions;  // what was taken for granted, for the user to see
};

// `shape_file` "": <directory>/../<basename of meta.yaml's model>.json. Of meta.yaml only `model` and `gpu` are read: its
// hf_overrides describe the profiler's one-layer copy, its skew_fit a file that is not there.
Result<VllmProfile> ReadVllmProfile(const std::string& directory, const std::string& shape_file);

// The same as a monotone grid (the exact composition of a step is lost); `changed` receives how many values were moved.
Result<StepTableGrid> ProfileAsGrid(const VllmProfile& profile, int64_t& changed);

}  // namespace foretoken::tables
