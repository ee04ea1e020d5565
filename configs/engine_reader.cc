#include "configs/engine_reader.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "configs/step_table.h"
#include "configs/tables/embedded_tables.h"

namespace foretoken {
namespace {

constexpr std::pair<std::string_view, EngineAdapter> kAdapters[] = {{"emulated", EngineAdapter::kEmulated},
                                                                    {"vllm", EngineAdapter::kVllm},
                                                                    {"openai", EngineAdapter::kOpenai},
                                                                    {"llama", EngineAdapter::kLlama}};
constexpr std::pair<std::string_view, QueuePolicy> kQueuePolicies[] = {{"fcfs", QueuePolicy::kFcfs},
                                                                       {"priority", QueuePolicy::kPriority}};
constexpr std::pair<std::string_view, bool> kStops[] = {{"eos", true}, {"max_tokens", false}};

// What is believed of a real engine whose file states no step time: an 8B-class model on a data-centre GPU. The calibrator
// moves it to what the engine reports.
constexpr AffineStepTime::Coefficients kUnknownEngine{6.5e6, 45e3, 20e3, 30};

std::shared_ptr<const StepTimeLaw> ReadLaw(ConfigMap& parent) {
  const ConfigNode* node = parent.Find("step_law");
  if (node == nullptr) return nullptr;
  ConfigMap map(*node, parent.PathOf("step_law"), parent.sink());
  const size_t before = parent.sink().size();
  const auto nanos = [&map](std::string_view key, Duration least) -> double {
    // Read as a real number of nanoseconds: 0.5ns per KV token is a sensible value.
    const ConfigNode* n = map.Require(key);
    if (n == nullptr) return 0;
    return ReadNanos(*n, map.PathOf(key), least, map.sink()).value_or(0);
  };
  AffineStepTime::Coefficients c;
  c.step_ns = nanos("step", Duration::Nanos(1));
  c.prefill_token_ns = nanos("prefill_token", Duration());
  c.decode_seq_ns = nanos("decode_seq", Duration());
  c.kv_token_ns = nanos("kv_token", Duration());
  map.Finish();
  if (parent.sink().size() != before) return nullptr;
  return std::make_shared<const AffineStepTime>(c);
}

// vLLM's CUDA-graph capture sizes (vllm-scheduler.md, 1.1).
std::vector<int32_t> VllmGraphSizes(const EngineConfig& limits) {
  const int32_t most = std::min({2 * std::min(limits.max_num_seqs, 256), 512, limits.max_num_batched_tokens});
  std::vector<int32_t> sizes = {1, 2, 4};
  for (int32_t s = 8; s < 256; s += 8) sizes.push_back(s);
  for (int32_t s = 256; s <= 512; s += 16) sizes.push_back(s);
  sizes.erase(std::remove_if(sizes.begin(), sizes.end(), [most](int32_t s) { return s > most; }), sizes.end());
  return sizes;
}

// Step-time tables by file, or by the name of one that the program carries with it; each is read once.
class StepTables {
 public:
  explicit StepTables(const ConfigFiles& files) : files_(files) {}
  // nullptr after an error.
  std::shared_ptr<const StepTimeTable> Find(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink);

 private:
  const ConfigFiles& files_;
  std::map<std::string, std::shared_ptr<const StepTimeTable>> tables_;
};

std::shared_ptr<const StepTimeTable> StepTables::Find(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink) {
  std::string text;
  std::string name = node.scalar;
  const bool is_name = node.kind == ConfigNode::Kind::kScalar && name.find_first_of("/.") == std::string::npos;
  if (const std::optional<std::string_view> embedded = EmbeddedTableText(name); embedded) {
    text = *embedded;
  } else if (is_name || (node.kind == ConfigNode::Kind::kScalar && !name.ends_with(".csv"))) {
    std::vector<std::string_view> names;
    for (const EmbeddedTable& table : EmbeddedTables()) names.push_back(table.name);
    sink.Add(node, path, "must be a .csv file or a table that the program carries" + DidYouMean(name, names));
    return nullptr;
  } else {
    name = files_.Find(node, path, sink);
    if (name.empty()) return nullptr;
    Result<std::string> file = ReadConfigFile(name);
    if (!file.ok()) {
      sink.Add(node, path, file.error().message);
      return nullptr;
    }
    text = std::move(file).value();
  }
  if (const auto known = tables_.find(name); known != tables_.end()) return known->second;
  Result<StepTimeTable> table = ParseStepTable(text, name);
  if (!table.ok()) {
    sink.Add(node, path, table.error().message);
    return nullptr;
  }
  return tables_[name] = std::make_shared<const StepTimeTable>(std::move(table).value());
}

// One engine's entry.
class EngineReader {
 public:
  EngineReader(const ConfigNode& node, std::string name, const std::string& path, ConfigErrorSink& sink, StepTables& tables)
      : map_(node, path, sink), tables_(tables) {
    engine_.name = std::move(name);
  }

