// EmulatedEngine: an EngineCore in time - the engine's own loop (synchronous, or asynchronous with two batches in flight) over a
// step-time model. It stands in for a GPU. It does nothing between its own control points, so a host may let it run ahead to
// any instant at which nothing outside touches it; runs of steady decode steps are jumped, with the same results.
#pragma once

#include <memory>
#include <optional>

#include "runtime/base/units.h"
#include "runtime/engine/engine_core.h"
#include "runtime/model/batch_trace.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

// Receives what the engine does, in order of time. References are valid during the call only.
class EngineSink {
 public:
  virtual ~EngineSink() = default;
  // Only when traces are asked for (EmulatedEngine::Options::traces). At trace.end(), before the outcomes of the same step.
  virtual void OnStep(const BatchTrace& trace) = 0;
  virtual void OnFirstToken(RequestId request, Instant at) = 0;
  virtual void OnFinished(RequestId request, const BatchTrace::Finish& finish, Instant at) = 0;
  // The engine refuses it: kTooLong (prompt >= max_model_len); kNeverFits: the KV blocks of all that it will compute exceed the
  // pool, or without chunked prefill the token budget; or preemptions went round without a token for long and it was the last
  // victim. vLLM would hold the request for ever in the last two cases, and often everything behind it.
  virtual void OnRejected(RequestId request, OutcomeReason reason, Instant at) = 0;
};

class EmulatedEngine {
 public:
  struct Options {
    EngineConfig config;
    StepTimeModel step_time;
    StepNoise noise;
    bool traces = false;  // report every step through OnStep
    Instant start;        // nothing happens before it
  };
  struct Counters {
    uint64_t steps = 0;  // executed steps, jumped ones included
    uint64_t preemptions = 0;
    uint64_t tokens = 0;  // output tokens
    uint64_t blocks_evicted = 0;
    uint64_t livelocks = 0;  // requests refused because preemptions went round without a token
  };

  static Result<std::unique_ptr<EmulatedEngine>> Make(Options options);
  virtual ~EmulatedEngine() = default;

  // Why the engine's front end refuses the request, if it does: a pure function of the request and the engine's limits.
  virtual std::optional<OutcomeReason> Refusal(const EngineRequest& request) const = 0;
  // A request reaches the engine at `at`, which is not before any instant already run to.
  virtual void Submit(const EngineRequest& request, Instant at) = 0;
  virtual void Abort(RequestId request, Instant at) = 0;
  // EngineCore::SetLength, of a request that was taken in; takes no time.
  virtual bool SetLength(RequestId request, int64_t max_tokens, int64_t output_tokens) = 0;
  // Executes everything up to and including `until`, in order.
  virtual void RunUntil(Instant until, EngineSink& sink) = 0;
  // When the engine next acts by itself; Instant::Max() when idle.
  virtual Instant NextEvent() const = 0;
  virtual const Counters& counters() const = 0;
  virtual const EngineCore& core() const = 0;
  // State as of the last instant run to (as_of set; last_seq left 0).
  virtual Snapshot TakeSnapshot(bool exact) const = 0;
  // A full copy that evolves on its own: regret is measured by forking the truth.
  virtual std::unique_ptr<EmulatedEngine> Clone() const = 0;
};

}  // namespace foretoken
