#include "configs/pool_reader.h"

#include <algorithm>
#include <map>

namespace foretoken {
namespace {

constexpr std::pair<std::string_view, InstanceRole> kRoles[] = {
    {"both", InstanceRole::kBoth}, {"prefill", InstanceRole::kPrefill}, {"decode", InstanceRole::kDecode}};

constexpr int64_t kInstancesMax = 4'096;  // four times what the decision benchmark asks for

// http://host[:port] or https://host[:port], without a path: adapters append /v1/...
bool IsBaseUrl(const std::string& url) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!url.starts_with(scheme)) continue;
    const std::string_view rest = std::string_view(url).substr(scheme.size());
    return !rest.empty() && rest.front() != ':' && rest.find_first_of("/?# ") == std::string_view::npos;
  }
  return false;
}

class PoolReader {
 public:
  PoolReader(ConfigMap& root, Topology& topology) : root_(root), sink_(root.sink()), topology_(topology) {}

  void Read() {
    const ConfigNode* list = root_.Require("pools");
    const std::vector<ConfigItem> items = ReadList(root_, "pools");
    if (list != nullptr && list->kind == ConfigNode::Kind::kList && items.empty())
      root_.Fault("pools", "must have at least one pool");
    for (const ConfigItem& item : items) ReadPool(item);
  }

 private:
  void ReadPool(const ConfigItem& item) {
    ConfigMap map(*item.node, item.path, sink_);
    Pool pool;
    map.Require("name");
    if (map.Text("name", pool.name)) {
      for (const Pool& other : topology_.pools)
        if (other.name == pool.name) map.Fault("name", "another pool has this name");
    }
    map.Require("models");
    for (const std::string& name : ReadTexts(map, "models")) pool.models.push_back(Model(name));
    if (map.Has("models") && pool.models.empty()) map.Fault("models", "must name at least one model");
    pool.slo = topology_.slo;
    ReadSlo(map, pool.slo);
    topology_.pools.push_back(std::move(pool));
    map.Require("instances");
    const std::vector<ConfigItem> entries = ReadList(map, "instances");
    for (const ConfigItem& entry : entries) ReadInstances(entry);
    if (map.Has("instances") && entries.empty()) map.Fault("instances", "must have at least one instance");
    CheckRoles(map);
    map.Finish();
  }

