// Reads the `engines:` section of a topology: limits, version rules, step times of the truth and of the predictors.
#pragma once

#include <vector>

#include "configs/config_files.h"
#include "configs/config_reader.h"
#include "configs/topology.h"

namespace foretoken {

// `step_factor`: of predictor.step_factor, on every engine's predictor.
std::vector<EngineSpec> ReadEngines(ConfigMap& root, double step_factor, const ConfigFiles& files);

}  // namespace foretoken
