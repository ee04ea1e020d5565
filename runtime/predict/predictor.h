// Predictor: the mirror of one instance that answers counterfactuals. Kinds (predictors.md) are interchangeable: reference (v1),
// pattern (v2), pattern_reuse (v2+), timeline (v3). All times are on the router's clock: the caller maps the engine's clock
// before it calls. Messages come in stream order: the sequencer has removed duplicates and gaps.
//
// Predict is a pure function of the state: repeated, batched, in any order, or on a reloaded snapshot, it gives the same bits.
// Implementations may cache inside, never change the answer.
#pragma once

#include <memory>
#include <optional>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/engine/engine_config.h"
#include "runtime/model/batch_trace.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/model/snapshot.h"
#include "runtime/perf/step_time_model.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

class PredictionLedger;

inline constexpr size_t kPredictorKinds = static_cast<size_t>(PredictorKind::kLedger) + 1;

// What a predictor knows of its instance beforehand.
struct InstanceProfile {
  InstanceId instance;
  EngineConfig limits;             // from Hello or the topology
  StepTimeModel step_time;         // the predictor's own (it may be wrong; the calibrator corrects it)
  Duration ttft_offset;            // front-end terms outside the engine, added to TTFT and E2E
  Slo slo;                         // of the pool
  bool expected_arrivals = false;  // timeline: add the expected arrival stream
  bool calibrate = false;          // correct step_time online from the durations that steps really took
};

// A request that was assigned to this instance.
struct Reservation {
  RequestId request;
  int32_t priority = 0;
  Instant arrival;  // at the router
  int64_t prompt_tokens = 0;
  int64_t expected_output = 1;  // total, >= 1
  LengthKey length;
  Slo slo;
  std::vector<PromptSegment> segments;
};

// Counts alone, as polled metrics or aggregate sync give them.
struct AggregateState {
  Instant as_of;
  int32_t waiting = 0;
  int32_t running = 0;
  int64_t free_blocks = 0;
  int64_t total_blocks = 0;
};

class Predictor {
 public:
  virtual ~Predictor() = default;
  virtual PredictorKind kind() const = 0;

  // Assigned at `now` (a reservation): the request joins the waiting view before the engine has confirmed it.
  virtual void OnEnqueue(const Reservation& reservation, Instant now) = 0;
  // The engine took the request in at `at`; arrivals come in the engine's own order, which may differ from assignment's.
  virtual void OnArrived(RequestId request, Instant at) = 0;
  // Taken back; unknown ids are ignored, as in OnEnded.
  virtual void OnGone(RequestId request, Instant now) = 0;
  // Finished, as seen from outside (below sync level full, where no step tells).
  virtual void OnEnded(RequestId request, Instant now) { OnGone(request, now); }
  // A step was executed; times already on the router's clock.
  virtual void OnStep(const BatchTrace& trace) = 0;
  // Aggregates only (sync levels poll and aggregate). `step` is present at level aggregate: shape and duration, no ids.
  virtual void OnAggregate(const AggregateState& state, const BatchTrace* step) = 0;
  // Replaces the engine-visible state; reservations that the snapshot does not know and `unconfirmed` lists stay waiting.
  virtual void OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) = 0;

  // `now` is not before any event above. Fills everything but instance, versions, as_of, age and stale (the SIMULATOR's).
  virtual Prediction Predict(const PredictQuery& query, Instant now) = 0;

  // Requests that the mirror believes to be waiting / running at the last event, and bytes held (for bench predict).
  virtual int32_t waiting() const = 0;
  virtual int32_t running() const = 0;
  virtual size_t memory_bytes() const = 0;
  // The step-time law that it answers with, as calibrated so far.
  virtual const StepTimeModel& step_time() const = 0;
  // What was predicted against what came; null: nobody keeps account.
  virtual const PredictionLedger* ledger() const { return nullptr; }
};

}  // namespace foretoken
