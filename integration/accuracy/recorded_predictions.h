// Predictions of what a real server did, made as a SIMULATOR makes them: at each arrival, from the messages that had come by then,
// of a request whose output length nobody knows. The recorded length is learned from when the request has finished, and compared
// with at the very end; nothing else reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "integration/accuracy/prediction_run.h"
#include "runtime/base/result.h"
#include "runtime/model/prediction.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken::accuracy {

// What a prediction knows of the length of an output.
enum class LengthKnowledge : uint8_t {
  kLearned,        // the `sampled` estimator over the requests that have finished
  kLearnedWithin,  // the same, cut off at the request's max_tokens
  kMaxTokens,      // max_tokens is taken for the length: the truth itself where every request ran to its limit
};
// "sampled", "sampled<=max_tokens", "max_tokens"
std::string_view LengthKnowledgeName(LengthKnowledge lengths);

struct PredictionSetup {
  PredictorKind predictor = PredictorKind::kTimeline;
  StepTimeModel step_time;  // what the predictor starts from
  bool calibrate = false;   // corrected online from the steps seen so far
  LengthKnowledge lengths = LengthKnowledge::kLearned;
  bool expected_arrivals = false;  // timeline: what was lately assigned goes on to come
  uint64_t seed = 1;               // of the quantile drawn per request
};

// Relative errors as fractions. Bias: sum of predicted / sum of actual - 1. Coverage: the share of requests whose actual value was
// at most what the prediction gave as its p50 / p90.
struct MetricScore {
  size_t count = 0;
  double ape_p50 = 0, ape_p95 = 0, ape_p99 = 0;
  double bias = 0;
  std::optional<double> spearman;  // over the requests; absent where there is nothing to rank
  double coverage_p50 = 0, coverage_p90 = 0;
};

struct PredictionScore {
  MetricScore ttft, e2e;  // of the requests that got a first / their last token
};

// Error: the predictor cannot be made for this engine.
Result<PredictionScore> ScorePredictions(const PredictionRun& run, const PredictionSetup& setup);

}  // namespace foretoken::accuracy
