#include "configs/config_files.h"

#include <algorithm>
#include <filesystem>

#include "configs/config_reader.h"
#include "runtime/base/nearest_name.h"

namespace foretoken {
namespace {

std::vector<std::string> FilesIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    names.push_back(it->path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string Join(const std::string& folder, const std::string& path) {
  return folder.empty() || path.starts_with('/') ? path : folder + "/" + path;
}

}  // namespace

std::vector<std::string> ConfigFiles::Folders(const ConfigNode& node) const {
  std::vector<std::string> folders;
  if (node.at.override_index >= 0) folders.push_back("");
  folders.push_back(base_dir_);
  folders.push_back(Join(base_dir_, ".."));
  return folders;
}

std::string ConfigFiles::FindData(const ConfigNode& node) const {
  std::error_code error;
  for (const std::string& folder : Folders(node)) {
    const std::string candidate = Join(folder, node.scalar);
    if (std::filesystem::is_regular_file(candidate, error) || std::filesystem::is_directory(candidate, error))
      return std::filesystem::path(candidate).lexically_normal().string();
  }
  return "";
}

bool ConfigFiles::Absent(const ConfigNode& node) const {
  if (node.kind != ConfigNode::Kind::kScalar || node.scalar.empty() || node.scalar.find('\0') != std::string::npos)
    return false;
  const std::vector<std::string> folders = Folders(node);
  std::error_code error;
  return std::none_of(folders.begin(), folders.end(), [&](const std::string& folder) {
    return std::filesystem::is_regular_file(Join(folder, node.scalar), error);
  });
}

std::string ConfigFiles::Find(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink) const {
  if (node.kind != ConfigNode::Kind::kScalar || node.scalar.empty() || node.scalar.find('\0') != std::string::npos) {
    sink.Add(node, path, "must be the path of a file");
    return "";
  }
  std::error_code error;
  for (const std::string& folder : Folders(node)) {
    const std::string candidate = Join(folder, node.scalar);
    if (std::filesystem::is_regular_file(candidate, error)) return std::filesystem::path(candidate).lexically_normal().string();
  }
  const std::filesystem::path written(node.scalar);
  for (const std::string& folder : Folders(node)) {
    const std::vector<std::string> names = FilesIn(std::filesystem::path(Join(folder, node.scalar)).parent_path().string());
    if (names.empty()) continue;
    const std::string near = NearestName(written.filename().string(), {names.begin(), names.end()});
    const std::string name = written.filename().string();
    if (static_cast<size_t>(EditDistance(name, near)) > name.size() / 2) break;  // nothing like it there
    sink.Add(node, path, "no such file (did you mean \"" + (written.parent_path() / near).string() + "\"?)");
    return "";
  }
  sink.Add(node, path, "no such file");
  return "";
}

}  // namespace foretoken
