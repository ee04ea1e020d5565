// ReferencePredictor (v1): mirrors an instance by a whole engine, queues, KV blocks and prefix cache included, whose steps take the
// time that the real ones took; a prediction forks it and runs it on, by the step-time model, to the request's last token.
// For correctness and to see what costs what; it is never a baseline.
// Exact when noise is off, expected lengths are right, every step and arrival is seen and nothing arrives later. A request that
// goes on beyond its expected length keeps its place and gets a new one (LengthEstimator::Total given what was generated). After a
// snapshot the mirror starts with an empty prefix cache and recomputes what was running. Its clock lags by the steps in flight, so
// nothing is decided twice.
#pragma once

#include <memory>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/engine/emulated_engine.h"
#include "runtime/perf/calibrated_step_time.h"
#include "runtime/predict/own_errors.h"
#include "runtime/predict/predictor.h"

namespace foretoken {

class ReferencePredictor final : public Predictor, private EngineSink {
 public:
  // Error: the engine's configuration is one that no EngineCore models.
  static Result<std::unique_ptr<ReferencePredictor>> Make(InstanceProfile profile, const LengthEstimator* lengths);

  PredictorKind kind() const override { return PredictorKind::kReference; }
  void OnEnqueue(const Reservation& reservation, Instant now) override;
  void OnArrived(RequestId request, Instant at) override;
  void OnGone(RequestId request, Instant now) override;
  void OnStep(const BatchTrace& trace) override;
  void OnAggregate(const AggregateState& state, const BatchTrace* step) override;
  void OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) override;
  Prediction Predict(const PredictQuery& query, Instant now) override;
  int32_t waiting() const override { return waiting_ + static_cast<int32_t>(inbox_.size()); }
  int32_t running() const override { return running_; }
  // An estimate: an engine does not tell; 48 bytes per KV block and 256 per request are what its parts hold.
  size_t memory_bytes() const override;
  const StepTimeModel& step_time() const override { return step_time_.model(); }

 private:
  class ReplayLaw;
  struct Known {
    EngineRequest request;
    LengthKey length;
    int64_t before = 0;  // tokens generated before the mirror began, part of its prompt here
    bool ended = false;  // in reality
    Forecast forecast = {};
  };
  // A request past its prompt, as the reported steps tell.
  struct Decoding {
    RequestId request;
    int64_t generated = 0;   // since the mirror began
    bool preempted = false;  // computes its context again
  };
  struct Arrival {
    Instant ready;
    bool confirmed = false;
    EngineRequest request;
  };

  ReferencePredictor(InstanceProfile profile, const LengthEstimator* lengths);
  Status Restart(Instant at);
  EngineRequest RequestOf(const Reservation& r) const;
  void TakeIn(EmulatedEngine& engine, Instant until);
  void RunTo(Instant at);
  void RunBefore(Instant now);
  void Learn(const BatchTrace& step);
  Duration OwedAfter(const BatchTrace& trace);
  void CountTokens(const BatchTrace& trace);
  int64_t NewLength(const Known& known, int64_t generated) const;
  void Continue(const Known& known, Instant at);
  bool Withdraw(RequestId request);
  void End(RequestId request, bool abort, Instant at);

  // What the mirror does.
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId request, const BatchTrace::Finish& finish, Instant at) override;
  void OnRejected(RequestId request, OutcomeReason reason, Instant at) override;

  InstanceProfile profile_;
  CalibratedStepTime step_time_;
  const LengthEstimator* lengths_;
  std::shared_ptr<ReplayLaw> law_;
  std::unique_ptr<EmulatedEngine> engine_;
  Instant ran_to_;
  std::vector<Arrival> inbox_;  // not yet given to the mirror; confirmed ones first
  IdMap<Known> known_;
  std::vector<Decoding> decoding_;
  bool follows_steps_ = false;
  int32_t waiting_ = 0;
  int32_t running_ = 0;
  OwnErrors errors_;
  Instant last_end_;       // of the last step reported
  uint64_t reported_ = 0;  // steps, since the mirror began
  Duration owed_;          // by which the mirror runs ahead of the engine; the next batch takes so much longer
};

}  // namespace foretoken
