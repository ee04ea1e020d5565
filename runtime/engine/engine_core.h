// EngineCore: the decisions of a continuous-batching engine, without time: which requests run in the next batch, with how many
// tokens, on which KV blocks. A caller (EmulatedEngine, the shadow engine of a mirror, the `engine` command) owns the clock:
// it calls Schedule() when a batch is composed and Update() when its result is in, oldest batch first.
// Kinds differ in their batch former and cache: VllmCore reproduces vLLM V1's scheduler step for step, SglangCore SGLang's.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/engine/engine_config.h"
#include "runtime/model/batch_trace.h"
#include "runtime/model/request.h"
#include "runtime/model/snapshot.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {

// A request as the engine gets it.
struct EngineRequest {
  RequestId id;
  int32_t priority = 0;
  double arrival_key = 0;  // order among equal priorities (front-end arrival, seconds)
  int64_t prompt_tokens = 0;
  int64_t max_tokens = 0;               // the scheduler knows it
  int64_t output_tokens = 0;            // true length; with stop_at_eos the end-of-sequence token comes here
  std::vector<PromptSegment> segments;  // empty: content shared with no other request
  std::vector<BlockHash> hashes;  // of the first full blocks of its prompt, where they are known: they go before `segments`
  // false: no other request's segments will ever name OutputContent(id) or PrivateContent(id). Then its own content needs no
  // entry in the prefix cache's map: decisions are the same, only faster.
  bool output_named_later = true;
};

struct ScheduledItem {
  RequestId request;
  int32_t tokens = 0;    // computed in this batch
  int32_t computed = 0;  // before it
  bool prefill = false;
  bool samples = false;
};

// One composed batch. Owned by the core and valid until its Update().
struct Batch {
  uint64_t index = 0;                           // counts non-empty and empty batches alike
  std::vector<ScheduledItem> items;             // in scheduling order
  std::vector<BatchTrace::Admission> admitted;  // in order; resumed ones marked
  std::vector<RequestId> preempted;             // in order
  int32_t evicted = 0;                          // hashed blocks that lost their content
  int64_t free_blocks_after = 0;                // after schedule
  int32_t running_after = 0;
  int32_t waiting_after = 0;
  std::vector<std::pair<RequestId, std::vector<uint32_t>>> new_blocks;  // only when SetRecordBlocks(true)
};

// One composed batch with its decodes implied, as in BatchTrace: what a host that keeps time needs.
struct BatchSummary {
  StepShape shape;
  int32_t prefill_seqs = 0;
  std::vector<BatchTrace::Chunk> chunks;  // prefill work, and whatever an admitted request computes; in scheduling order
  std::vector<BatchTrace::Admission> admitted;
  std::vector<RequestId> preempted;
  std::vector<RequestId> skipped;  // as in BatchTrace, in running order
  int32_t evicted = 0;
  bool empty() const { return shape.prefill_tokens == 0 && shape.decode_seqs == 0; }
};

struct BatchResult {
  std::vector<RequestId> sampled;            // got a token, in order; left empty by UpdateSummary()
  std::vector<RequestId> first_tokens;       // of these, whose first output token it was, in order
  int64_t tokens = 0;                        // how many got a token
  std::vector<BatchTrace::Finish> finished;  // in order
  int64_t free_blocks_after = 0;
  int32_t running_after = 0;
  int32_t waiting_after = 0;
};

class EngineCore {
 public:
  virtual ~EngineCore() = default;
  virtual const EngineConfig& config() const = 0;
  // Adds a request behind the waiting ones. Error (request not added): prompt >= max_model_len, or a duplicate id.
  virtual Status Add(const EngineRequest& request) = 0;
  // Client disconnect or stop string; between two batches or between Schedule() and Update(). False: unknown or already ended.
  virtual bool Abort(RequestId request) = 0;
  // For a mirror that learns that a request goes on: from now on it ends as if it had been added with these limits, of which
  // output_tokens is more than it has generated. False: unknown or already ended.
  virtual bool SetLength(RequestId request, int64_t max_tokens, int64_t output_tokens) = 0;
  // True while a Schedule() could have something to do (an empty one after the last finish included, as in vLLM).
  virtual bool HasRequests() const = 0;
  virtual const Batch& Schedule() = 0;
  // Applies the result of the oldest batch not yet updated.
  virtual const BatchResult& Update() = 0;
  // The same decisions as Schedule() and Update() for a host that does not need them item by item; the calls may be mixed.
  // Far cheaper where an implementation can tell what changes without touching every request (VllmCore). The summary is valid
  // until the update of its batch. By default made from Schedule(), without `skipped`.
  virtual const BatchSummary& ScheduleSummary();
  virtual const BatchResult& UpdateSummary() { return Update(); }
  virtual int32_t batches_in_flight() const = 0;
  virtual int32_t running() const = 0;
  virtual int32_t waiting() const = 0;
  virtual int64_t free_blocks() const = 0;
  // Of a prompt with these blocks in front: how many of them an admission would find in the prefix cache now.
  virtual int64_t CachedBlocks(std::span<const BlockHash> hashes) const = 0;
  virtual int64_t usable_blocks() const = 0;
  virtual void SetRecordBlocks(bool on) = 0;
  // A full copy that evolves on its own (the reference predictor's fork).
  virtual std::unique_ptr<EngineCore> Clone() const = 0;
  // State for a mirror; `exact` also fills Snapshot::exact. Times and sequence numbers are the caller's.
  virtual Snapshot TakeSnapshot(bool exact) const = 0;
  // Checks the core's own invariants (free + held = usable, reference counts, queues); Error names the one that fails.
  virtual Status CheckInvariants() const = 0;

 private:
  std::vector<BatchSummary> summaries_;  // of the default ScheduleSummary()
};

// Adds up `batch`; everything but `skipped`.
void Summarise(const Batch& batch, BatchSummary& summary);

// Error: names the option that this kind does not model, or an impossible limit.
Result<std::unique_ptr<EngineCore>> MakeEngineCore(const EngineConfig& config);

// A core that continues as the one that `snapshot` (exact) was taken from. `requests` gives what a snapshot does not carry of
// each request that it lists (limits, segments; output_tokens as far as known). Error: a request is missing, the snapshot is not
// exact, or it contradicts itself or the configuration.
Result<std::unique_ptr<EngineCore>> RestoreEngineCore(const EngineConfig& config, const Snapshot& snapshot,
                                                      std::span<const EngineRequest> requests);

}  // namespace foretoken
