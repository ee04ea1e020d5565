#include "runtime/metrics/sample_set.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

// Quantile of `values` from index `from` on, which hold the greatest ones; reorders them. Returns where it cut, for the next,
// higher quantile.
double QuantileFrom(std::vector<double>& values, size_t& from, double q) {
  const double position = q * static_cast<double>(values.size() - 1);
  const auto below = std::min(static_cast<size_t>(position), values.size() - 1);
  std::nth_element(values.begin() + static_cast<std::ptrdiff_t>(from), values.begin() + static_cast<std::ptrdiff_t>(below),
                   values.end());
  from = below;
  const double low = values[below];
  const double part = position - static_cast<double>(below);
  if (part <= 0) return low;
  const double high = *std::min_element(values.begin() + static_cast<std::ptrdiff_t>(below) + 1, values.end());
  return low + (high - low) * part;
}

}  // namespace

std::optional<double> SampleSet::Mean() const {
  if (values_.empty()) return std::nullopt;
  double sum = 0;
  for (const double v : values_) sum += v;
  return sum / static_cast<double>(values_.size());
}

std::optional<double> SampleSet::Quantile(double q) const {
  FT_CHECK(q >= 0 && q <= 1);
  if (values_.empty()) return std::nullopt;
  std::vector<double> copy = values_;
  size_t from = 0;
  return QuantileFrom(copy, from, q);
}

std::optional<Summary> SampleSet::Summarize() const {
  if (values_.empty()) return std::nullopt;
  std::vector<double> copy = values_;
  Summary s;
  size_t from = 0;
  s.count = values_.size();
  s.mean = *Mean();
  s.p50 = QuantileFrom(copy, from, 0.5);
  s.p95 = QuantileFrom(copy, from, 0.95);
  s.p99 = QuantileFrom(copy, from, 0.99);
  s.max = *std::max_element(copy.begin() + static_cast<std::ptrdiff_t>(from), copy.end());
  return s;
}

}  // namespace foretoken
