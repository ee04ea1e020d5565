// Finds the files that a configuration names. Paths in a file start from its folder, then from that folder's parent
// (topologies/x.yaml may say tables/y.csv); paths in a --set start from the current folder first.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "configs/config_tree.h"

namespace foretoken {

class ConfigFiles {
 public:
  explicit ConfigFiles(std::string base_dir) : base_dir_(std::move(base_dir)) {}

  // The path to open. Empty after an error was reported: no such file, with the nearest name in that folder.
  std::string Find(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink) const;

  // The path of a file or folder of data; empty if there is none, which is no error.
  std::string FindData(const ConfigNode& node) const;

  // The node names a file well enough, but there is none.
  bool Absent(const ConfigNode& node) const;

 private:
  std::vector<std::string> Folders(const ConfigNode& node) const;

  std::string base_dir_;
};

}  // namespace foretoken
