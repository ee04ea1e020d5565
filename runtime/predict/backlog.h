// BacklogPredictor: the ledger heuristic, the bottom of the ladder of predictors. It believes no step-time law: it extrapolates the
// pace that the engine has lately shown (prefill tokens a second, time per step, ends a second) over the requests counted there.
// Rough, but never further off than the recent past; it is asked when a predictor's error is out of bounds (judged.h).
#pragma once

#include "runtime/base/id_map.h"
#include "runtime/predict/own_errors.h"
#include "runtime/predict/predictor.h"

namespace foretoken {

class BacklogPredictor final : public Predictor {
 public:
  // `lengths` may be null; otherwise it outlives the predictor. The profile's law gives the pace until the first steps come.
  BacklogPredictor(InstanceProfile profile, const LengthEstimator* lengths);

  PredictorKind kind() const override { return PredictorKind::kLedger; }
  void OnEnqueue(const Reservation& reservation, Instant now) override;
  void OnArrived(RequestId, Instant) override {}
  void OnGone(RequestId request, Instant now) override;
  void OnStep(const BatchTrace& trace) override;
  void OnAggregate(const AggregateState& state, const BatchTrace* step) override;
  void OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) override;
  Prediction Predict(const PredictQuery& query, Instant now) override;
  int32_t waiting() const override { return waiting_; }
  int32_t running() const override { return static_cast<int32_t>(known_.size()) - waiting_; }
  size_t memory_bytes() const override { return sizeof(*this) + known_.memory_bytes(); }
  const StepTimeModel& step_time() const override { return profile_.step_time; }

 private:
  struct Known {
    int32_t prefill_left = 0;  // tokens
    bool decoding = false;     // its first token is out
    Forecast forecast = {};
  };
  // A mean that forgets: of the last `memory` observations or so.
  struct Pace {
    double value = 0;
    uint64_t seen = 0;
    void Observe(double x, uint64_t memory) { value += (x - value) / static_cast<double>(std::min(++seen, memory)); }
  };

  void Add(RequestId request, int64_t prefill_left, bool decoding, const Forecast& forecast);
  void Observe(const BatchTrace& trace);
  double SeatWait() const;

  InstanceProfile profile_;
  const LengthEstimator* lengths_;
  IdMap<Known> known_;
  int32_t waiting_ = 0;      // without a first token
  int64_t prefill_due_ = 0;  // tokens, over all
  int64_t free_blocks_ = 0;
  Pace step_ns_;           // of any step
  Pace decode_ns_;         // of steps without prefill
  double prefill_ns_ = 0;  // sums that halve in 45 steps with prefill: time beyond a decode step, and tokens
  double prefill_tokens_ = 0;
  Pace between_ends_ns_;
  Instant last_end_;
  OwnErrors errors_;
};

}  // namespace foretoken
