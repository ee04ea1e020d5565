// Reads a workload from YAML: a recorded trace by its file, the profile of a synthetic one, or a sequence of workloads
// (docs/configuration.md, "Workloads"). As strict as the topology reader. Does not read the trace itself: integration/traces does.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/config_error.h"
#include "runtime/workload/reshape.h"
#include "runtime/workload/synth_profile.h"
#include "runtime/workload/trace.h"

namespace foretoken {

// Exactly one of trace_file, synthetic and parts is set.
struct WorkloadSpec {
  std::string name;
  std::string trace_file;  // resolved against the workload's folder
  std::optional<SynthProfile> synthetic;
  std::vector<std::string> parts;  // kind sequence: paths of the workloads that follow one another
  double rate_scale = 1;           // arrivals come so many times as fast
  size_t limit = 0;                // of trace_file: the first so many requests; 0: all
  TraceShape shape;                // of trace_file
  bool absent = false;             // trace_file is not there, which a workload with a stand-in may say
  std::string stand_in;            // path of a workload that small runs take instead of trace_file; may be empty
  std::optional<ClosedLoop> closed_loop;
};

ConfigResult<WorkloadSpec> ParseWorkload(std::string_view text, std::string_view file_name,
                                         const std::vector<std::string>& overrides, const std::string& base_dir);
ConfigResult<WorkloadSpec> LoadWorkloadFile(const std::string& path, const std::vector<std::string>& overrides = {});

}  // namespace foretoken
