// Reads a configuration file of any kind: topology, fault plan, workload or experiment, told by its keys.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "configs/config_error.h"
#include "configs/experiment.h"
#include "configs/topology.h"
#include "configs/workload.h"
#include "runtime/fault/fault_plan.h"

namespace foretoken {

using AnyConfig = std::variant<Topology, FaultPlan, WorkloadSpec, Experiment>;

ConfigResult<AnyConfig> ParseAnyConfig(std::string_view text, std::string_view file_name,
                                       const std::vector<std::string>& overrides, const std::string& base_dir);
ConfigResult<AnyConfig> LoadAnyConfig(const std::string& path, const std::vector<std::string>& overrides = {});

}  // namespace foretoken
