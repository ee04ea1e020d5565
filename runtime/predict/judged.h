// JudgedPredictor: a predictor whose answers are kept account of (ledger.h), and which lets a simpler one answer while its own error
// is out of bounds. All of them follow the instance all the time, so that they can step in at once, and those above the one that
// answers are asked in secret at each Enqueue, so that it is seen when they are right again; whose answer it is stands in
// Prediction::predictor.
// Guarantee: without simpler ones it answers with the same bits as the predictor it holds.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/predict/ledger.h"
#include "runtime/predict/predictor.h"

namespace foretoken {

class JudgedPredictor final : public Predictor {
 public:
  // `ladder`: the configured predictor and, simpler and simpler, those to fall back to; none of them null. `options.lowest_level`
  // is set from it.
  JudgedPredictor(std::vector<std::unique_ptr<Predictor>> ladder, LedgerOptions options, Duration ttft_offset);

  PredictorKind kind() const override { return ladder_.front()->kind(); }
  void OnEnqueue(const Reservation& reservation, Instant now) override;
  void OnArrived(RequestId request, Instant at) override;
  void OnGone(RequestId request, Instant now) override;
  void OnEnded(RequestId request, Instant now) override;
  void OnStep(const BatchTrace& trace) override;
  void OnAggregate(const AggregateState& state, const BatchTrace* step) override;
  void OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) override;
  Prediction Predict(const PredictQuery& query, Instant now) override;
  int32_t waiting() const override { return ladder_.front()->waiting(); }
  int32_t running() const override { return ladder_.front()->running(); }
  size_t memory_bytes() const override;
  const StepTimeModel& step_time() const override { return ladder_.front()->step_time(); }
  const PredictionLedger* ledger() const override { return &ledger_; }

 private:
  // Given lately; the one that a request is assigned on is among them unless many schedulers asked in between.
  struct Answer {
    RequestId request;
    Instant asked;
    Prediction prediction;
    bool given = false;
  };

  PredictionLedger::Secret AskInSecret(const Reservation& reservation, Instant now);

  std::vector<std::unique_ptr<Predictor>> ladder_;
  PredictionLedger ledger_;
  Duration ttft_offset_;
  std::array<Answer, 8> answers_{};
  uint32_t next_answer_ = 0;
};

// The predictor of `kind`, judged; with `demote`, behind it pattern_reuse (unless it is a pattern itself) and the ledger heuristic.
// Error: as MakePredictor's.
Result<std::unique_ptr<Predictor>> MakeJudgedPredictor(PredictorKind kind, InstanceProfile profile,
                                                       const LengthEstimator* lengths, bool demote);

}  // namespace foretoken
