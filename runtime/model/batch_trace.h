// BatchTrace: the report of one executed step, sent by an INSTANCE at the batch boundary (protocol.md: SyncBatchResult).
// It lists changes only. Implied: every running request that is past its prefill got one token in this step, unless it is
// listed in `chunks` or `skipped`.
#pragma once

#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"

namespace foretoken {

enum class StepKind : uint8_t { kReal, kDummy, kEmpty };
enum class FinishReason : uint8_t { kStop, kLength, kAborted };

struct BatchTrace {
  // A request whose work in this step is not the implied one decode token: a prefill chunk.
  struct Chunk {
    RequestId request;
    int32_t tokens = 0;    // computed in this step
    int32_t computed = 0;  // computed before it (cached ones included)
    bool samples = false;  // this chunk completed the prompt: a token came out
    bool operator==(const Chunk&) const = default;
  };
  struct Admission {
    RequestId request;
    int32_t cached = 0;    // prompt tokens found in the prefix cache
    bool resumed = false;  // it had been preempted before
    bool operator==(const Admission&) const = default;
  };
  struct Finish {
    RequestId request;
    FinishReason reason = FinishReason::kLength;
    int32_t output_tokens = 0;
    bool operator==(const Finish&) const = default;
  };

  uint64_t step = 0;  // batch_id: 0, 1, 2, ... within an epoch
  StepKind kind = StepKind::kReal;
  Instant scheduled;  // when schedule() composed the batch; engine's clock, as all times here
  Instant start;      // when the accelerator began it
  Duration duration;  // end = start + duration
  int32_t prefill_tokens = 0;
  int32_t prefill_seqs = 0;
  int64_t prefill_ctx_tokens = 0;  // mean over prefill tokens of the tokens computed before their chunk, rounded
  int32_t decode_seqs = 0;
  int64_t decode_kv_tokens = 0;  // sum of the decode contexts, the new token included
  std::vector<Chunk> chunks;
  std::vector<Admission> admitted;
  std::vector<Finish> finished;      // by this step's update
  std::vector<RequestId> preempted;  // by this step's schedule(), in order
  std::vector<RequestId> cancelled;  // aborted since the step before
  std::vector<RequestId> skipped;  // running decodes that got no token in this step (budget used up, or in flight at their end)
  int32_t waiting = 0;             // after the step, as the next three
  int32_t running = 0;
  int64_t free_blocks = 0;
  int64_t total_blocks = 0;  // usable KV blocks of the engine

  Instant end() const { return start + duration; }
  bool operator==(const BatchTrace&) const = default;
};

}  // namespace foretoken
