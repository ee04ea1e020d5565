// StreamMessage: one message of an INSTANCE's sync stream. A stream is (instance, source, epoch); every message of it carries
// seq = 0, 1, 2, ... so that the loss of any of them shows as a gap. Times are on the engine's clock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/batch_trace.h"
#include "runtime/model/snapshot.h"

namespace foretoken {

// First message of an epoch: the engine's limits.
struct Hello {
  int32_t max_num_batched_tokens = 0;
  int32_t max_num_seqs = 0;
  int32_t block_tokens = 0;
  int64_t kv_blocks = 0;
  bool prefix_caching = false;
  bool async_scheduling = false;
  bool priority_policy = false;            // the waiting queue is ordered by priority; else first come, first served
  int64_t max_model_len = 0;               // 0: not stated
  std::string engine = {};                 // "vllm", "sglang", "llama", "openai", "emulated"
  std::string version = {};                // as the engine states it
  std::vector<std::string> features = {};  // in use and not modelled: "spec_decode", "structured_output", "lora", ...
  // What else decides vLLM's schedule (EngineConfig).
  bool chunked_prefill = true;
  bool reserve_full_isl = true;
  bool long_prefill_adaptive = false;
  int32_t max_num_active_seqs = 0;
  int32_t long_prefill_token_threshold = 0;
  double watermark = 0;
  bool operator==(const Hello&) const = default;
};

// The engine took a request in; these come in the order in which it did, which may differ from the order of assignment.
struct Arrived {
  RequestId request;
  Instant at;
  int64_t prompt_tokens = 0;
  int64_t max_tokens = 0;
  int32_t priority = 0;
  std::vector<BlockHash> block_hashes;
  int64_t order_ns =
      0;  // when its front end took it in (wall clock): among equal priorities the earlier one goes first; 0: not known
  bool structured = false;  // its output is constrained by a grammar
  bool operator==(const Arrived&) const = default;
};

// A request left the engine between two steps (client disconnect, stop string).
struct Aborted {
  RequestId request;
  Instant at;
  bool operator==(const Aborted&) const = default;
};

// A request that ends had filled blocks beyond those that its prompt fills alone. A later prompt that goes on from its output has these
// hashes. Comes before the message that says that it has ended.
struct BlocksHashed {
  RequestId request;
  Instant at;
  std::vector<BlockHash> block_hashes;  // behind those of its Arrived
  bool operator==(const BlocksHashed&) const = default;
};

// Sent at an interval even when idle.
struct Heartbeat {
  Instant at;
  uint64_t last_seq = 0;  // of the message before this one
  int32_t held = 0;       // requests in the engine
  bool step_in_flight = false;
  Instant in_flight_since;
  // The answer to an earlier heartbeat, if one came since the last: with the way here it bounds the clocks from both sides.
  struct Echo {
    Instant sent;      // by the receiver of this stream; its clock
    Instant received;  // here
    bool operator==(const Echo&) const = default;
  };
  std::optional<Echo> echo = {};
  bool operator==(const Heartbeat&) const = default;
};

// Counts alone (sync level poll, and what metric scrapes give).
struct Aggregate {
  Instant at;
  int32_t waiting = 0;
  int32_t running = 0;
  int64_t free_blocks = 0;
  int64_t total_blocks = 0;
  bool operator==(const Aggregate&) const = default;
};

using StreamBody = std::variant<Hello, Arrived, Aborted, BatchTrace, Snapshot, Heartbeat, Aggregate, BlocksHashed>;

struct StreamMessage {
  InstanceId instance;
  SourceId source;
  Epoch epoch;
  uint64_t seq = 0;
  StreamBody body;
  Instant sent = {};  // sender's clock
  bool operator==(const StreamMessage&) const = default;
};

// How much of an engine's progress its stream tells (protocol.md, Sync levels).
enum class SyncLevel : uint8_t {
  kNone,       // nothing: the router's own assignments and completions
  kPoll,       // Aggregate at an interval
  kAggregate,  // every step, without request ids
  kFull,       // every step with ids
};

}  // namespace foretoken
