// EngineConfig: the limits and scheduling rules of one engine, with vLLM's names. Version names select the behaviours that
// changed between vLLM releases (vllm-scheduler.md, "Version switches" and "Newer versions").
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

enum class EngineKind : uint8_t { kVllm, kSglang };
enum class QueuePolicy : uint8_t { kFcfs, kPriority };
enum class FreeListRule : uint8_t { kUnhashedToFront, kAppend };

struct EngineConfig {
  EngineKind kind = EngineKind::kVllm;
  int32_t max_num_seqs = 256;
  int32_t max_num_batched_tokens = 8192;
  int32_t num_gpu_blocks = 4096;  // vLLM's count: includes block 0, the null block; usable = this - 1
  int32_t block_size = 16;        // tokens
  int64_t max_model_len = 131072;
  bool prefix_caching = true;
  bool chunked_prefill = true;
  bool async_scheduling = false;
  bool reserve_full_isl = true;
  QueuePolicy policy = QueuePolicy::kFcfs;
  FreeListRule free_list = FreeListRule::kUnhashedToFront;
  int32_t long_prefill_token_threshold = 0;  // 0: off
  bool long_prefill_adaptive = false;
  bool lone_long_prefill_full = false;  // 0.32: the threshold is off while running + waiting <= 1
  int32_t max_num_active_seqs = 0;      // 0: max_num_seqs
  bool self_preempt_continues = false;  // 0.33
  int32_t prefill_schedule_interval = 1;
  double watermark = 0;  // fraction of num_gpu_blocks
  // true: the engine learns the end of a request from an end-of-sequence token (at its true output length), so max_tokens does
  // not tell it the length; false: requests run to their max_tokens (= true output length).
  bool stop_at_eos = false;
};

// Sets the version-dependent rules of `version`: "2026-01", "2026-05", "0.19", "2026-08", "0.32", "0.33" (a leading "vllm-" is accepted).
// Error: names the known versions.
Status ApplyVllmVersion(std::string_view version, EngineConfig& config);
std::vector<std::string_view> KnownVllmVersions();
// As a server states its version: "0.32.0" has the rules of 0.32, one that is not known those of the newest that is. Returns whose.
std::string_view ApplyRulesOfServer(std::string_view version, EngineConfig& config);

}  // namespace foretoken
