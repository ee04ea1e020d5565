// QuantileTable: a distribution as its values at a fixed set of quantiles: k / 128, and six in the upper tail, whose extremes
// make or break a queue. In between, linear. 134 numbers stand for any number of observations.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace foretoken {

class QuantileTable {
 public:
  static constexpr size_t kPoints = 134;
  static const std::array<double, kPoints>& Positions();

  QuantileTable() = default;
  // One value per position, ascending.
  explicit QuantileTable(std::vector<double> values);
  // From observations (at least one; any order). Straight lines between the points of a long tail lie above it, so the tail's
  // points are drawn in until the mean is that of the observations.
  static QuantileTable Of(std::vector<double> observations);

  bool empty() const { return values_.empty(); }
  const std::vector<double>& values() const { return values_; }
  double At(double q) const;  // 0 <= q <= 1
  double Mean() const;
  bool operator==(const QuantileTable&) const = default;

 private:
  std::vector<double> values_;
};

}  // namespace foretoken
