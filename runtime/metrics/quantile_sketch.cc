#include "runtime/metrics/quantile_sketch.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/check.h"

namespace foretoken {

// A bucket [b, b g) is answered by b * 2g / (1 + g), which is off by at most (g - 1) / (g + 1) = accuracy at either border.
QuantileSketch::QuantileSketch(const QuantileSketchOptions& options) : options_(options) {
  FT_CHECK(options.accuracy > 0 && options.accuracy < 1 && options.least > 0 && options.most > options.least);
  const double growth = (1 + options.accuracy) / (1 - options.accuracy);
  growth_log_ = std::log(growth);
  middle_ = 2 * growth / (1 + growth);
  counts_.assign(static_cast<size_t>(std::log(options.most / options.least) / growth_log_) + 1, 0);
}

void QuantileSketch::Add(double value) {
  sum_ += value;
  ++count_;
  const double clamped = value > options_.least ? std::min(value, options_.most) : options_.least;  // NaN: least
  const auto bucket = static_cast<size_t>(std::log(clamped / options_.least) / growth_log_);
  ++counts_[std::min(bucket, counts_.size() - 1)];
}

void QuantileSketch::Merge(const QuantileSketch& other) {
  FT_CHECK(options_.accuracy == other.options_.accuracy && options_.least == other.options_.least &&
           options_.most == other.options_.most);
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  sum_ += other.sum_;
}

void QuantileSketch::Clear() {
  std::fill(counts_.begin(), counts_.end(), 0);
  count_ = 0;
  sum_ = 0;
}

std::optional<double> QuantileSketch::Quantile(double q) const {
  FT_CHECK(q >= 0 && q <= 1);
  if (count_ == 0) return std::nullopt;
  const auto rank = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(q * static_cast<double>(count_))));
  uint64_t seen = 0;
  size_t bucket = 0;
  while ((seen += counts_[bucket]) < rank) ++bucket;
  return options_.least * std::exp(growth_log_ * static_cast<double>(bucket)) * middle_;
}

std::optional<double> QuantileSketch::Mean() const {
  if (count_ == 0) return std::nullopt;
  return sum_ / static_cast<double>(count_);
}

}  // namespace foretoken
