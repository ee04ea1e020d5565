#include "configs/experiment.h"

#include <algorithm>
#include <filesystem>

#include "configs/config_files.h"
#include "configs/config_reader.h"
#include "configs/faults.h"
#include "configs/topology_reader.h"
#include "configs/workload.h"

namespace foretoken {
namespace {

constexpr int64_t kRunsMax = 1'000'000;  // a grid beyond this is a mistake, not an experiment

class ExperimentReader {
 public:
  ExperimentReader(const ConfigNode& tree, ConfigErrorSink& sink, const std::string& base_dir)
      : root_(tree, "", sink), sink_(sink), files_(base_dir) {}

  Experiment Read() {
    int64_t version = 1;
    root_.Int("version", {1, 1}, version);
    root_.Require("name");
    root_.Text("name", out_.name);
    root_.Require("question");
    root_.Text("question", out_.question);
    if (root_.Has("measured")) return ReadMeasured();
    root_.Refuse("calibrate_first", "belongs to measured runs, which this experiment does not have");
    root_.Require("topologies");
    out_.topologies = ReadFiles("topologies", [](const std::string& p) { return Errors(LoadTopology(p)); });
    root_.Require("workloads");
    out_.workloads = ReadFiles("workloads", [](const std::string& p) { return Errors(LoadWorkloadFile(p)); });
    out_.faults = ReadFiles("faults", [](const std::string& p) { return Errors(LoadFaultPlan(p)); });
    ReadSets();
    ReadAxes();
    ReadNumbers();
    root_.Finish();
    if (sink_.empty() && out_.runs() > static_cast<size_t>(kRunsMax))
      sink_.Add(root_.node().at, "",
                std::to_string(out_.runs()) + " runs; at most " + std::to_string(kRunsMax) + " are allowed");
    return std::move(out_);
  }

 private:
  template <class T>
  static ConfigErrors Errors(const ConfigResult<T>& result) {
    return result.ok() ? ConfigErrors{} : result.errors();
  }

  // Files that must be there and be right themselves.
  template <class Load>
  std::vector<std::string> ReadFiles(std::string_view key, const Load& load) {
    std::vector<std::string> paths;
    const std::vector<ConfigItem> items = ReadList(root_, key);
    if (root_.Has(key) && items.empty()) root_.Fault(key, "must list at least one file");
    for (const ConfigItem& item : items) {
      const std::string path = files_.Find(*item.node, item.path, sink_);
      if (path.empty()) continue;
      const ConfigErrors errors = load(path);
      for (const ConfigError& e : errors.errors) sink_.Add(*item.node, item.path, e.ToString());
      if (errors.empty()) paths.push_back(path);
    }
    return paths;
  }

  // A path that must name something, which may not be there (data beside the repository).
  std::string ReadData(ConfigMap& map, std::string_view key, bool& absent) {
    const ConfigNode* node = map.Require(key);
    if (node == nullptr || !ReadText(*node, map.PathOf(key), sink_)) return {};
    const std::string path = files_.FindData(*node);
    absent |= path.empty();
    return path.empty() ? node->scalar : path;
  }

