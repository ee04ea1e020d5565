// LatencyHistogram: how often latencies fell between fixed bounds, since the start: what a scraper makes rates and quantiles of.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/base/units.h"

namespace foretoken {

// 100 us, doubling, up to 52 s and beyond.
class LatencyHistogram {
 public:
  static constexpr size_t kBounds = 20;
  static constexpr double Bound(size_t i) { return 1e-4 * static_cast<double>(uint64_t{1} << i); }

  void Add(Duration d) { Add(d.seconds()); }
  void Add(double seconds) {
    size_t i = 0;
    while (i < kBounds && seconds > Bound(i)) ++i;
    ++counts_[i];
    sum_ += seconds;
    ++count_;
  }
  void Merge(const LatencyHistogram& other) {
    for (size_t i = 0; i <= kBounds; ++i) counts_[i] += other.counts_[i];
    sum_ += other.sum_;
    count_ += other.count_;
  }
  uint64_t at(size_t i) const { return counts_[i]; }  // i == kBounds: beyond all
  uint64_t count() const { return count_; }
  double sum() const { return sum_; }

 private:
  std::array<uint64_t, kBounds + 1> counts_{};
  uint64_t count_ = 0;
  double sum_ = 0;
};

}  // namespace foretoken
