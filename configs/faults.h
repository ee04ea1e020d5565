// Reads a fault plan from YAML (docs/configuration.md, "Fault plans"). As strict as the topology reader.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/config_error.h"
#include "runtime/fault/fault_plan.h"

namespace foretoken {

// `overrides`: "path=value" each, as ParseTopology takes them.
ConfigResult<FaultPlan> ParseFaultPlan(std::string_view text, std::string_view file_name,
                                       const std::vector<std::string>& overrides = {});
ConfigResult<FaultPlan> LoadFaultPlan(const std::string& path);

// One sentence per pattern of the plan that names no instance: such a rule would silently do nothing.
std::vector<std::string> UnmatchedPatterns(const FaultPlan& plan, const std::vector<std::string>& instance_names);

}  // namespace foretoken
