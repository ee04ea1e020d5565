// Reads the `engines:` section of a topology: limits, version rules, step times of the truth and of the predictors.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "configs/config_reader.h"
#include "configs/topology.h"
#include "runtime/perf/step_time_table.h"

namespace foretoken {

// Finds and loads the files that a configuration names, each once. Paths in the file start from its folder or that folder's parent; paths
// in a --set start from the current folder first.
class ConfigFiles {
 public:
  explicit ConfigFiles(std::string base_dir) : base_dir_(std::move(base_dir)) {}

  // The path to open; reports when there is no such file, with the nearest name in that folder.
  std::string Find(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink) const;
  // A step-time table by file, or by the name of one that the program carries with it. nullptr after an error.
  std::shared_ptr<const StepTimeTable> Table(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink);

 private:
  std::vector<std::string> Folders(const ConfigNode& node) const;

  std::string base_dir_;
  std::map<std::string, std::shared_ptr<const StepTimeTable>> tables_;
};

// `step_factor`: of predictor.step_factor, on every engine's predictor.
std::vector<EngineSpec> ReadEngines(ConfigMap& root, double step_factor, ConfigFiles& files);

}  // namespace foretoken
