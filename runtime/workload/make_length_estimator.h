// The estimators of output lengths by name.
//
//   oracle      the truth (evaluation only: an upper bound of what estimating can bring)
//   max_tokens  the caller's limit, else max_tokens_default: what a router without knowledge must assume
//   hint        the caller's estimate while it holds, else as sampled
//   mean        the mean of finished requests of the class that were longer than what was generated
//   sampled     the quantile that was drawn for the request, of the same
//
// mean and sampled learn from finished requests, per length class; a class of which little is known leans on all classes
// together, and those on a prior. What was learned shows in answers (and moves version()) in batches: after 16 requests, then
// whenever a sixteenth as many as are remembered have come. Bounded memory: max_classes distributions of 12.5 KiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

struct LengthEstimatorOptions {
  TokenCount max_tokens_default{1024};  // kMaxTokens, for requests without a limit
  // Output lengths at evenly spaced quantiles, before anything is learned; >= 2, ascending, >= 1. Empty: AzureConv's.
  std::vector<int64_t> prior_quantiles;
  double prior_weight = 32;  // in observations; > 0
  size_t max_classes = 256;  // length classes from this number on share one distribution
  // kOracle: the true lengths. A request that is not among them is estimated as by kSampled.
  std::vector<std::pair<RequestId, TokenCount>> truth;
};

// Error: options that no estimator can have; names the field.
Result<std::unique_ptr<LengthEstimator>> MakeLengthEstimator(LengthEstimatorKind kind,
                                                             const LengthEstimatorOptions& options = {});

// "oracle", "max_tokens", "hint", "mean", "sampled". Error: lists them.
Result<LengthEstimatorKind> ParseLengthEstimatorKind(std::string_view name);
std::string_view LengthEstimatorName(LengthEstimatorKind kind);

}  // namespace foretoken
