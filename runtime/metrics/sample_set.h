// SampleSet: every value of one figure of a run, for exact statistics. Live figures without bound belong in a QuantileSketch.
//
// Quantile: the value at position q * (n - 1) of the sorted values, interpolated linearly between neighbours (numpy's and
// Excel's default, Hyndman and Fan's type 7). Mean: the sum in the order of adding over n, so a re-run gives the same bits.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

namespace foretoken {

// What reports print of a latency; absent fields of an empty set stay out of a report.
struct Summary {
  size_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p95 = 0;
  double p99 = 0;
  double max = 0;
  bool operator==(const Summary&) const = default;
};

class SampleSet {
 public:
  void Add(double value) { values_.push_back(value); }
  void Reserve(size_t count) { values_.reserve(count); }
  size_t count() const { return values_.size(); }
  const std::vector<double>& values() const { return values_; }  // in the order of adding

  // Absent when empty.
  std::optional<double> Mean() const;
  std::optional<double> Quantile(double q) const;  // 0 <= q <= 1; O(n)
  std::optional<Summary> Summarize() const;

 private:
  std::vector<double> values_;
};

}  // namespace foretoken
