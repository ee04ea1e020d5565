// Reads a topology from YAML (docs/configuration.md lists the keys). Strict: an unknown key, a wrong type or unit, a number
// out of range, a dangling reference or a missing file is an error, and all errors are reported at once.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/config_error.h"
#include "configs/topology.h"

namespace foretoken {

// `overrides`: "path=value" each, as given to --set, applied in order before reading and checked as strictly as the file:
// "scheduler.policy=lmetric", "pools[0].instances[h100].count=4" (a list's element by index, or by its id or name).
// `base_dir`: the folder that relative paths in the text start from, then its parent (topologies/x.yaml may say tables/y.csv);
// those in an override start from the current folder first.
ConfigResult<Topology> ParseTopology(std::string_view text, std::string_view file_name,
                                     const std::vector<std::string>& overrides, const std::string& base_dir);

// As ParseTopology on a file; base_dir is its folder.
ConfigResult<Topology> LoadTopology(const std::string& path, const std::vector<std::string>& overrides = {});

}  // namespace foretoken
