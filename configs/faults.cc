#include "configs/faults.h"

#include <utility>

#include "configs/config_reader.h"

namespace foretoken {
namespace {

using Kind = DelayLaw::Kind;

constexpr std::pair<std::string_view, Kind> kLaws[] = {{"constant", Kind::kConstant},
                                                       {"uniform", Kind::kUniform},
                                                       {"normal", Kind::kNormal},
                                                       {"lognormal", Kind::kLogNormal},
                                                       {"pareto", Kind::kPareto}};
constexpr std::pair<std::string_view, std::optional<LinkRole>> kRoles[] = {{"any", std::nullopt},
                                                                           {"gateway", LinkRole::kGateway},
                                                                           {"scheduler", LinkRole::kScheduler},
                                                                           {"simulator", LinkRole::kSimulator},
                                                                           {"instance", LinkRole::kInstance},
                                                                           {"node", LinkRole::kNode}};

constexpr Duration kDay = Duration::Seconds(86'400);
constexpr DurationRange kDelay{Duration(), kDay};
constexpr DurationRange kPositive{Duration::Nanos(1), kDay};
constexpr RealRange kProbability{0, 1};

// `5ms`, or `{ kind: lognormal, median: 5ms, sigma: 0.5, cap: 1s }`.
void ReadDelay(ConfigMap& parent, std::string_view key, DelayLaw& law) {
  const ConfigNode* node = parent.Find(key);
  if (node == nullptr) return;
  if (node->kind != ConfigNode::Kind::kMap) {
    const std::optional<Duration> d = ReadDuration(*node, parent.PathOf(key), kDelay, parent.sink());
    if (d) law.value = *d;
    return;
  }
  ConfigMap map(*node, parent.PathOf(key), parent.sink());
  if (map.Require("kind") == nullptr || !map.Enum<Kind>("kind", kLaws, law.kind)) return;
  const auto need = [&map](std::string_view name, Duration& out) {
    if (map.Require(name) != nullptr) map.Time(name, kDelay, out);
  };
  switch (law.kind) {
    case Kind::kConstant: need("value", law.value); break;
    case Kind::kUniform:
      need("min", law.min);
      need("max", law.max);
      if (law.max < law.min && map.Has("max")) map.Fault("max", "must be >= min");
      break;
    case Kind::kNormal:
      need("mean", law.value);
      need("deviation", law.deviation);
      break;
    case Kind::kLogNormal:
      need("median", law.value);
      if (map.Require("sigma") != nullptr) map.Real("sigma", {0, 10}, law.sigma);
      break;
    case Kind::kPareto:
      if (map.Require("min") != nullptr) map.Time("min", kPositive, law.value);
      if (map.Require("shape") != nullptr) map.Real("shape", {0, 100, true}, law.shape);
      map.Require("cap");
      break;
  }
  Duration cap;
  if (map.Time("cap", kDelay, cap)) {
    law.cap = cap;
    if (law.kind == Kind::kPareto && cap < law.value) map.Fault("cap", "must be >= min");
  }
  map.Finish();
}

void ReadBurst(ConfigMap& parent, std::optional<BurstLoss>& out) {
  const ConfigNode* node = parent.Find("burst_loss");
  if (node == nullptr) return;
  ConfigMap map(*node, parent.PathOf("burst_loss"), parent.sink());
  BurstLoss burst;
  map.Require("enter");
  map.Real("enter", kProbability, burst.enter);
  map.Require("leave");
  map.Real("leave", {0, 1, true}, burst.leave);
  map.Real("loss_good", kProbability, burst.loss_good);
  map.Real("loss_bad", kProbability, burst.loss_bad);
  map.Finish();
  out = burst;
}

PartitionWindow ReadWindow(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink) {
  ConfigMap map(node, path, sink);
  PartitionWindow window;
  Duration from, every;
  map.Require("from");
  map.Time("from", kDelay, from);
  window.from = Instant() + from;
  map.Require("lasts");
  map.Time("lasts", kPositive, window.lasts);
  if (map.Time("every", kPositive, every)) {
    window.every = every;
    if (every <= window.lasts) map.Fault("every", "must be > lasts");
  }
  map.Finish();
  return window;
}

void ReadPartitions(ConfigMap& parent, std::vector<PartitionWindow>& out) {
  for (const ConfigItem& item : ReadList(parent, "partitions")) out.push_back(ReadWindow(*item.node, item.path, parent.sink()));
}

// `instance`, or `{ role: instance, name: "h100-*" }`.
void ReadEnd(ConfigMap& link, std::string_view key, std::optional<LinkRole>& role, std::string& pattern) {
  const ConfigNode* node = link.Find(key);
  if (node == nullptr) return;
  if (node->kind == ConfigNode::Kind::kScalar) {
    link.Enum<std::optional<LinkRole>>(key, kRoles, role);
    return;
  }
  ConfigMap map(*node, link.PathOf(key), link.sink());
  map.Enum<std::optional<LinkRole>>("role", kRoles, role);
  map.Text("name", pattern);
  map.Finish();
}

void ReadLink(const ConfigItem& item, ConfigErrorSink& sink, std::vector<LinkRule>& out) {
  ConfigMap map(*item.node, item.path, sink);
  LinkRule rule;
  if (const ConfigNode* ends = map.Find("link"); ends != nullptr) {
    ConfigMap link(*ends, map.PathOf("link"), sink);
    ReadEnd(link, "from", rule.from, rule.from_name);
    ReadEnd(link, "to", rule.to, rule.to_name);
    link.Finish();
  }
  LinkFaults& f = rule.faults;
  ReadDelay(map, "delay", f.delay);
  map.Real("reorder_probability", kProbability, f.reorder_probability);
  ReadDelay(map, "reorder_delay", f.reorder_delay);
  map.Real("duplicate_probability", kProbability, f.duplicate_probability);
  ReadDelay(map, "duplicate_delay", f.duplicate_delay);
  map.Real("drop_probability", kProbability, f.drop_probability);
  ReadBurst(map, f.burst_loss);
  ReadPartitions(map, f.partitions);
  map.Bytes("bytes_per_second", {1}, f.bytes_per_second);
  map.Bool("in_order", f.in_order);
  if (const ConfigNode* clock = map.Find("clock"); clock != nullptr) {
    ConfigMap skew(*clock, map.PathOf("clock"), sink);
    skew.Time("offset", {-kDay, kDay}, f.clock.offset);
    skew.Real("ppm", {-100'000, 100'000}, f.clock.ppm);
    skew.Finish();
  }
  if (const ConfigNode* active = map.Find("active"); active != nullptr)
    f.active = ReadWindow(*active, map.PathOf("active"), sink);
  // What would silently do nothing is a mistake.
  if (f.reorder_probability > 0 && !map.Has("reorder_delay"))
    map.Fault("reorder_probability", "needs a reorder_delay, or nothing is reordered");
  if (map.Has("reorder_delay") && !map.Has("reorder_probability"))
    map.Fault("reorder_delay", "needs a reorder_probability, or nothing is reordered");
  if (map.Has("duplicate_delay") && !map.Has("duplicate_probability"))
    map.Fault("duplicate_delay", "needs a duplicate_probability, or nothing is duplicated");
  if (f.in_order && f.reorder_probability > 0) map.Fault("in_order", "contradicts reorder_probability");
  map.Finish();
  out.push_back(std::move(rule));
}

void ReadRestart(const ConfigItem& item, ConfigErrorSink& sink, std::vector<RestartRule>& out) {
  ConfigMap map(*item.node, item.path, sink);
  RestartRule rule;
  map.Require("instances");
  map.Text("instances", rule.instances);
  Duration at, every;
  map.Require("at");
  map.Time("at", kDelay, at);
  rule.at = Instant() + at;
  map.Require("downtime");
  map.Time("downtime", kPositive, rule.downtime);
  if (map.Time("every", kPositive, every)) {
    rule.every = every;
    if (every <= rule.downtime) map.Fault("every", "must be > downtime");
  }
  map.Finish();
  out.push_back(std::move(rule));
}

}  // namespace

ConfigResult<FaultPlan> ParseFaultPlan(std::string_view text, std::string_view file_name,
                                       const std::vector<std::string>& overrides) {
  ConfigErrorSink sink(file_name, overrides);
  const ConfigNode tree = ReadConfigTree(text, sink);
  if (!sink.empty()) return sink.Take();
  FaultPlan plan;
  ConfigMap root(tree, "", sink);
  int64_t version = 1;
  root.Int("version", {1, 1}, version);
  root.Require("name");
  root.Text("name", plan.name);
  for (const ConfigItem& item : ReadList(root, "links")) ReadLink(item, sink, plan.links);
  for (const ConfigItem& item : ReadList(root, "restarts")) ReadRestart(item, sink, plan.restarts);
  root.Finish();
  if (!sink.empty()) return sink.Take();
  return plan;
}

ConfigResult<FaultPlan> LoadFaultPlan(const std::string& path) {
  const Result<std::string> text = ReadConfigFile(path);
  if (!text.ok()) return ConfigErrors{{ConfigError{path, "", text.error().message}}};
  return ParseFaultPlan(*text, path);
}

std::vector<std::string> UnmatchedPatterns(const FaultPlan& plan, const std::vector<std::string>& instance_names) {
  std::vector<std::string> problems;
  const auto check = [&](const std::string& path, const std::string& pattern) {
    for (const std::string& name : instance_names)
      if (MatchesPattern(pattern, name)) return;
    problems.push_back(path + " = " + pattern + ": matches no instance");
  };
  const auto names_instances = [](const std::optional<LinkRole>& role) {
    return role == LinkRole::kInstance || role == LinkRole::kSimulator;
  };
  for (size_t i = 0; i < plan.links.size(); ++i) {
    const std::string path = "links[" + std::to_string(i) + "].link.";
    if (names_instances(plan.links[i].from)) check(path + "from.name", plan.links[i].from_name);
    if (names_instances(plan.links[i].to)) check(path + "to.name", plan.links[i].to_name);
  }
  for (size_t i = 0; i < plan.restarts.size(); ++i)
    check("restarts[" + std::to_string(i) + "].instances", plan.restarts[i].instances);
  return problems;
}

}  // namespace foretoken
