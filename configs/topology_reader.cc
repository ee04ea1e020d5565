#include "configs/topology_reader.h"

#include <filesystem>
#include <utility>

#include "configs/config_reader.h"
#include "configs/engine_reader.h"
#include "configs/faults.h"
#include "configs/pool_reader.h"

namespace foretoken {
namespace {

constexpr DurationRange kAnyTime{Duration(), Duration::Seconds(86'400)};
constexpr DurationRange kPositive{Duration::Micros(1), Duration::Seconds(86'400)};

constexpr std::pair<std::string_view, PredictorKind> kPredictors[] = {{"reference", PredictorKind::kReference},
                                                                      {"pattern", PredictorKind::kPattern},
                                                                      {"pattern_reuse", PredictorKind::kPatternReuse},
                                                                      {"timeline", PredictorKind::kTimeline}};
constexpr std::pair<std::string_view, LengthEstimatorKind> kLengths[] = {{"oracle", LengthEstimatorKind::kOracle},
                                                                         {"max_tokens", LengthEstimatorKind::kMaxTokens},
                                                                         {"hint", LengthEstimatorKind::kHint},
                                                                         {"mean", LengthEstimatorKind::kMean},
                                                                         {"sampled", LengthEstimatorKind::kSampled}};
constexpr std::pair<std::string_view, Hosting> kHostings[] = {{"actor", Hosting::kActor}, {"shard", Hosting::kShard}};
constexpr std::pair<std::string_view, RepickRule> kRepicks[] = {{"versioned", RepickRule::kVersioned},
                                                                {"always_accept", RepickRule::kAlwaysAccept},
                                                                {"reject_on_any_change", RepickRule::kRejectOnAnyChange}};
constexpr std::pair<std::string_view, SyncLevel> kLevels[] = {
    {"none", SyncLevel::kNone}, {"poll", SyncLevel::kPoll}, {"aggregate", SyncLevel::kAggregate}, {"full", SyncLevel::kFull}};

// Policies that go by the SCHEDULER's own account.
constexpr std::string_view kPrefilters[] = {"lmetricw", "lmetric", "least_requests", "least_tokens"};

const ConfigNode& EmptyMap() {
  static const ConfigNode node{.kind = ConfigNode::Kind::kMap};
  return node;
}

// The section at `key`; absent: an empty one.
ConfigMap Section(ConfigMap& root, std::string_view key) {
  const ConfigNode* node = root.Find(key);
  return ConfigMap(node == nullptr ? EmptyMap() : *node, std::string(key), root.sink());
}

void ReadPredictor(ConfigMap& root, PredictorSpec& out, double& step_factor) {
  ConfigMap map = Section(root, "predictor");
  map.Enum<PredictorKind>("kind", kPredictors, out.kind);
  map.Enum<LengthEstimatorKind>("length_estimator", kLengths, out.length_estimator);
  map.Bool("expected_arrivals", out.expected_arrivals);
  map.Bool("calibrate", out.calibrate);
  map.Bool("demote", out.demote);
  map.Real("step_factor", {0, 100, true}, step_factor);
  map.Real("inject_error", {0, 10}, out.inject_error);
  map.Real("inject_bias", {-1, 100, true}, out.inject_bias);
  map.Finish();
}

void ReadWeights(ConfigMap& parent, PolicyWeights& out) {
  const ConfigNode* node = parent.Find("weights");
  if (node == nullptr) return;
  ConfigMap map(*node, parent.PathOf("weights"), parent.sink());
  map.Real("slo_latency", {0, 1e6}, out.slo_latency_weight);
  map.Time("slo_ttft_guard", kAnyTime, out.slo_ttft_guard);
  map.Real("auto_tail", {0, 1e6}, out.auto_tail);
  map.Real("hybrid_load", {0, 1e6}, out.hybrid_load_weight);
  map.Real("hybrid_prefill", {0, 1e6}, out.hybrid_prefill_weight);
  const std::pair<std::string_view, double*> simple[] = {{"prefix_queue", &out.prefix_queue},
                                                         {"prefix_kv", &out.prefix_kv},
                                                         {"prefix_missing", &out.prefix_missing},
                                                         {"kv_router_prefill", &out.kv_router_prefill},
                                                         {"lmetricw_output", &out.lmetricw_output},
                                                         {"lwl_output", &out.lwl_output},
                                                         {"v0_steps", &out.v0_steps},
                                                         {"affinity_bound", &out.affinity_bound},
                                                         {"cache_gap", &out.cache_gap},
                                                         {"cache_ratio", &out.cache_ratio}};
  for (const auto& [key, value] : simple) map.Real(key, {0, 1e6}, *value);
  map.Finish();
}

void ReadScheduler(ConfigMap& root, SchedulerSpec& out) {
  ConfigMap map = Section(root, "scheduler");
  map.Int("count", {1, 1'024}, out.count);
  if (const ConfigNode* node = map.Find("policy"); node != nullptr) {
    const std::vector<std::string_view> policies = KnownPolicies();
    const std::optional<size_t> index = ReadName(*node, map.PathOf("policy"), policies, map.sink());
    if (index) out.policy = std::string(policies[*index]);
  }
  ReadWeights(map, out.weights);
  map.Time("decision_deadline", kPositive, out.decision_deadline);
  map.Enum<Hosting>("hosting", kHostings, out.hosting);
  if (map.Has("shard_size") && out.hosting != Hosting::kShard) {
    map.Refuse("shard_size", "has a meaning with hosting: shard only");
  } else {
    map.Int("shard_size", {1, 65'536}, out.shard_size);
  }
  map.Enum<RepickRule>("repick", kRepicks, out.repick);
  map.Int("predict_max", {1, 65'536}, out.predict_max);
  if (const ConfigNode* node = map.Find("prefilter"); node != nullptr) {
    if (!map.Has("predict_max")) map.Refuse("prefilter", "has a meaning with predict_max only");
    const std::vector<std::string_view> names(std::begin(kPrefilters), std::end(kPrefilters));
    const std::optional<size_t> index = ReadName(*node, map.PathOf("prefilter"), names, map.sink());
    if (index) out.prefilter = std::string(names[*index]);
  }
  map.Int("retry_max", {0, 100}, out.retry_max);
  map.Int("retry_max_crash", {0, 100}, out.retry_max_crash);
  map.Real("shed_above", {0, 1}, out.shed_above);
  map.Int("shed_priority", {-1'000'000, 1'000'000}, out.shed_priority);
  map.Finish();
}

// `level: full`, or with the interval of polling: `level: { poll: 100ms }` or, as on the command line, `level: poll:100ms`.
void ReadLevel(ConfigMap& map, SyncSpec& out) {
  const ConfigNode* node = map.Find("level");
  if (node == nullptr) return;
  const std::string path = map.PathOf("level");
  if (node->kind == ConfigNode::Kind::kMap) {
    ConfigMap poll(*node, path, map.sink());
    poll.Require("poll");
    poll.Time("poll", {Duration::Millis(1), Duration::Seconds(3'600)}, out.poll_interval);
    poll.Finish();
    out.level = SyncLevel::kPoll;
  } else if (node->scalar.starts_with("poll:")) {
    ConfigNode interval = *node;
    interval.scalar = node->scalar.substr(5);
    interval.quoted = false;
    const std::optional<Duration> d =
        ReadDuration(interval, path + ".poll", {Duration::Millis(1), Duration::Seconds(3'600)}, map.sink());
    if (d) out.poll_interval = *d;
    out.level = SyncLevel::kPoll;
  } else {
    map.Enum<SyncLevel>("level", kLevels, out.level);
  }
}

void ReadSync(ConfigMap& root, SyncSpec& out) {
  ConfigMap map = Section(root, "sync");
  ReadLevel(map, out);
  map.Time("gap_timeout", kPositive, out.sequencer.gap_timeout);
  map.Time("resync_retry", kPositive, out.sequencer.resync_retry);
  map.Int("reorder_window_messages", {1, 65'536}, out.sequencer.window_messages);
  map.Time("stale_after", kPositive, out.stale_after);
  if (map.Time("dead_after", kPositive, out.dead_after) || map.Has("stale_after")) {
    if (out.dead_after < out.stale_after) map.Fault("dead_after", "must be >= stale_after");
  }
  map.Time("confirm_timeout", kPositive, out.confirm_timeout);
  const bool beats = map.Time("heartbeat", kPositive, out.heartbeat);
  if ((beats || map.Has("stale_after")) && out.heartbeat >= out.stale_after)
    map.Fault("heartbeat", "must be < stale_after, or every idle instance looks stale");
  map.Bool("exact_snapshots", out.exact_snapshots);
  map.Finish();
}

std::optional<Address> ReadAddress(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink) {
  const size_t colon = node.scalar.rfind(':');
  if (node.kind == ConfigNode::Kind::kScalar && colon != std::string::npos && colon > 0) {
    const std::string port = node.scalar.substr(colon + 1);
    const bool digits = !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
    const int number = digits ? std::stoi(port) : -1;
    if (number >= 0 && number <= 65'535) return Address{node.scalar.substr(0, colon), static_cast<uint16_t>(number)};
  }
  sink.Add(node, path, "must be host:port, such as 127.0.0.1:7400 (port 0: any free one)");
  return std::nullopt;
}

bool ReadAddress(ConfigMap& map, std::string_view key, Address& out) {
  const ConfigNode* node = map.Find(key);
  const std::optional<Address> address = node == nullptr ? std::nullopt : ReadAddress(*node, map.PathOf(key), map.sink());
  if (address) out = *address;
  return address.has_value();
}

// Who hosts what; every instance once.
class NodesReader {
 public:
  NodesReader(ConfigMap& root, Topology& topology)
      : root_(root), topology_(topology), engine_hosts_(topology.instances.size()), mirror_hosts_(topology.instances.size()) {}

  void Read() {
    if (root_.Find("nodes") == nullptr) return;
    const std::vector<ConfigItem> items = ReadList(root_, "nodes");
    for (const ConfigItem& item : items) ReadNode(item);
    if (items.empty() || unsure_) return;
    const std::string orphans = Unhosted(engine_hosts_), unmirrored = Unhosted(mirror_hosts_);
    if (!orphans.empty()) Missing("no node hosts " + orphans);
    if (orphans.empty() && !unmirrored.empty()) Missing("no node hosts the simulator of " + unmirrored);
    bool scheduler = false, gateway = false;
    for (const NodeSpec& node : topology_.nodes) {
      scheduler |= node.scheduler;
      gateway |= node.gateway;
    }
    if (!scheduler) Missing("no node hosts the scheduler");
    if (!gateway && root_.Has("gateway")) Missing("no node hosts the gateway");
  }

 private:
  void Missing(const std::string& what) { root_.sink().Add(root_.node().Find("nodes")->at, "nodes", "nodes: " + what); }

  std::string Unhosted(const std::vector<std::string>& hosts) const {
    std::string names;
    for (size_t i = 0; i < hosts.size(); ++i)
      if (hosts[i].empty()) names += (names.empty() ? "" : ", ") + topology_.instances[i].instance.name;
    return names;
  }

  void ReadNode(const ConfigItem& item) {
    ConfigMap map(*item.node, item.path, root_.sink());
    NodeSpec node;
    map.Require("name");
    map.Text("name", node.name);
    map.Require("listen");
    ReadAddress(map, "listen", node.listen);
    for (const NodeSpec& other : topology_.nodes) {
      if (other.name == node.name && !node.name.empty()) map.Fault("name", "another node has this name");
      if (other.listen == node.listen && node.listen.port != 0)
        map.Fault("listen", "node " + other.name + " listens there too");
    }
    map.Require("hosts");
    for (const ConfigItem& host : ReadList(map, "hosts")) ReadHost(host, node);
    map.Finish();
    topology_.nodes.push_back(std::move(node));
  }

  void ReadHost(const ConfigItem& item, NodeSpec& node) {
    const std::optional<std::string> name = ReadText(*item.node, item.path, root_.sink());
    if (!name) {
      unsure_ = true;
    } else if (*name == "scheduler") {
      node.scheduler = true;
    } else if (*name == "gateway") {
      node.gateway = true;
    } else if (name->starts_with(kEngineOnly)) {
      HostParts(name->substr(kEngineOnly.size()), item, node, true, false);
    } else if (name->starts_with(kSimulatorOnly)) {
      HostParts(name->substr(kSimulatorOnly.size()), item, node, false, true);
    } else {
      HostParts(*name, item, node, true, true);
    }
  }

  void HostParts(const std::string& pattern, const ConfigItem& item, NodeSpec& node, bool engine, bool simulator) {
    if (!HostInstances(pattern, item, node, engine, simulator)) {
      unsure_ = true;
      const std::vector<std::string> instances = topology_.InstanceNames();
      std::vector<std::string_view> names = {"scheduler", "gateway"};
      names.insert(names.end(), instances.begin(), instances.end());
      root_.sink().Add(*item.node, item.path,
                       "must be scheduler, gateway or an instance ('*' and '?' allowed)" + DidYouMean(pattern, names));
    }
  }

  // False when the pattern names no instance.
  bool HostInstances(const std::string& pattern, const ConfigItem& item, NodeSpec& node, bool engine, bool simulator) {
    bool any = false;
    for (const InstanceSpec& spec : topology_.instances) {
      if (!MatchesPattern(pattern, spec.instance.name)) continue;
      any = true;
      if (engine && Take(engine_hosts_, spec, item, node, "")) node.instances.push_back(spec.instance.id);
      if (simulator && Take(mirror_hosts_, spec, item, node, engine ? nullptr : "the simulator of "))
        node.simulators.push_back(spec.instance.id);
    }
    return any;
  }

  // `part`: what a complaint calls it; null: it has been complained of already.
  bool Take(std::vector<std::string>& hosts, const InstanceSpec& spec, const ConfigItem& item, const NodeSpec& node,
            const char* part) {
    std::string& host = hosts[spec.instance.id.value()];
    if (!host.empty()) {
      if (part != nullptr)
        root_.sink().Add(*item.node, item.path, part + spec.instance.name + " is hosted by node " + host + " already");
      return false;
    }
    host = node.name.empty() ? item.path : node.name;
    return true;
  }

  ConfigMap& root_;
  Topology& topology_;
  static constexpr std::string_view kEngineOnly = "engine:", kSimulatorOnly = "simulator:";
  std::vector<std::string> engine_hosts_, mirror_hosts_;  // per instance, the node's name
  bool unsure_ = false;  // an entry could not be understood: do not complain of what it may have meant
};

void ReadTls(ConfigMap& root, std::optional<TlsSpec>& out, const ConfigFiles& files) {
  const ConfigNode* node = root.Find("tls");
  if (node == nullptr) return;
  ConfigMap map(*node, "tls", root.sink());
  const auto file = [&map, &files](std::string_view key) -> std::string {
    const ConfigNode* path = map.Require(key);
    return path == nullptr ? "" : files.Find(*path, map.PathOf(key), map.sink());
  };
  out = TlsSpec{file("certificate"), file("key"), file("ca")};
  map.Finish();
}

void ReadGateway(ConfigMap& root, std::optional<GatewaySpec>& out, const ConfigFiles& files) {
  const ConfigNode* node = root.Find("gateway");
  if (node == nullptr) return;
  ConfigMap map(*node, "gateway", root.sink());
  GatewaySpec g;
  ReadAddress(map, "listen", g.listen);
  Address admin;
  if (ReadAddress(map, "admin", admin)) {
    g.admin = admin;
    if (admin == g.listen && admin.port != 0) map.Fault("admin", "the gateway listens there itself");
  }
  map.Time("request_timeout", kPositive, g.request_timeout);
  map.Bytes("max_payload", {1'024, int64_t{1} << 32}, g.max_payload_bytes);
  map.Int("max_concurrent_requests", {1, 1 << 24}, g.max_concurrent_requests);
  map.Int("queue_size", {0, 1 << 24}, g.queue_size);
  map.Time("queue_timeout", kPositive, g.queue_timeout);
  map.Time("header_timeout", kPositive, g.header_timeout);
  map.Time("idle_timeout", kPositive, g.idle_timeout);
  if (const ConfigNode* key = map.Find("api_key_file"); key != nullptr)
    g.api_key_file = files.Find(*key, map.PathOf("api_key_file"), map.sink());
  if (const ConfigNode* list = map.Find("workers_file"); list != nullptr)
    g.workers_file = files.Find(*list, map.PathOf("workers_file"), map.sink());
  map.Text("workers_dns", g.workers_dns);
  map.Time("dns_interval", kPositive, g.dns_interval);
  if (map.Has("request_id_headers")) g.request_id_headers = ReadTexts(map, "request_id_headers");
  map.Finish();
  out = std::move(g);
}

void ReadFaults(ConfigMap& root, Topology& topology, const ConfigFiles& files) {
  const ConfigNode* node = root.Find("faults");
  if (node == nullptr) return;
  const std::string path = files.Find(*node, "faults", root.sink());
  if (path.empty()) return;
  ConfigResult<FaultPlan> plan = LoadFaultPlan(path);
  if (!plan.ok()) {
    for (const ConfigError& e : plan.errors().errors) root.sink().Add(*node, "faults", e.ToString());
    return;
  }
  for (const std::string& problem : UnmatchedPatterns(*plan, topology.InstanceNames()))
    root.sink().Add(*node, "faults", problem);
  topology.faults = std::move(plan).value();
}

// Below level full nobody sees first tokens, and there is no TTFT to judge a predictor by.
void CheckDemotion(ConfigMap& root, const Topology& topology) {
  if (!topology.predictor.demote || topology.sync.level == SyncLevel::kFull) return;
  Section(root, "predictor").Fault("demote", "needs sync.level: full, which alone reports first tokens to judge by");
}

}  // namespace

ConfigResult<Topology> ParseTopology(std::string_view text, std::string_view file_name,
                                     const std::vector<std::string>& overrides, const std::string& base_dir) {
  ConfigErrorSink sink(file_name, overrides);
  const ConfigNode tree = ReadConfigTree(text, sink);
  if (!sink.empty()) return sink.Take();
  Topology topology;
  topology.file = std::string(file_name);
  ConfigFiles files(base_dir);
  ConfigMap root(tree, "", sink);
  int64_t version = 1;
  root.Int("version", {1, 1}, version);
  ReadSlo(root, topology.slo);
  double step_factor = 1;
  ReadPredictor(root, topology.predictor, step_factor);
  topology.engines = ReadEngines(root, step_factor, files);
  ReadPools(root, topology);
  ReadScheduler(root, topology.scheduler);
  ReadSync(root, topology.sync);
  CheckDemotion(root, topology);
  NodesReader(root, topology).Read();
  ReadTls(root, topology.tls, files);
  ReadGateway(root, topology.gateway, files);
  ReadFaults(root, topology, files);
  root.Int("seed", {0}, topology.seed);
  root.Finish();
  if (!sink.empty()) return sink.Take();
  return topology;
}

ConfigResult<Topology> LoadTopology(const std::string& path, const std::vector<std::string>& overrides) {
  const Result<std::string> text = ReadConfigFile(path);
  if (!text.ok()) return ConfigErrors{{ConfigError{path, "", text.error().message}}};
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return ParseTopology(*text, path, overrides, folder);
}

}  // namespace foretoken
