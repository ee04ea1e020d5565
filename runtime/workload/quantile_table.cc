#include "runtime/workload/quantile_table.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

constexpr size_t kEven = 128;  // points before the tail

double MeanOf(const std::vector<double>& values) {
  const auto& positions = QuantileTable::Positions();
  double mean = 0;
  for (size_t k = 1; k < values.size(); ++k) mean += (positions[k] - positions[k - 1]) * (values[k] + values[k - 1]) / 2;
  return mean;
}

// Scales the tail's distance from the last even point so that the mean becomes `mean`, as far as half or twice allows.
void MatchMean(double mean, std::vector<double>& values) {
  const double base = values[kEven - 1];
  std::vector<double> flat = values;
  std::fill(flat.begin() + kEven, flat.end(), base);
  const double without = MeanOf(flat), with = MeanOf(values);
  if (with <= without) return;
  const double factor = std::clamp((mean - without) / (with - without), 0.5, 2.0);
  for (size_t k = kEven; k < values.size(); ++k) values[k] = base + (values[k] - base) * factor;
}

}  // namespace

const std::array<double, QuantileTable::kPoints>& QuantileTable::Positions() {
  static const std::array<double, kPoints> positions = [] {
    std::array<double, kPoints> p{};
    for (size_t k = 0; k < kEven; ++k) p[k] = static_cast<double>(k) / kEven;
    const double tail[] = {0.995, 0.998, 0.999, 0.9995, 0.9998, 1};  // 127 / 128 = 0.992
    std::copy(std::begin(tail), std::end(tail), p.begin() + kEven);
    return p;
  }();
  return positions;
}

QuantileTable::QuantileTable(std::vector<double> values) : values_(std::move(values)) {
  FT_CHECK(values_.size() == kPoints && std::is_sorted(values_.begin(), values_.end()));
}

QuantileTable QuantileTable::Of(std::vector<double> observations) {
  FT_CHECK(!observations.empty());
  std::sort(observations.begin(), observations.end());
  std::vector<double> values;
  values.reserve(kPoints);
  for (const double q : Positions()) {
    const double position = q * static_cast<double>(observations.size() - 1);
    const auto below = std::min(static_cast<size_t>(position), observations.size() - 1);
    const double next = observations[std::min(below + 1, observations.size() - 1)];
    values.push_back(observations[below] + (next - observations[below]) * (position - static_cast<double>(below)));
  }
  MatchMean(std::accumulate(observations.begin(), observations.end(), 0.0) / static_cast<double>(observations.size()), values);
  return QuantileTable(std::move(values));
}

double QuantileTable::At(double q) const {
  FT_CHECK(!values_.empty() && q >= 0 && q <= 1);
  const auto& positions = Positions();
  const auto up = static_cast<size_t>(std::upper_bound(positions.begin(), positions.end(), q) - positions.begin());
  if (up == kPoints) return values_.back();
  const double part = (q - positions[up - 1]) / (positions[up] - positions[up - 1]);
  return values_[up - 1] + (values_[up] - values_[up - 1]) * part;
}

double QuantileTable::Mean() const {
  FT_CHECK(!values_.empty());
  return MeanOf(values_);
}

}  // namespace foretoken
