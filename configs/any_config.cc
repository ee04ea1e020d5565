#include "configs/any_config.h"

#include <algorithm>
#include <filesystem>

#include "configs/config_tree.h"
#include "configs/faults.h"
#include "configs/topology_reader.h"

namespace foretoken {
namespace {

enum class Kind { kTopology, kFaults, kWorkload, kExperiment };

// Keys that only one kind of file has.
struct Sign {
  std::string_view key;
  Kind kind;
};
constexpr Sign kSigns[] = {{"engines", Kind::kTopology}, {"pools", Kind::kTopology},      {"scheduler", Kind::kTopology},
                           {"links", Kind::kFaults},     {"restarts", Kind::kFaults},     {"topologies", Kind::kExperiment},
                           {"axes", Kind::kExperiment},  {"measured", Kind::kExperiment}, {"question", Kind::kExperiment},
                           {"kind", Kind::kWorkload},    {"arrivals", Kind::kWorkload},   {"lengths", Kind::kWorkload}};

std::optional<Kind> KindOf(const ConfigNode& tree) {
  for (const Sign& sign : kSigns)
    if (tree.Find(sign.key) != nullptr) return sign.kind;
  return std::nullopt;
}

template <class T>
ConfigResult<AnyConfig> Widen(ConfigResult<T> result) {
  if (!result.ok()) return result.errors();
  return AnyConfig(std::move(result).value());
}

}  // namespace

ConfigResult<AnyConfig> ParseAnyConfig(std::string_view text, std::string_view file_name,
                                       const std::vector<std::string>& overrides, const std::string& base_dir) {
  ConfigErrorSink sink(file_name, {});
  const ConfigNode tree = ReadConfigTree(text, sink);
  if (!sink.empty()) return sink.Take();
  const std::optional<Kind> kind = KindOf(tree);
  if (kind == Kind::kTopology) return Widen(ParseTopology(text, file_name, overrides, base_dir));
  if (kind == Kind::kFaults) return Widen(ParseFaultPlan(text, file_name, overrides));
  if (kind == Kind::kWorkload) return Widen(ParseWorkload(text, file_name, overrides, base_dir));
  if (kind == Kind::kExperiment) return Widen(ParseExperiment(text, file_name, overrides, base_dir));
  sink.Add(tree.at, "",
           "no known kind of file: a topology has engines and pools, a fault plan links or restarts, a workload a kind, an "
           "experiment "
           "topologies and workloads");
  return sink.Take();
}

ConfigResult<AnyConfig> LoadAnyConfig(const std::string& path, const std::vector<std::string>& overrides) {
  const Result<std::string> text = ReadConfigFile(path);
  if (!text.ok()) return ConfigErrors{{ConfigError{path, "", text.error().message}}};
  return ParseAnyConfig(*text, path, overrides, std::filesystem::path(path).parent_path().string());
}

}  // namespace foretoken