  // One entry: one instance, or `count` of them, or one per endpoint and data-parallel rank.
  void ReadInstances(const ConfigItem& entry) {
    ConfigMap map(*entry.node, entry.path, sink_);
    std::string id;
    map.Require("id");
    map.Text("id", id);
    const std::optional<uint32_t> engine = ReadEngine(map);
    const EngineSpec* spec = engine ? &topology_.engines[*engine] : nullptr;
    int64_t count = 1, ranks = 1;
    const bool counted = map.Int("count", {1, kInstancesMax}, count);
    const bool ranked = map.Int("data_parallel", {1, 1'024}, ranks);
    std::vector<std::string> endpoints = ReadEndpoints(map, spec);
    if (endpoints.empty()) endpoints.resize(static_cast<size_t>(count));
    if (counted && map.Has("endpoint") && count != static_cast<int64_t>(endpoints.size()))
      map.Fault("count", "endpoint lists " + std::to_string(endpoints.size()) + "; leave count out or make them equal");
    Instance instance;
    map.Enum<InstanceRole>("role", kRoles, instance.role);
    for (const std::string& name : ReadTexts(map, "adapters")) instance.adapters.push_back(Model(name));
    map.Finish();
    if (id.empty() || spec == nullptr) return;
    const bool numbered = counted || ranked || endpoints.size() > 1;
    int64_t number = 0;
    for (const std::string& endpoint : endpoints) {
      for (int64_t rank = 0; rank < ranks; ++rank, ++number) {
        instance.name = numbered ? id + "-" + std::to_string(number) : id;
        instance.endpoint = endpoint;
        instance.dp_rank = static_cast<uint32_t>(rank);
        if (!Add(instance, *engine, map)) return;
      }
    }
  }

  std::optional<uint32_t> ReadEngine(ConfigMap& map) {
    const ConfigNode* node = map.Require("engine");
    if (node == nullptr || topology_.engines.empty()) return std::nullopt;
    std::vector<std::string_view> names;
    for (const EngineSpec& engine : topology_.engines) names.push_back(engine.name);
    const std::optional<size_t> index = ReadName(*node, map.PathOf("engine"), names, sink_);
    if (!index) return std::nullopt;
    return static_cast<uint32_t>(*index);
  }

  std::vector<std::string> ReadEndpoints(ConfigMap& map, const EngineSpec* engine) {
    if (engine != nullptr && engine->adapter == EngineAdapter::kEmulated) {
      map.Refuse("endpoint", "an emulated engine has none; it runs in the process that hosts it");
      return {};
    }
    if (engine != nullptr) map.Require("endpoint");
    std::vector<std::string> endpoints = ReadTexts(map, "endpoint");
    for (const std::string& endpoint : endpoints) {
      if (!IsBaseUrl(endpoint))
        map.Fault("endpoint", "\"" + endpoint + "\" must be a URL without a path, such as http://10.0.0.5:8000");
      if (std::count(endpoints.begin(), endpoints.end(), endpoint) > 1) {
        map.Fault("endpoint", "\"" + endpoint + "\" is listed twice");
        break;
      }
    }
    return endpoints;
  }

  // False when there are too many.
  bool Add(Instance instance, uint32_t engine, ConfigMap& map) {
    const auto [first, fresh] = paths_.emplace(instance.name, map.path());
    if (!fresh) {
      map.Fault("id", "instance \"" + instance.name + "\" exists already (" + first->second + ")");
      return false;
    }
    if (topology_.instances.size() >= static_cast<size_t>(kInstancesMax)) {
      map.Fault("id", "more than " + std::to_string(kInstancesMax) + " instances");
      return false;
    }
    Pool& pool = topology_.pools.back();
    const EngineSpec& spec = topology_.engines[engine];
    instance.id = InstanceId(static_cast<uint32_t>(topology_.instances.size()));
    instance.pool = static_cast<uint32_t>(topology_.pools.size() - 1);
    instance.models = pool.models;
    instance.max_model_len = spec.limits.max_model_len;
    instance.kv_tokens = spec.kv_tokens();
    pool.instances.push_back(instance.id);
    topology_.instances.push_back({std::move(instance), engine});
    return true;
  }

  // A pool that splits the work needs both halves.
  void CheckRoles(ConfigMap& map) {
    bool prefill = false, decode = false;
    for (const InstanceId id : topology_.pools.back().instances) {
      const InstanceRole role = topology_.instances[id.value()].instance.role;
      prefill |= role != InstanceRole::kDecode;
      decode |= role != InstanceRole::kPrefill;
    }
    if (prefill == decode) return;  // both, or no instance at all, which is reported elsewhere
    map.Fault("instances", std::string("no instance of this pool does the ") + (prefill ? "decode" : "prefill") + " part");
  }

  ModelId Model(const std::string& name) {
    if (const std::optional<ModelId> known = topology_.FindModel(name)) return *known;
    topology_.models.push_back(name);
    return ModelId(static_cast<uint32_t>(topology_.models.size() - 1));
  }

  ConfigMap& root_;
  ConfigErrorSink& sink_;
  Topology& topology_;
  std::map<std::string, std::string> paths_;  // instance name -> path of its entry
};

}  // namespace

void ReadPools(ConfigMap& root, Topology& topology) { PoolReader(root, topology).Read(); }

void ReadSlo(ConfigMap& parent, Slo& slo) {
  const ConfigNode* node = parent.Find("slo");
  if (node == nullptr) return;
  ConfigMap map(*node, parent.PathOf("slo"), parent.sink());
  map.Time("ttft", {Duration::Micros(1)}, slo.ttft);
  map.Time("tpot", {Duration::Micros(1)}, slo.tpot);
  map.Finish();
}

}  // namespace foretoken
