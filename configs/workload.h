// Reads a workload from YAML: a recorded trace by its file, or the profile of a synthetic one (docs/configuration.md,
// "Workloads"). As strict as the topology reader. Does not read the trace itself: integration/traces does.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config_error.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {

// Exactly one of trace_file and synthetic is set.
struct WorkloadSpec {
  std::string name;
  std::string trace_file;  // resolved against the workload's folder
  std::optional<SynthProfile> synthetic;
  double rate_scale = 1;  // arrivals come so many times as fast
  size_t limit = 0;       // of trace_file: the first so many requests; 0: all
};

ConfigResult<WorkloadSpec> ParseWorkload(std::string_view text, std::string_view file_name,
                                         const std::vector<std::string>& overrides, const std::string& base_dir);
ConfigResult<WorkloadSpec> LoadWorkloadFile(const std::string& path, const std::vector<std::string>& overrides = {});

}  // namespace foretoken