  EngineSpec Read(double step_factor) {
    if (map_.Require("kind") != nullptr) map_.Enum<EngineAdapter>("kind", kAdapters, engine_.adapter);
    emulated_ = engine_.adapter == EngineAdapter::kEmulated;
    ReadBehaviour();
    ReadLimits();
    ReadRules();
    ReadStepTime();
    ReadBlocks();
    CheckLimits();
    ReadPredictor(step_factor);
    map_.Finish();
    return std::move(engine_);
  }

 private:
  void ReadBehaviour() {
    std::vector<std::string> names;
    for (const std::string_view version : KnownVllmVersions()) names.push_back("vllm-" + std::string(version));
    names.push_back("sglang");
    const std::vector<std::string_view> views(names.begin(), names.end());
    engine_.behaviour = "vllm-0.32";
    const ConfigNode* node = map_.Find("behaviour");
    if (node != nullptr) {
      const std::optional<size_t> index = ReadName(*node, map_.PathOf("behaviour"), views, map_.sink());
      if (index) engine_.behaviour = names[*index];
    }
    if (engine_.behaviour == "sglang") {
      engine_.limits.kind = EngineKind::kSglang;
    } else {
      FT_CHECK(ApplyVllmVersion(engine_.behaviour, engine_.limits).ok());
    }
  }

