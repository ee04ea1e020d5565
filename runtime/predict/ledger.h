// PredictionLedger: what was predicted of each request assigned to one instance, against what came. Keeps, over a bounded window,
// bias and absolute error of TTFT and E2E and how often the actual value lay below the predicted p50 and p90; and says how far
// down the ladder of predictors (level 0: the configured one) the next answer should come from: when the error passes a bound it
// goes one down; those above are asked in secret from then on, and the first whose error is within the bound again answers again.
// Off by default: an experiment must not change its subject.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"

namespace foretoken {

struct LedgerOptions {
  size_t window = 256;       // requests that the statistics cover
  int32_t lowest_level = 0;  // simpler predictors to fall back to, at most kMostLevels - 1; 0: no demotion
  double bound = 0.5;        // median absolute relative error of TTFT beyond which the answering predictor is demoted
  double back = 0.4;         // and at or below which a better one comes back; less than `bound`, so that they do not swing
  size_t judged = 64;        // requests that the median is over
  size_t least = 32;         // of them needed to judge
};

// Of actual against predicted, over the window. Errors are relative to the actual value.
struct ErrorSummary {
  uint64_t count = 0;  // ever
  double bias = 0;     // mean of predicted / actual - 1
  double p50 = 0;      // of |predicted / actual - 1|
  double p95 = 0;
  double p99 = 0;
  double below_p50 = 0;  // share of actual values at or below the predicted p50: .5 is calibrated
  double below_p90 = 0;
};

class PredictionLedger {
 public:
  explicit PredictionLedger(LedgerOptions options) : options_(options) {}

  static constexpr size_t kMostLevels = 3;
  // TTFT in seconds that each level above the answering one predicts, asked in secret; negative: not asked.
  using Secret = std::array<float, kMostLevels>;

  // Assigned on this prediction, which was asked for at `asked`.
  void OnAssigned(RequestId request, const Prediction& prediction, Instant asked, const Secret& secret = {-1, -1, -1});
  // Unknown ids are ignored; a second first token (after a preemption) says nothing.
  void OnFirstToken(RequestId request, Instant at);
  // Finished by itself.
  void OnFinished(RequestId request, Instant at);
  // Cancelled, lost or failed: says nothing about the prediction.
  void OnGone(RequestId request) { open_.Erase(request.value()); }
  // Some messages were lost: only these are still open, and of those marked true the first token came unseen.
  void Retain(std::span<const std::pair<RequestId, bool>> live);

  // Of the predictor that answers now: a change of level starts them anew.
  ErrorSummary ttft() const { return SummaryOf(ttft_, ttft_count_); }
  ErrorSummary e2e() const { return SummaryOf(e2e_, e2e_count_); }
  // Who should answer: 0, the configured predictor, to lowest_level.
  int32_t level() const { return level_; }
  uint64_t demotions() const { return demotions_; }
  uint64_t recoveries() const { return recoveries_; }
  size_t open() const { return open_.size(); }
  size_t memory_bytes() const;

 private:
  struct Open {
    int64_t asked_ns = 0;
    float ttft_s = 0, ttft_p90_s = 0, e2e_s = 0, e2e_p90_s = 0;
    Secret secret{};
    uint32_t changes = 0;  // of level until it was asked
    bool first_token_came = false;
  };
  struct Sample {
    float error = 0;  // predicted / actual - 1
    bool below_p50 = false;
    bool below_p90 = false;
  };

  void Add(std::vector<Sample>& window, uint64_t& count, Duration actual, float p50_s, float p90_s);
  ErrorSummary SummaryOf(const std::vector<Sample>& window, uint64_t count) const;
  void Judge(const Open& open, float actual_s);
  double JudgedError(size_t level) const;
  uint32_t changes() const { return static_cast<uint32_t>(demotions_ + recoveries_); }
  void MoveTo(int32_t level);

  LedgerOptions options_;
  IdMap<Open> open_;
  std::vector<Sample> ttft_, e2e_;
  uint64_t ttft_count_ = 0, e2e_count_ = 0;
  int32_t level_ = 0;  // steps below the configured predictor
  // By level, the latest absolute relative errors of TTFT, and how many there were; kept with demotion only.
  std::array<std::vector<float>, kMostLevels> errors_;
  std::array<size_t, kMostLevels> error_count_{};
  uint64_t demotions_ = 0, recoveries_ = 0;
};

}  // namespace foretoken
