// ShadowEngine: a mirror at level `exact`. It runs an EngineCore beside a live engine: from the enqueues (and, where two batches
// are in flight, the times of schedule() and of results) it decides every step by itself and only then looks at what the
// engine reports for that step. A difference is counted and described; the shadow stays with its own decision.
//
// Guarantees: what a step reports never changes a decision; the same calls give the same state, so a copy taken at any point
// (Clone) is an exact snapshot. It expects a stream in order and without gaps (Sequencer), and it sends nothing.
// A synchronous engine needs only the order of enqueues and steps; an abort needs its time in both modes.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/engine/engine_core.h"
#include "runtime/model/batch_trace.h"
#include "runtime/model/snapshot.h"

namespace foretoken {

// One executed step as the engine reports it when its result is in. Engine's clock.
struct ReportedStep {
  struct Item {
    RequestId request;
    int32_t tokens = 0;
    int32_t computed = 0;
    bool samples = false;
  };
  uint64_t step = 0;
  Instant scheduled;  // schedule() began
  Instant result;     // the result came in
  Instant updated;    // update_from_output() ended
  std::vector<Item> items;
  std::vector<BatchTrace::Admission> admitted;
  std::vector<RequestId> preempted;
  std::vector<RequestId> finished;
  // After schedule(); absent from a stream.
  struct Scheduled {
    int32_t running = 0;
    int32_t waiting = 0;
    int64_t free_blocks = 0;
  };
  std::optional<Scheduled> after_schedule;
  int32_t running_after = 0;  // after the update
  int64_t free_blocks_after = 0;
  // From a stream: `items` holds the chunks alone, as a BatchTrace does, the decodes are implied.
  struct Implied {
    int32_t decode_seqs = 0;
    int64_t decode_kv_tokens = 0;
    std::vector<RequestId> skipped;
    int32_t waiting_after = 0;
  };
  std::optional<Implied> implied;
  // Requests that end in this step by an end-of-sequence or stop token, and their output: the model's doing, which no scheduler decides.
  std::vector<BatchTrace::Finish> stopped;
};

// A step as its stream reports it.
ReportedStep ReportOf(const BatchTrace& trace);

// Which decision of the engine the shadow did not reproduce.
enum class ShadowRule : uint8_t {
  kEnqueue,          // the shadow refuses a request that the engine took
  kAbort,            // the engine ended a request that the shadow does not hold
  kPreemption,       // who was preempted
  kAdmission,        // who left the waiting queue
  kPrefixCache,      // cached tokens at an admission
  kComposition,      // whom the batch holds, in which order
  kChunk,            // tokens computed for a request
  kProgress,         // tokens that a request had before
  kSampling,         // whether a request got a token
  kFreeBlocks,       // KV blocks free after schedule()
  kRunning,          // requests running after schedule()
  kWaiting,          // requests waiting after schedule()
  kSkipped,          // who runs and gets no token
  kDecodes,          // how many get a token without being named
  kDecodeContext,    // tokens that these attend to
  kFinish,           // who ended with the step
  kFreeBlocksAfter,  // KV blocks free after the update
  kRunningAfter,     // requests running after the update
  kWaitingAfter,     // requests waiting after the update
};
const char* NameOf(ShadowRule rule);

struct ShadowDisagreement {
  uint64_t step = 0;
  ShadowRule rule = ShadowRule::kComposition;
  std::optional<RequestId> request;  // absent: the rule concerns the engine as a whole
  int64_t shadow = 0;                // what the shadow decided and what the engine reported: a count, or 1/0 for there/absent
  int64_t engine = 0;
};

struct ShadowCounters {
  uint64_t steps = 0;
  uint64_t items = 0;          // scheduled requests, summed over the steps
  uint64_t cached_tokens = 0;  // at first admissions
  uint64_t preempted = 0;
  uint64_t finished = 0;
  uint64_t aborted = 0;
};

class ShadowEngine {
 public:
  explicit ShadowEngine(std::unique_ptr<EngineCore> core) : core_(std::move(core)) {}

  void OnEnqueue(const EngineRequest& request, Instant at);
  void OnAbort(RequestId request, Instant at);
  void OnStep(std::shared_ptr<const ReportedStep> step);
  // No more steps come: applies what waits for the next one.
  void Finish();

  // Of everything that the state includes, in a snapshot's past too.
  const ShadowCounters& counters() const { return counters_; }
  const EngineCore& core() const { return *core_; }
  // Steps, enqueues and aborts that did not agree: at most one each, however much of a step differs.
  uint64_t disagreements() const { return disagreements_; }
  const std::optional<ShadowDisagreement>& first_disagreement() const { return first_; }
  const std::optional<ShadowDisagreement>& last_disagreement() const { return last_; }

  // An exact snapshot: a copy that evolves on its own.
  std::unique_ptr<ShadowEngine> Clone() const;
  // Becomes `exact`; disagreements seen so far stay counted.
  void Resynchronise(const ShadowEngine& exact);
  // The core was restored from a snapshot whose next step to be reported is `next_step`: its batches in flight are that one and those behind it.
  void Continue(uint64_t next_step);
  // The state that the engine had when it took `snapshot`: batches that were in flight then and have not been reported yet are composed.
  std::unique_ptr<EngineCore> StateAt(const Snapshot& snapshot) const;

 private:
  // An input that acts at its time, before a schedule() at the same time.
  struct Pending {
    enum class Kind : uint8_t { kAbort, kUpdate, kEnqueue };  // in this order at equal times
    Instant at;
    Kind kind = Kind::kEnqueue;
    EngineRequest enqueue;                       // kEnqueue
    RequestId abort;                             // kAbort
    std::shared_ptr<const ReportedStep> update;  // kUpdate
  };

  struct InFlight {
    std::optional<uint64_t> step;  // absent: a batch without tokens, which the engine does not report
    bool disagreed = false;
  };

  bool in_order_only() const { return !core_->config().async_scheduling; }
  void Insert(Pending pending);
  void ApplyUntil(Instant until);
  void Apply(const Pending& pending);
  void Enqueue(const EngineRequest& request);
  void Decide(const ReportedStep& step);
  void Update(const ReportedStep& step);
  void Count(const ShadowDisagreement& found);

  std::unique_ptr<EngineCore> core_;
  std::deque<Pending> pending_;     // by time, then kind, then order of arrival
  std::deque<InFlight> in_flight_;  // oldest first
  ShadowCounters counters_;
  uint64_t next_step_ = 0;
  uint64_t disagreements_ = 0;
  std::optional<ShadowDisagreement> first_, last_;
};

}  // namespace foretoken