  void ReadLimits() {
    EngineConfig& c = engine_.limits;
    map_.Int("max_num_seqs", {1, 65'536}, c.max_num_seqs);
    map_.Int("max_num_batched_tokens", {1, 1 << 24}, c.max_num_batched_tokens);
    map_.Int("max_model_len", {1, int64_t{1} << 32}, c.max_model_len);
    map_.Int("block_tokens", {1, 4'096}, c.block_size);
    map_.Bool("prefix_caching", c.prefix_caching);
    map_.Bool("chunked_prefill", c.chunked_prefill);
    c.async_scheduling = true;  // vLLM's default since 0.14
    map_.Bool("async_scheduling", c.async_scheduling);
    map_.Enum<QueuePolicy>("policy", kQueuePolicies, c.policy);
    c.stop_at_eos = true;
    if (emulated_) {
      map_.Enum<bool>("stop", kStops, c.stop_at_eos);
    } else {
      map_.Refuse("stop", "only an emulated engine has it; a real one stops where it stops");
    }
  }

  void ReadRules() {
    EngineConfig& c = engine_.limits;
    map_.Bool("reserve_full_isl", c.reserve_full_isl);
    map_.Real("watermark", {0, 0.5}, c.watermark);
    map_.Int("long_prefill_token_threshold", {0, 1 << 24}, c.long_prefill_token_threshold);
    map_.Bool("long_prefill_adaptive", c.long_prefill_adaptive);
    map_.Int("max_num_active_seqs", {1, 65'536}, c.max_num_active_seqs);
    map_.Int("prefill_schedule_interval", {1, 1'024}, c.prefill_schedule_interval);
  }

  void ReadStepTime() {
    map_.Time("host_overhead", {Duration(), Duration::Seconds(1)}, engine_.step_time.host_overhead);
    if (emulated_) {
      map_.Real("step_noise", {0, 1}, engine_.step_noise);
      ReadSlowdown();
    } else {
      map_.Refuse("slowdown", "only an emulated engine has it; a real one is as slow as it is");
      map_.Refuse("step_noise", "only an emulated engine has it; a real one brings its own");
    }
    map_.Time("ttft_offset", {Duration(), Duration::Seconds(10)}, engine_.ttft_offset);
    ReadGraphSizes();
    const std::shared_ptr<const StepTimeLaw> law = ReadLaw(map_);
    const ConfigNode* table = map_.Find("step_table");
    if (table != nullptr && map_.Has("step_law")) {
      map_.Fault("step_law", "step_table is given too; only one of them can hold");
    } else if (table == nullptr && !map_.Has("step_law") && emulated_) {
      map_.Fault("step_table", "is missing (or step_law): an emulated engine needs a step time");
    }
    if (table != nullptr) {
      engine_.step_table = table->scalar;
      table_ = tables_.Find(*table, map_.PathOf("step_table"), map_.sink());
      engine_.step_time.law = table_;
    } else {
      engine_.step_time.law = law;
    }
    if (engine_.step_time.law == nullptr) engine_.step_time.law = std::make_shared<const AffineStepTime>(kUnknownEngine);
    map_.Real("step_factor", {0, 100, true}, engine_.step_time.factor);
  }

  // `slowdown: { after_steps: 3000, factor: 2 }`.
  void ReadSlowdown() {
    const ConfigNode* node = map_.Find("slowdown");
    if (node == nullptr) return;
    ConfigMap map(*node, map_.PathOf("slowdown"), map_.sink());
    map.Require("after_steps");
    map.Int("after_steps", {0}, engine_.slow_from_step);
    map.Require("factor");
    map.Real("factor", {0, 1'000, true}, engine_.slow_factor);
    map.Finish();
  }

  void ReadGraphSizes() {
    const ConfigNode* node = map_.Find("graph_sizes");
    if (node == nullptr) return;
    std::vector<int32_t>& sizes = engine_.step_time.graph_sizes;
    if (node->kind == ConfigNode::Kind::kScalar) {
      constexpr std::pair<std::string_view, bool> kWords[] = {{"none", false}, {"vllm", true}};
      bool vllm = false;
      if (map_.Enum<bool>("graph_sizes", kWords, vllm) && vllm) sizes = VllmGraphSizes(engine_.limits);
      return;
    }
    for (const ConfigItem& item : ReadList(map_, "graph_sizes")) {
      const std::optional<int64_t> size = ReadInt(*item.node, item.path, {1, 65'536}, map_.sink());
      if (!size) continue;
      if (!sizes.empty() && *size <= sizes.back()) map_.sink().Add(*item.node, item.path, "sizes must ascend");
      sizes.push_back(static_cast<int32_t>(*size));
    }
  }

  void ReadBlocks() {
    EngineConfig& c = engine_.limits;
    if (map_.Int("kv_blocks", {2, 1 << 30}, c.num_gpu_blocks) || map_.Has("kv_blocks") || !emulated_) return;
    if (map_.Has("step_table") && table_ == nullptr) return;  // reported already
    const std::optional<std::string_view> capacity = table_ == nullptr ? std::nullopt : table_->Note("kv_capacity_tokens");
    const int64_t tokens = capacity ? std::atoll(std::string(*capacity).c_str()) : 0;
    const int64_t blocks = tokens / c.block_size;
    if (blocks >= 2) {
      c.num_gpu_blocks = static_cast<int32_t>(std::min<int64_t>(blocks, 1 << 30));
    } else {
      map_.Fault("kv_blocks", "is missing, and no step_table states a kv_capacity_tokens to take its place");
    }
  }

  void CheckLimits() {
    const EngineConfig& c = engine_.limits;
    if (c.max_num_batched_tokens < c.max_num_seqs) {
      map_.Fault("max_num_batched_tokens", "must be >= max_num_seqs (" + std::to_string(c.max_num_seqs) + ")");
    }
    if (!c.chunked_prefill && c.max_num_batched_tokens < c.max_model_len) {
      map_.Fault("chunked_prefill", "without it max_num_batched_tokens must be >= max_model_len (" +
                                        std::to_string(c.max_model_len) + "), or long prompts wait for ever");
    }
    if (c.max_num_active_seqs > c.max_num_seqs) {
      map_.Fault("max_num_active_seqs", "must be <= max_num_seqs (" + std::to_string(c.max_num_seqs) + ")");
    }
  }

  // What the predictors hold: the truth without its noise, but for what this section says.
  void ReadPredictor(double step_factor) {
    engine_.predictor_step_time = engine_.step_time;
    StepTimeModel& model = engine_.predictor_step_time;
    if (const ConfigNode* node = map_.Find("predictor"); node != nullptr) {
      ConfigMap map(*node, map_.PathOf("predictor"), map_.sink());
      const std::shared_ptr<const StepTimeLaw> law = ReadLaw(map);
      if (law != nullptr) model.law = law;
      if (const ConfigNode* table = map.Find("step_table"); table != nullptr) {
        if (map.Has("step_law")) map.Fault("step_law", "step_table is given too; only one of them can hold");
        const auto loaded = tables_.Find(*table, map.PathOf("step_table"), map.sink());
        if (loaded != nullptr) model.law = loaded;
      }
      map.Time("host_overhead", {Duration(), Duration::Seconds(1)}, model.host_overhead);
      double factor = 1;
      if (map.Real("step_factor", {0, 100, true}, factor)) model.factor *= factor;
      map.Finish();
    }
    model.factor *= step_factor;
  }

  ConfigMap map_;
  StepTables& tables_;
  EngineSpec engine_;
  bool emulated_ = true;
  std::shared_ptr<const StepTimeTable> table_;
};

}  // namespace

std::vector<EngineSpec> ReadEngines(ConfigMap& root, double step_factor, const ConfigFiles& files) {
  std::vector<EngineSpec> engines;
  StepTables tables(files);
  const ConfigNode* node = root.Require("engines");
  if (node == nullptr) return engines;
  const ConfigMap map(*node, "engines", root.sink());
  if (node->kind == ConfigNode::Kind::kMap && node->items.empty()) root.Fault("engines", "must have at least one engine");
  for (size_t i = 0; i < map.node().items.size(); ++i) {
    const std::string& name = map.node().keys[i];
    engines.push_back(EngineReader(map.node().items[i], name, "engines." + name, root.sink(), tables).Read(step_factor));
  }
  return engines;
}

}  // namespace foretoken
