// LengthDistribution: what is known of output lengths, as counts in fixed buckets: exact below 64 tokens, then 32 buckets per
// octave (3 % wide) up to 2^20 tokens; above, as 2^20. Old observations fade: at 16,384 the counts are halved.
// Learn only counts; the answers move at Rebuild, so that what was computed from them stays valid in between.
// 12.5 KiB each, whatever was learned.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/base/units.h"

namespace foretoken {

class LengthDistribution {
 public:
  static constexpr size_t kBuckets = 64 + 14 * 32;

  // A distribution from lengths at evenly spaced quantiles 0, 1/(n-1), ..., 1 (ascending, >= 1; n >= 2), linear in between.
  static LengthDistribution FromQuantiles(const std::vector<int64_t>& quantiles);

  void Learn(TokenCount length);
  // Answers from now on: what was learned, mixed with `prior` as if that were `prior_weight` observations.
  void Rebuild(const LengthDistribution& prior, double prior_weight);
  double weight() const { return static_cast<double>(weight_); }  // observations counted

  // P(length <= tokens).
  double AtMost(TokenCount tokens) const { return Below(tokens.value() + 1); }
  // The length at quantile q in [0, 1) among those above `generated`. Beyond what was ever seen, the share q of `generated` is
  // added: what has lasted long lasts long.
  TokenCount QuantileAbove(double q, TokenCount generated) const;
  // The mean of those above `generated`; beyond what was ever seen, half as much again.
  TokenCount MeanAbove(TokenCount generated) const;

 private:
  static constexpr size_t kGuide = 512;
  static size_t BucketOf(int64_t length);
  static int64_t LowOf(size_t bucket);
  double Below(int64_t length) const;
  void Finish();

  std::array<uint32_t, kBuckets> counts_{};
  uint32_t weight_ = 0;
  std::array<double, kBuckets + 1> below_{};   // share of lengths below a bucket's first
  std::array<double, kBuckets + 1> moment_{};  // sum of share * length from a bucket on
  std::array<uint16_t, kGuide + 1> guide_{};   // the bucket that quantile k / kGuide falls into
};

}  // namespace foretoken
