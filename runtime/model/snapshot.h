// Snapshot: an engine's state at a point of its message stream (protocol.md). `light` carries per-request progress and the
// KV summary; `exact` adds what a fork of the engine needs: block ids, the free list in order, hashes, batches in flight.
#pragma once

#include <optional>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"

namespace foretoken {

struct Snapshot {
  struct Request {
    RequestId request;
    int32_t prompt_tokens = 0;
    int32_t computed_tokens = 0;  // of prompt and output, optimistic as the engine counts it
    int32_t generated_tokens = 0;
    int32_t cached_tokens = 0;  // prefix hit at its first admission
    bool operator==(const Request&) const = default;
  };
  // Exact level only.
  struct RequestBlocks {
    RequestId request;
    int32_t priority = 0;
    int64_t max_tokens = 0;
    Instant arrival;
    std::vector<uint32_t> blocks;
    std::vector<BlockHash> prompt_hashes;  // of the prompt's full blocks, as far as the engine has them
    int32_t registered_blocks = 0;         // leading blocks of `blocks` that have a hash
    int32_t placeholders = 0;              // sampled tokens scheduled but not yet known (asynchronous scheduling)
    int32_t in_flight_tokens = 0;          // in batches whose result is not in
    int32_t stale_tokens = 0;              // of these, from before its preemption
    bool preempted = false;                // waits because it was preempted
    bool partial_prefill = false;          // its last chunk did not reach the end of its known tokens
    bool skipped = false;                  // waits in vLLM's skipped queue
    bool operator==(const RequestBlocks&) const = default;
  };
  struct InFlight {
    uint64_t step = 0;
    Instant start;
    std::vector<RequestId> requests;
    std::vector<int32_t> tokens;
    std::vector<uint8_t> samples;  // 1: a token comes out
    bool operator==(const InFlight&) const = default;
  };
  struct Exact {
    std::vector<RequestBlocks> requests;
    std::vector<uint32_t> free_list;                            // front first
    std::vector<std::pair<uint32_t, BlockHash>> hashed_blocks;  // in registration order
    std::vector<InFlight> in_flight;                            // oldest first
    bool finish_pending = false;                                // one empty step is due after a request's end
    int64_t executed_steps = 0;                                 // for prefill_schedule_interval, as the next two
    int64_t last_prefill_step = 0;
    bool capacity_bound = false;
    bool operator==(const Exact&) const = default;
  };

  uint64_t last_seq = 0;         // the last message of the stream that the state includes
  uint64_t next_step = 0;        // batch_id of the next step to be reported
  Instant as_of;                 // engine's clock
  std::vector<Request> running;  // in the engine's order
  std::vector<Request> waiting;  // in the engine's order
  int64_t free_blocks = 0;
  int64_t total_blocks = 0;
  std::optional<Exact> exact;
  bool operator==(const Snapshot&) const = default;
};

}  // namespace foretoken
