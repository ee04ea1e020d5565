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

namespace foretoken {

// A request as the engine gets it.
struct EngineRequest {
  RequestId id;
  int32_t priority = 0;
  double arrival_key = 0;  // order among equal priorities (front-end arrival, seconds)
  int64_t prompt_tokens = 0;
  int64_t max_tokens = 0;     // the scheduler knows it
  int64_t output_tokens = 0;  // true length; with stop_at_eos the end-of-sequence token comes here
  std::vector<PromptSegment> segments;  // empty: content shared with no other request
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
  uint64_t index = 0;  // counts non-empty and empty batches alike
  std::vector<ScheduledItem> items;  // in scheduling order
  std::vector<BatchTrace::Admission> admitted;  // in order; resumed ones marked
  std::vector<RequestId> preempted;             // in order
  int32_t evicted = 0;             // hashed blocks that lost their content
  int64_t free_blocks_after = 0;   // after schedule
  int32_t running_after = 0;
  int32_t waiting_after = 0;
  std::vector<std::pair<RequestId, std::vector<uint32_t>>> new_blocks;  // only when SetRecordBlocks(true)
};

struct BatchResult {
  std::vector<RequestId> sampled;  // got a token, in order
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
  // True while a Schedule() could have something to do (an empty one after the last finish included, as in vLLM).
  virtual bool HasRequests() const = 0;
  virtual const Batch& Schedule() = 0;
  // Applies the result of the oldest batch not yet updated.
  virtual const BatchResult& Update() = 0;
  virtual int32_t batches_in_flight() const = 0;
  virtual int32_t running() const = 0;
  virtual int32_t waiting() const = 0;
  virtual int64_t free_blocks() const = 0;
  virtual int64_t usable_blocks() const = 0;
  virtual void SetRecordBlocks(bool on) = 0;
  // A full copy that evolves on its own (the reference predictor's fork).
  virtual std::unique_ptr<EngineCore> Clone() const = 0;
  // State for a mirror; `exact` also fills Snapshot::exact. Times and sequence numbers are the caller's.
  virtual Snapshot TakeSnapshot(bool exact) const = 0;
  // Checks the core's own invariants (free + held = usable, reference counts, queues); Error names the one that fails.
  virtual Status CheckInvariants() const = 0;
};

// Error: names the option that this kind does not model, or an impossible limit.
Result<std::unique_ptr<EngineCore>> MakeEngineCore(const EngineConfig& config);

}  // namespace foretoken
