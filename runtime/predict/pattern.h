// PatternPredictor (v2): mirrors an instance by its last batch pattern (prefill and decode tokens), the end of its last batch and
// aggregates: waiting requests and their prefill tokens, running requests and their mean remaining output, KV free in the engine.
// It advances by pattern through the step-time law. It knows no order, no progress of single requests and no KV blocks; of every
// request assigned it remembers prompt and expected output, so that the aggregates can be taken down again when it ends.
// pattern_reuse (v2+) keeps the state at the end of the backlog: a new request then costs its own steps only. What invalidates
// that state is counted by reason. The kept state is part of the mirror's state: a snapshot discards it.
#pragma once

#include <memory>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/perf/calibrated_step_time.h"
#include "runtime/predict/own_errors.h"
#include "runtime/predict/predictor.h"
#include "runtime/predict/prefix_estimator.h"

namespace foretoken {

struct PatternCounters {
  uint64_t predictions = 0;
  uint64_t reused = 0;
  uint64_t advanced = 0;  // predictions that advanced over the whole backlog
  uint64_t extended = 0;  // enqueues that moved the kept state on
  // Why the kept state was discarded.
  uint64_t by_pattern = 0;  // a step with other prefill or decode tokens than the state went on from
  uint64_t by_finish = 0;
  uint64_t by_gone = 0;
  uint64_t by_aggregate = 0;
  uint64_t by_snapshot = 0;
  uint64_t by_calibration = 0;  // the step-time law was corrected
};

class PatternPredictor final : public Predictor {
 public:
  PatternPredictor(InstanceProfile profile, const LengthEstimator* lengths, bool reuse);

  PredictorKind kind() const override { return reuse_ ? PredictorKind::kPatternReuse : PredictorKind::kPattern; }
  void OnEnqueue(const Reservation& reservation, Instant now) override;
  void OnArrived(RequestId, Instant) override {}
  void OnGone(RequestId request, Instant now) override;
  void OnStep(const BatchTrace& trace) override;
  void OnAggregate(const AggregateState& state, const BatchTrace* step) override;
  void OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) override;
  Prediction Predict(const PredictQuery& query, Instant now) override;
  int32_t waiting() const override { return waiting_; }
  int32_t running() const override { return running_; }
  size_t memory_bytes() const override { return sizeof(*this) + known_.memory_bytes() + step_time_.memory_bytes(); }
  const StepTimeModel& step_time() const override { return step_time_.model(); }

  const PatternCounters& counters() const { return counters_; }

 private:
  struct Known {
    int32_t prompt = 0;
    int32_t cached = 0;  // of the prompt, expected
    int32_t expected = 1;
    int32_t started = -1;  // step index at which its first token came; negative: waits
    Forecast forecast;
  };
  // A point of the advance, from the clock on.
  struct Point {
    double ns = 0;
    double running = 0;
    double remaining = 1;    // mean output tokens left, of the running
    double kv_tokens = 0;    // their contexts
    double open_tokens = 0;  // prefill tokens in the step being filled
  };

  void Forget(RequestId request);
  void MoveEnd(const BatchTrace& trace);
  void Preempt(RequestId id);
  void Discard(uint64_t& reason);
  void Learn(const BatchTrace& step);
  Point Start() const;
  // Over one more request of the queue, to the end of its prefill being given out.
  void AdvanceOver(Point& p, double prompt, double expected) const;
  void CloseStep(Point& p) const;
  void Decode(Point& p, double steps) const;
  void WaitForPlace(Point& p, double prompt) const;
  void OwnDecode(Point p, int64_t prompt, int64_t output, bool others, Prediction& out) const;
  double StepNanos(double prefill, double ctx, double decodes, double kv) const;
  double CapacityTokens() const;
  // For the first of the backlog.
  bool HasPlace() const;
  void Advance();

  InstanceProfile profile_;
  CalibratedStepTime step_time_;
  const LengthEstimator* lengths_;
  bool reuse_;
  PatternCounters counters_;
  IdMap<Known> known_;

  int64_t clock_ns_ = 0;  // end of the last batch
  int32_t prefill_len_ = 0;
  int32_t decode_len_ = 0;
  int32_t step_ = 0;
  int32_t waiting_ = 0;
  int32_t running_ = 0;
  int64_t waiting_tokens_ = 0;    // prefill tokens still to compute, of waiting and partly computed requests
  int64_t waiting_expected_ = 0;  // their expected output tokens
  int64_t remaining_ = 0;         // expected output tokens left, of the running
  int64_t kv_tokens_ = 0;
  int64_t free_blocks_ = 0;
  int64_t total_blocks_ = 0;

  Point end_;  // after the backlog
  bool end_valid_ = false;
  PrefixEstimator prefixes_;
  OwnErrors errors_;
};

}  // namespace foretoken
