// What an OpenAI-compatible engine says of itself: /v1/models and /metrics (vLLM, SGLang, llama.cpp). Pure: text in, facts out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

struct EngineModels {
  std::vector<std::string> names;
  int64_t max_model_len = 0;  // 0: not stated
};

// Error: not a model list.
Result<EngineModels> ReadModels(std::string_view json);

// Absent: not exported.
struct EngineMetrics {
  std::optional<double> running, waiting;  // requests
  std::optional<double> kv_used;           // share of the KV cache, 0..1
  std::optional<int64_t> kv_blocks;        // in all
  std::optional<int64_t> block_tokens;
  std::optional<int64_t> max_num_seqs;
};

EngineMetrics ReadMetrics(std::string_view prometheus_text);

}  // namespace foretoken
