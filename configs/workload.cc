#include "configs/workload.h"

#include <filesystem>
#include <utility>

#include "configs/config_files.h"
#include "configs/config_reader.h"
#include "runtime/workload/azure_profiles.h"

namespace foretoken {
namespace {

constexpr int64_t kTokensMax = 10'000'000;
constexpr DurationRange kAnyTime{Duration(), Duration::Seconds(86'400)};
constexpr DurationRange kPositive{Duration::Micros(1), Duration::Seconds(86'400)};
constexpr RealRange kShare{0, 1};

// kEmpirical and kReplay come with a base profile only: their figures have no place in a hand-written file.
constexpr std::pair<std::string_view, ArrivalKind> kArrivals[] = {{"uniform", ArrivalKind::kUniform},
                                                                  {"poisson", ArrivalKind::kPoisson},
                                                                  {"gamma", ArrivalKind::kGamma},
                                                                  {"on_off", ArrivalKind::kOnOff},
                                                                  {"empirical", ArrivalKind::kEmpirical}};

void ReadArrivals(ConfigMap& parent, ArrivalProfile& out) {
  const ConfigNode* node = parent.Find("arrivals");
  if (node == nullptr) return;
  ConfigMap map(*node, parent.PathOf("arrivals"), parent.sink());
  map.Enum<ArrivalKind>("kind", kArrivals, out.kind);
  if (out.kind == ArrivalKind::kEmpirical && out.gaps.empty()) map.Fault("kind", "needs a base whose gaps are known");
  map.Real("rate", {0, 1e6, true}, out.rate_rps);
  const auto only_for = [&map, &out](std::string_view key, ArrivalKind kind, std::string_view name) {
    if (out.kind != kind) map.Refuse(key, "has a meaning with kind: " + std::string(name) + " only");
    return out.kind == kind;
  };
  if (only_for("cv", ArrivalKind::kGamma, "gamma")) map.Real("cv", {0.05, 20}, out.cv);
  if (only_for("on_mean", ArrivalKind::kOnOff, "on_off")) map.Time("on_mean", kPositive, out.on_mean);
  if (only_for("on_share", ArrivalKind::kOnOff, "on_off")) map.Real("on_share", {0, 1, true}, out.on_share);
  if (map.Has("weights")) {
    out.weights.clear();
    double total = 0;
    for (const ConfigItem& item : ReadList(map, "weights")) {
      const std::optional<double> w = ReadReal(*item.node, item.path, {0, 1e9}, map.sink());
      out.weights.push_back(w.value_or(1));
      total += out.weights.back();
    }
    if (!out.weights.empty() && total == 0) map.Fault("weights", "must not all be 0");
  }
  if (map.Time("piece", kPositive, out.piece) && out.weights.empty()) map.Fault("piece", "has a meaning with weights only");
  map.Finish();
}

// `prompt: { median: 1000, sigma: 1, min: 1, max: 32768 }`.
struct LengthKeys {
  double& median;
  double& sigma;
  int64_t& min;
  int64_t& max;
};

// True when the length's law is given anew (which puts a base's tables aside).
bool ReadLength(ConfigMap& parent, std::string_view key, LengthKeys out) {
  const ConfigNode* node = parent.Find(key);
  if (node == nullptr) return false;
  ConfigMap map(*node, parent.PathOf(key), parent.sink());
  const bool anew = map.Has("median") || map.Has("sigma");
  map.Real("median", {1, static_cast<double>(kTokensMax)}, out.median);
  map.Real("sigma", {0, 5}, out.sigma);
  map.Int("min", {1, kTokensMax}, out.min);
  map.Int("max", {1, kTokensMax}, out.max);
  if (out.max < out.min) map.Fault(map.Has("max") ? "max" : "min", "max must be >= min");
  map.Finish();
  return anew;
}

void ReadLengths(ConfigMap& parent, LengthProfile& out) {
  const ConfigNode* node = parent.Find("lengths");
  if (node == nullptr) return;
  ConfigMap map(*node, parent.PathOf("lengths"), parent.sink());
  const bool prompt = ReadLength(map, "prompt", {out.prompt_median, out.prompt_sigma, out.prompt_min, out.prompt_max});
  const bool output = ReadLength(map, "output", {out.output_median, out.output_sigma, out.output_min, out.output_max});
  const bool tied = map.Real("rank_correlation", {-1, 1}, out.rank_correlation);
  if (!out.prompt.empty() && (prompt || output || tied)) {
    if (!prompt || !output)
      map.Fault(prompt   ? "prompt"
                : output ? "output"
                         : "rank_correlation",
                "a base's lengths belong together: give prompt and output, each with median and sigma");
    out.prompt = {};
    out.output_by_prompt.clear();
  }
  map.Finish();
}

void ReadSharing(ConfigMap& parent, SharingProfile& out) {
  const ConfigNode* node = parent.Find("sharing");
  if (node == nullptr) return;
  ConfigMap map(*node, parent.PathOf("sharing"), parent.sink());
  map.Require("share");
  map.Real("share", kShare, out.share);
  map.Int("groups", {1, 1'000'000}, out.groups);
  map.Real("zipf", {0, 10}, out.zipf);
  map.Int("prefix_tokens", {1, kTokensMax}, out.prefix_tokens);
  map.Finish();
}

void ReadSessions(ConfigMap& parent, SessionProfile& out) {
  const ConfigNode* node = parent.Find("sessions");
  if (node == nullptr) return;
  ConfigMap map(*node, parent.PathOf("sessions"), parent.sink());
  map.Require("share");
  map.Real("share", kShare, out.share);
  map.Real("turns_mean", {1, 1'000}, out.turns_mean);
  map.Int("message_tokens", {1, kTokensMax}, out.message_tokens);
  map.Time("think_mean", kAnyTime, out.think_mean);
  map.Time("token_time", kAnyTime, out.token_time);
  map.Finish();
}

std::optional<SynthProfile> ReadBase(ConfigMap& root) {
  const ConfigNode* node = root.Find("base");
  if (node == nullptr) return std::nullopt;
  const std::vector<std::string_view> names = {"azure-conv-2023", "azure-code-2023"};
  const std::optional<size_t> index = ReadName(*node, "base", names, root.sink());
  if (!index) return std::nullopt;
  const Result<const SynthProfile*> profile = EmbeddedProfile(names[*index]);
  if (profile.ok()) return **profile;
  root.sink().Add(*node, "base", profile.error().message);
  return std::nullopt;
}

SynthProfile ReadSynthetic(ConfigMap& root) {
  const size_t before = root.sink().size();
  const std::optional<SynthProfile> base = ReadBase(root);
  SynthProfile profile = base.value_or(SynthProfile{});
  if (!base && !root.Has("base")) {
    root.Require("arrivals");
    root.Require("lengths");
  }
  root.Int("requests", {1, 100'000'000}, profile.requests);
  ReadArrivals(root, profile.arrivals);
  ReadLengths(root, profile.lengths);
  ReadSharing(root, profile.sharing);
  ReadSessions(root, profile.sessions);
  const Status status = Validate(profile);  // what no single key shows
  if (!status.ok() && root.sink().size() == before) root.sink().Add(root.node().at, "", status.error().message);
  return profile;
}

enum class WorkloadKind { kTrace, kSynthetic, kSequence };
constexpr std::pair<std::string_view, WorkloadKind> kKinds[] = {
    {"trace", WorkloadKind::kTrace}, {"synthetic", WorkloadKind::kSynthetic}, {"sequence", WorkloadKind::kSequence}};

// `part: { from: 0.5, to: 1, rotate: true, copies: 2 }`.
void ReadShape(ConfigMap& root, TraceShape& out) {
  const ConfigNode* node = root.Find("part");
  if (node == nullptr) return;
  ConfigMap map(*node, root.PathOf("part"), root.sink());
  map.Real("from", kShare, out.from);
  map.Real("to", kShare, out.to);
  if (out.to <= out.from) map.Fault(map.Has("to") ? "to" : "from", "from must be < to");
  map.Bool("rotate", out.rotate);
  map.Int("copies", {1, 1'000}, out.copies);
  map.Finish();
}

void ReadTrace(ConfigMap& root, const ConfigFiles& files, WorkloadSpec& out) {
  if (const ConfigNode* node = root.Find("stand_in"); node != nullptr) {
    out.stand_in = files.Find(*node, "stand_in", root.sink());
    if (!out.stand_in.empty() && !LoadWorkloadFile(out.stand_in).ok())
      root.Fault("stand_in", "is no workload by itself: foretoken validate it");
  }
  if (const ConfigNode* file = root.Require("file"); file != nullptr) {
    out.absent = !out.stand_in.empty() && files.Absent(*file);
    out.trace_file = out.absent ? file->scalar : files.Find(*file, "file", root.sink());
  }
  root.Int("limit", {1, 1'000'000'000}, out.limit);
  ReadShape(root, out.shape);
}

void ReadSequence(ConfigMap& root, const ConfigFiles& files, WorkloadSpec& out) {
  root.Require("parts");
  for (const ConfigItem& item : ReadList(root, "parts")) {
    const std::string path = files.Find(*item.node, item.path, root.sink());
    if (path.empty()) continue;
    const ConfigResult<WorkloadSpec> part = LoadWorkloadFile(path);
    if (!part.ok()) {
      root.sink().Add(*item.node, item.path, part.errors().ToString());
    } else if (!part->parts.empty() || part->closed_loop) {
      root.sink().Add(*item.node, item.path, "a part must be a trace or a synthetic workload in open loop");
    }
    out.parts.push_back(path);
  }
  if (root.Has("parts") && out.parts.empty()) root.Fault("parts", "must list at least one workload");
}

void ReadClosedLoop(ConfigMap& root, WorkloadSpec& out) {
  const ConfigNode* node = root.Find("closed_loop");
  if (node == nullptr) return;
  ConfigMap map(*node, root.PathOf("closed_loop"), root.sink());
  out.closed_loop = ClosedLoop{};
  map.Require("users");
  map.Int("users", {1, 1'000'000}, out.closed_loop->users);
  map.Time("think_mean", kAnyTime, out.closed_loop->think_mean);
  map.Finish();
}

}  // namespace

ConfigResult<WorkloadSpec> ParseWorkload(std::string_view text, std::string_view file_name,
                                         const std::vector<std::string>& overrides, const std::string& base_dir) {
  ConfigErrorSink sink(file_name, overrides);
  const ConfigNode tree = ReadConfigTree(text, sink);
  if (!sink.empty()) return sink.Take();
  WorkloadSpec workload;
  ConfigMap root(tree, "", sink);
  int64_t version = 1;
  root.Int("version", {1, 1}, version);
  root.Require("name");
  root.Text("name", workload.name);
  WorkloadKind kind = WorkloadKind::kSynthetic;
  root.Require("kind");
  const bool known = root.Enum<WorkloadKind>("kind", kKinds, kind);
  root.Real("rate_scale", {0, 1e6, true}, workload.rate_scale);
  if (known && kind == WorkloadKind::kSynthetic) {
    workload.synthetic = ReadSynthetic(root);
    workload.synthetic->name = workload.name;
  } else if (known && kind == WorkloadKind::kTrace) {
    ReadTrace(root, ConfigFiles(base_dir), workload);
  } else if (known) {
    ReadSequence(root, ConfigFiles(base_dir), workload);
  }
  if (known) ReadClosedLoop(root, workload);
  if (known) root.Finish();
  if (!sink.empty()) return sink.Take();
  return workload;
}

ConfigResult<WorkloadSpec> LoadWorkloadFile(const std::string& path, const std::vector<std::string>& overrides) {
  const Result<std::string> text = ReadConfigFile(path);
  if (!text.ok()) return ConfigErrors{{ConfigError{path, "", text.error().message}}};
  return ParseWorkload(*text, path, overrides, std::filesystem::path(path).parent_path().string());
}

}  // namespace foretoken
