#include "integration/engines/openai/engine_facts.h"

#include <boost/json.hpp>
#include <charconv>
#include <cmath>

namespace foretoken {
namespace {

namespace json = boost::json;

// `name="..."` among a sample's labels.
std::optional<std::string_view> Label(std::string_view labels, std::string_view name) {
  for (size_t at = labels.find(name); at != std::string_view::npos; at = labels.find(name, at + 1)) {
    const bool starts = at == 0 || labels[at - 1] == ',' || labels[at - 1] == '{' || labels[at - 1] == ' ';
    const std::string_view rest = labels.substr(at + name.size());
    if (!starts || rest.substr(0, 2) != "=\"") continue;
    return rest.substr(2, rest.find('"', 2) - 2);
  }
  return std::nullopt;
}

std::optional<int64_t> WholeNumber(std::optional<std::string_view> text) {
  int64_t value = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc() || value <= 0)
    return std::nullopt;
  return value;
}

void Sum(std::optional<double>& into, double value) { into = into.value_or(0) + value; }

void ReadSample(std::string_view name, std::string_view labels, double value, EngineMetrics& m) {
  if (name == "vllm:num_requests_running" || name == "sglang:num_running_reqs" || name == "llamacpp:requests_processing") {
    Sum(m.running, value);
  } else if (name == "vllm:num_requests_waiting" || name == "sglang:num_queue_reqs" || name == "llamacpp:requests_deferred") {
    Sum(m.waiting, value);
  } else if (name == "vllm:gpu_cache_usage_perc" || name == "vllm:kv_cache_usage_perc" || name == "sglang:token_usage" ||
             name == "llamacpp:kv_cache_usage_ratio") {
    m.kv_used = value;
  } else if (name == "vllm:cache_config_info") {
    m.kv_blocks = WholeNumber(Label(labels, "num_gpu_blocks"));
    m.block_tokens = WholeNumber(Label(labels, "block_size"));
  } else if (name == "sglang:max_total_num_tokens") {
    m.kv_blocks = static_cast<int64_t>(value);
    m.block_tokens = 1;
  }
}

}  // namespace

Result<EngineModels> ReadModels(std::string_view text) {
  json::error_code ec;
  const json::value v = json::parse(json::string_view(text.data(), text.size()), ec);
  const json::value* data = ec || !v.is_object() ? nullptr : v.as_object().if_contains("data");
  if (data == nullptr || !data->is_array()) return Error{"/v1/models: not an object with a list \"data\""};
  EngineModels models;
  for (const json::value& item : data->as_array()) {
    const json::value* id = item.is_object() ? item.as_object().if_contains("id") : nullptr;
    if (id == nullptr || !id->is_string()) continue;
    models.names.emplace_back(id->as_string());
    const json::value* length = item.as_object().if_contains("max_model_len");
    if (length != nullptr && length->is_int64()) models.max_model_len = length->as_int64();
    const json::value* meta = item.as_object().if_contains("meta");  // llama.cpp's
    const json::value* context = meta != nullptr && meta->is_object() ? meta->as_object().if_contains("n_ctx") : nullptr;
    if (context != nullptr && context->is_int64()) models.max_model_len = context->as_int64();
  }
  return models;
}

EngineMetrics ReadMetrics(std::string_view text) {
  EngineMetrics m;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty() || line[0] == '#') continue;
    const size_t brace = line.find('{');
    const size_t close = brace == std::string_view::npos ? std::string_view::npos : line.rfind('}');
    const size_t name_end = std::min(brace, line.find(' '));
    if (name_end == std::string_view::npos) continue;
    const std::string_view labels =
        close == std::string_view::npos ? std::string_view() : line.substr(brace, close - brace + 1);
    std::string_view rest = line.substr(close == std::string_view::npos ? name_end : close + 1);
    while (!rest.empty() && rest[0] == ' ') rest.remove_prefix(1);
    double value = 0;
    if (std::from_chars(rest.data(), rest.data() + rest.size(), value).ec != std::errc() || !std::isfinite(value)) continue;
    ReadSample(line.substr(0, name_end), labels, value, m);
  }
  return m;
}

}  // namespace foretoken