  Experiment ReadMeasured() {
    for (const ConfigItem& item : ReadList(root_, "measured")) {
      ConfigMap map(*item.node, item.path, sink_);
      MeasuredCase one;
      map.Require("name");
      map.Text("name", one.name);
      one.run = ReadData(map, "run", one.absent);
      one.table = ReadData(map, "table", one.absent);
      map.Finish();
      const auto same = [&one](const MeasuredCase& m) { return m.name == one.name; };
      if (std::any_of(out_.measured.begin(), out_.measured.end(), same)) map.Fault("name", "is listed twice");
      out_.measured.push_back(std::move(one));
    }
    if (out_.measured.empty() && sink_.empty()) root_.Fault("measured", "must list at least one run");
    for (const ConfigItem& item : ReadList(root_, "calibrate_first"))
      if (const std::optional<int64_t> n = ReadInt(*item.node, item.path, {0, 1'000'000}, sink_))
        out_.calibrate_first.push_back(*n);
    if (out_.calibrate_first.empty()) out_.calibrate_first = {0};
    root_.Int("limit", {1, 1'000'000'000}, out_.limit);
    root_.Int("smoke_limit", {1, 1'000'000}, out_.smoke_limit);
    for (const char* key : {"topologies", "workloads", "faults", "set", "axes", "rate_scales", "loads", "seeds", "warmup_share",
                            "drain_share", "truth_sample"})
      root_.Refuse(key, "belongs to simulations; this experiment has measured runs");
    root_.Finish();
    return std::move(out_);
  }

  // Reports what the topologies say to one more setting.
  void Try(const ConfigNode& node, const std::string& path, const std::string& setting) {
    std::vector<std::string> overrides = out_.set;
    overrides.push_back(setting);
    for (const std::string& topology : out_.topologies) {
      const ConfigErrors errors = Errors(LoadTopology(topology, overrides));
      if (!errors.empty()) {
        const ConfigError& e = errors.errors.front();
        sink_.Add(node, path, e.message + " (in " + topology + ")");
        return;
      }
    }
  }

  void ReadSets() {
    for (const ConfigItem& item : ReadList(root_, "set")) {
      const std::optional<std::string> text = ReadText(*item.node, item.path, sink_);
      if (!text) continue;
      Try(*item.node, item.path, *text);
      out_.set.push_back(*text);
    }
  }

  void ReadAxes() {
    const ConfigNode* node = root_.Find("axes");
    if (node == nullptr) return;
    ConfigMap map(*node, "axes", sink_);
    for (const std::string& path : map.node().keys) {
      ExperimentAxis axis{path, {}};
      const std::vector<ConfigItem> items = ReadList(map, path);
      if (map.node().Find(path)->kind == ConfigNode::Kind::kList && items.empty())
        map.Fault(path, "must list at least one value");
      for (const ConfigItem& item : items) {
        const std::string value = item.node->ToFlow();
        const bool twice = std::find(axis.values.begin(), axis.values.end(), value) != axis.values.end();
        if (twice) sink_.Add(*item.node, item.path, "is listed twice");
        if (sink_.size() < 100) Try(*item.node, item.path, path + "=" + value);
        axis.values.push_back(value);
      }
      out_.axes.push_back(std::move(axis));
    }
  }

  std::vector<double> ReadFactors(std::string_view key) {
    std::vector<double> factors;
    const std::vector<ConfigItem> items = ReadList(root_, key);
    if (root_.Has(key) && items.empty()) root_.Fault(key, "must list at least one value");
    for (const ConfigItem& item : items)
      if (const std::optional<double> f = ReadReal(*item.node, item.path, {0, 1e6, true}, sink_)) factors.push_back(*f);
    return factors;
  }

  void ReadNumbers() {
    out_.rate_scales = ReadFactors("rate_scales");
    out_.loads = ReadFactors("loads");
    if (root_.Has("loads")) root_.Refuse("rate_scales", "loads is given too; only one of them can hold");
    if (out_.rate_scales.empty() && out_.loads.empty()) out_.rate_scales = {1};
    ReadSeeds();
    root_.Int("limit", {1, 1'000'000'000}, out_.limit);
    root_.Real("warmup_share", {0, 0.9}, out_.warmup_share);
    root_.Real("drain_share", {0, 0.9}, out_.drain_share);
    if (out_.warmup_share + out_.drain_share >= 1)
      root_.Fault("drain_share", "with warmup_share it must leave requests to count");
    root_.Real("truth_sample", {0, 1}, out_.truth_sample);
    root_.Int("smoke_limit", {1, 1'000'000}, out_.smoke_limit);
  }

  // `seeds: 5` is 1, 2, 3, 4, 5.
  void ReadSeeds() {
    const ConfigNode* node = root_.Find("seeds");
    if (node == nullptr) return;
    out_.seeds.clear();
    if (node->kind == ConfigNode::Kind::kList) {
      for (const ConfigItem& item : ReadList(root_, "seeds"))
        if (const std::optional<int64_t> seed = ReadInt(*item.node, item.path, {0}, sink_))
          out_.seeds.push_back(static_cast<uint64_t>(*seed));
      if (node->items.empty()) root_.Fault("seeds", "must list at least one seed");
    } else if (const std::optional<int64_t> count = ReadInt(*node, "seeds", {1, 1'000}, sink_)) {
      for (int64_t seed = 1; seed <= *count; ++seed) out_.seeds.push_back(static_cast<uint64_t>(seed));
    }
  }

  ConfigMap root_;
  ConfigErrorSink& sink_;
  ConfigFiles files_;
  Experiment out_;
};

}  // namespace

size_t Experiment::runs() const {
  if (!measured.empty()) return measured.size() * (1 + calibrate_first.size());
  size_t runs = topologies.size() * workloads.size() * std::max<size_t>(faults.size(), 1) * seeds.size();
  runs *= rate_scales.empty() ? loads.size() : rate_scales.size();
  for (const ExperimentAxis& axis : axes) runs = std::min<size_t>(runs, kRunsMax + 1) * axis.values.size();
  return runs;
}

ConfigResult<Experiment> ParseExperiment(std::string_view text, std::string_view file_name,
                                         const std::vector<std::string>& overrides, const std::string& base_dir) {
  ConfigErrorSink sink(file_name, overrides);
  const ConfigNode tree = ReadConfigTree(text, sink);
  if (!sink.empty()) return sink.Take();
  Experiment experiment = ExperimentReader(tree, sink, base_dir).Read();
  if (!sink.empty()) return sink.Take();
  return experiment;
}

ConfigResult<Experiment> LoadExperiment(const std::string& path, const std::vector<std::string>& overrides) {
  const Result<std::string> text = ReadConfigFile(path);
  if (!text.ok()) return ConfigErrors{{ConfigError{path, "", text.error().message}}};
  return ParseExperiment(*text, path, overrides, std::filesystem::path(path).parent_path().string());
}

}  // namespace foretoken
