#include "runtime/workload/length_distribution.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

constexpr int64_t kExact = 64;  // lengths below have a bucket of their own
constexpr int kExactBits = 6;   // 2^6 = 64
constexpr int kSubBits = 5;     // 2^5 = 32 buckets per octave
constexpr int64_t kLongest = (int64_t{1} << 20) - 1;
constexpr uint32_t kFadeAt = 16'384;
constexpr double kNothingLeft = 1e-12;  // a share of lengths that is rounding noise

}  // namespace

size_t LengthDistribution::BucketOf(int64_t length) {
  if (length < kExact) return static_cast<size_t>(std::max<int64_t>(length, 0));
  length = std::min(length, kLongest);
  const int octave = std::bit_width(static_cast<uint64_t>(length)) - 1;  // 6..19
  const auto sub = static_cast<size_t>(length >> (octave - kSubBits)) & 31;
  return static_cast<size_t>(kExact) + static_cast<size_t>(octave - kExactBits) * 32 + sub;
}

int64_t LengthDistribution::LowOf(size_t bucket) {
  if (bucket < static_cast<size_t>(kExact)) return static_cast<int64_t>(bucket);
  const size_t octave = (bucket - kExact) / 32 + kExactBits;
  return static_cast<int64_t>((32 + (bucket - kExact) % 32) << (octave - kSubBits));
}

LengthDistribution LengthDistribution::FromQuantiles(const std::vector<int64_t>& quantiles) {
  FT_CHECK(quantiles.size() >= 2 && quantiles.front() >= 1 && std::is_sorted(quantiles.begin(), quantiles.end()));
  LengthDistribution d;
  // Share below `length`, from the table read the other way round.
  const auto share_below = [&](int64_t length) {
    const auto up = std::lower_bound(quantiles.begin(), quantiles.end(), length);
    if (up == quantiles.begin()) return 0.0;
    if (up == quantiles.end()) return 1.0;
    const double part = static_cast<double>(length - up[-1]) / static_cast<double>(up[0] - up[-1]);
    return (static_cast<double>(up - quantiles.begin()) - 1 + part) / static_cast<double>(quantiles.size() - 1);
  };
  for (size_t b = 0; b < kBuckets; ++b) d.below_[b] = share_below(LowOf(b));
  d.below_[kBuckets] = 1;
  d.Finish();
  return d;
}

void LengthDistribution::Learn(TokenCount length) {
  ++counts_[BucketOf(length.value())];
  if (++weight_ < kFadeAt) return;
  weight_ = 0;
  for (uint32_t& c : counts_) weight_ += c /= 2;
}

void LengthDistribution::Rebuild(const LengthDistribution& prior, double prior_weight) {
  const double total = prior_weight + weight();
  FT_CHECK(total > 0);
  double counted = 0;
  for (size_t b = 0; b < kBuckets; ++b) {
    below_[b] = (prior_weight * prior.below_[b] + counted) / total;
    counted += counts_[b];
  }
  below_[kBuckets] = 1;
  Finish();
}

void LengthDistribution::Finish() {
  moment_[kBuckets] = 0;
  for (size_t b = kBuckets; b-- > 0;) {
    const double middle = static_cast<double>(LowOf(b) + LowOf(b + 1) - 1) / 2;
    moment_[b] = moment_[b + 1] + (below_[b + 1] - below_[b]) * middle;
  }
  size_t bucket = 0;
  for (size_t k = 0; k <= kGuide; ++k) {
    const double q = static_cast<double>(k) / kGuide;
    while (bucket + 1 < kBuckets && below_[bucket + 1] <= q) ++bucket;
    guide_[k] = static_cast<uint16_t>(bucket);
  }
}

double LengthDistribution::Below(int64_t length) const {
  if (length > kLongest) return 1;
  const size_t b = BucketOf(length);
  if (b < static_cast<size_t>(kExact)) return below_[b];
  const int64_t low = LowOf(b);
  const double part = static_cast<double>(length - low) / static_cast<double>(LowOf(b + 1) - low);
  return below_[b] + (below_[b + 1] - below_[b]) * part;
}

TokenCount LengthDistribution::QuantileAbove(double q, TokenCount generated) const {
  const int64_t g = generated.value();
  const double gone = Below(g + 1);
  if (1 - gone < kNothingLeft) return TokenCount(g + std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(g) * q)));
  const double target = std::min(gone + q * (1 - gone), 1.0);
  size_t b = guide_[static_cast<size_t>(target * kGuide)];
  while (b + 1 < kBuckets && below_[b + 1] <= target) ++b;
  const int64_t low = LowOf(b);
  if (b < static_cast<size_t>(kExact)) return TokenCount(std::max(low, g + 1));
  const double part = (target - below_[b]) / (below_[b + 1] - below_[b]);
  const int64_t width = LowOf(b + 1) - low;
  const int64_t inside = std::min(static_cast<int64_t>(part * static_cast<double>(width)), width - 1);
  return TokenCount(std::max(low + inside, g + 1));
}

TokenCount LengthDistribution::MeanAbove(TokenCount generated) const {
  const int64_t g = generated.value();
  const double left = 1 - Below(g + 1);
  if (left < kNothingLeft) return TokenCount(g + std::max<int64_t>(1, g / 2));
  const size_t b = BucketOf(g + 1);
  const int64_t high = LowOf(b + 1);
  // Of g's own bucket only the lengths g + 1 .. high - 1 count.
  const double own = below_[b + 1] - Below(g + 1);
  const double sum = moment_[b + 1] + own * static_cast<double>(g + high) / 2;
  return TokenCount(std::max(static_cast<int64_t>(std::llround(sum / left)), g + 1));
}

}  // namespace foretoken
