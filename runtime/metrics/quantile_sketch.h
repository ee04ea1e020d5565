// QuantileSketch: quantiles of a live stream in fixed memory, by counting in buckets whose borders grow geometrically.
//
// Guarantee: a quantile of values within [least, most] is within `accuracy` (relative) of the exact nearest-rank one. Values
// below `least` (also 0 and negatives) count as `least`, those above `most` as `most`. Merging sketches of the same options is
// exact: the result is the sketch of both streams. Add is O(1) with one logarithm, Quantile O(buckets).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace foretoken {

struct QuantileSketchOptions {
  double accuracy = 0.01;  // 1 %: 1,036 buckets from 1 us to 1,000 s
  double least = 1e-6;
  double most = 1e3;
};

class QuantileSketch {
 public:
  explicit QuantileSketch(const QuantileSketchOptions& options = {});

  void Add(double value);
  // The options must be the same.
  void Merge(const QuantileSketch& other);
  void Clear();
  uint64_t count() const { return count_; }
  // Nearest rank: the least value that at least q * count values do not exceed. Absent when empty; 0 <= q <= 1.
  std::optional<double> Quantile(double q) const;
  std::optional<double> Mean() const;  // of the values as they came, exact but for rounding
  size_t memory_bytes() const { return counts_.capacity() * sizeof(uint64_t); }

 private:
  QuantileSketchOptions options_;
  double growth_log_ = 0;  // ln of the ratio of neighbouring borders
  double middle_ = 0;      // the value that stands for a bucket, over its lower border
  std::vector<uint64_t> counts_;
  uint64_t count_ = 0;
  double sum_ = 0;
};

}  // namespace foretoken
