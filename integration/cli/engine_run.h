// One engine alone over a trace, in virtual time, printed as the executable specification prints it: a line per executed step
// in the order of completion, then a line per request.
// Times are doubles in seconds, computed in the specification's order of operations: equal output to the last character is
// the point. Everything else in the project counts integer nanoseconds (EmulatedEngine).
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "integration/engines/vllm/engine_trace.h"
#include "runtime/base/result.h"
#include "runtime/engine/engine_core.h"

namespace foretoken {

struct EngineRunOptions {
  // Seconds of one step: step_s + prefill_token_s * prefill tokens + decode_seq_s * decode sequences + kv_token_s * KV tokens.
  double step_s = 0.004;
  double prefill_token_s = 0.00003;
  double decode_seq_s = 0.00005;
  double kv_token_s = 0.00000002;
  double cpu_s = 0;         // cost of composing a batch, before its dispatch
  double idle_sleep_s = 0;  // vLLM's engine loop sleeps 0.001 here
  int64_t hash_block_tokens = 16;
  int64_t max_iterations = 2'000'000;  // turns of the engine's loop
  bool print_blocks = false;           // physical ids of the KV blocks that each step takes
  bool print_empty = false;            // steps without a token, too
};

enum class EngineRunEnd : uint8_t { kDone, kStuck, kMaxIterations };

// Receives each line without its newline.
using LineSink = std::function<void(std::string_view)>;

// Error: a request that the engine refuses; names it.
Result<EngineRunEnd> RunEngineAlone(EngineCore& core, const std::vector<EngineTraceRow>& rows, const TokenNames& names,
                                    const EngineRunOptions& options, const LineSink& sink);

}  // namespace foretoken
