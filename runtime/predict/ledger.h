// PredictionLedger: what was predicted of each request assigned to one instance, against what came. Keeps, over a bounded window,
// bias and absolute error of TTFT and E2E and how often the actual value lay below the predicted p50 and p90; and advises which
// predictor should answer: when the error passes a bound it demotes (timeline -> pattern -> ledger heuristic), and after a
// probation it tries the better one again. Demotion is off by default: an experiment must not change its subject.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"

namespace foretoken {

struct LedgerOptions {
  size_t window = 256;  // requests that the statistics cover
  bool demote = false;
  double bound = 0.5;        // median absolute relative error of TTFT beyond which the answering predictor is demoted
  uint64_t least = 32;       // requests judged before that
  uint64_t probation = 256;  // requests answered below before the better one is tried again; doubles with each relapse
  uint64_t longest_probation = 8192;
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

  // Assigned at `now` on this prediction.
  void OnAssigned(RequestId request, const Prediction& prediction, Instant now);
  void OnFirstToken(RequestId request, Instant at);
  // Finished by itself. Unknown ids are ignored.
  void OnFinished(RequestId request, Instant at);
  // Cancelled, lost or failed: says nothing about the prediction.
  void OnGone(RequestId request) { open_.Erase(request.value()); }

  ErrorSummary ttft() const { return SummaryOf(ttft_, ttft_count_); }
  ErrorSummary e2e() const { return SummaryOf(e2e_, e2e_count_); }
  // Who should answer, given who is configured.
  PredictorKind Advise(PredictorKind configured) const;
  uint64_t demotions() const { return demotions_; }
  uint64_t recoveries() const { return recoveries_; }
  size_t open() const { return open_.size(); }
  size_t memory_bytes() const;

 private:
  struct Open {
    int64_t assigned_ns = 0;
    int64_t ttft_ns = 0, ttft_p90_ns = 0, e2e_ns = 0, e2e_p90_ns = 0;
  };
  struct Sample {
    float error = 0;  // predicted / actual - 1
    bool below_p50 = false;
    bool below_p90 = false;
  };

  void Add(std::vector<Sample>& window, uint64_t& count, int64_t actual, int64_t p50, int64_t p90);
  ErrorSummary SummaryOf(const std::vector<Sample>& window, uint64_t count) const;
  void Judge();

  LedgerOptions options_;
  IdMap<Open> open_;
  std::vector<Sample> ttft_, e2e_;
  uint64_t ttft_count_ = 0, e2e_count_ = 0;
  int32_t level_ = 0;       // steps below the configured predictor
  uint64_t judged_ = 0;     // requests since the level changed
  uint64_t probation_ = 0;  // of the present demotion
  uint64_t demotions_ = 0, recoveries_ = 0;
};

}  // namespace foretoken
