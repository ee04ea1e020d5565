// ErrorSpread: what a predictor has learnt about its own relative error, ln(actual / predicted): a scale for probabilities and
// the factor from the median to the 90th percentile. Bounded and forgetting; starts from a prior. Learnt state: it never moves
// the median of a prediction.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "runtime/base/units.h"

namespace foretoken {

// P(X <= x) of a logistic variable with about a normal's spread. No table, no state: the same bits everywhere.
inline double LogisticCdf(double z) { return z > 12 ? 1.0 : z < -12 ? 0.0 : 1.0 / (1.0 + std::exp(-1.702 * z)); }

class ErrorSpread {
 public:
  ErrorSpread() = default;
  explicit ErrorSpread(double prior_scale) : scale_(prior_scale), log_p90_(1.28 * prior_scale) {}

  void Observe(Duration predicted, Duration actual) {
    const double p = std::max(predicted.seconds(), 1e-4), a = std::max(actual.seconds(), 1e-4);
    const double error = std::clamp(std::log(a / p), -3.0, 3.0);
    ++observed_;
    const double rate = 1.0 / static_cast<double>(std::min<uint64_t>(observed_ + kPriorWeight, kMemory));
    // Mean absolute deviation times sqrt(pi / 2) is a normal's standard deviation.
    scale_ = std::clamp(scale_ + rate * (1.2533 * std::abs(error) - scale_), kLeastScale, 2.0);
    // Robbins-Monro: settles where one error in ten lies above.
    const double step = std::max(rate, 0.02) * 2.0 * scale_;
    log_p90_ = std::clamp(log_p90_ + (error > log_p90_ ? 0.9 : -0.1) * step, 0.0, 3.0);
    factor_p90_ = std::exp(log_p90_);
  }

  double scale() const { return scale_; }
  double factor_p90() const { return factor_p90_; }
  uint64_t observed() const { return observed_; }

  // P(actual > target), given the median prediction in seconds.
  double Exceeds(double predicted_s, double target_s) const {
    if (predicted_s <= 0) return 0;
    // Far from the target the answer is 0 or 1 to seven digits: no logarithm.
    if (predicted_s * 20 < target_s && scale_ < 0.3) return 0;
    return LogisticCdf(std::log(predicted_s / target_s) / scale_);
  }

 private:
  static constexpr uint64_t kPriorWeight = 20;
  static constexpr uint64_t kMemory = 500;
  static constexpr double kLeastScale = 0.01;
  double scale_ = 0.1;
  double log_p90_ = 0.128;
  double factor_p90_ = 1.1366;
  uint64_t observed_ = 0;
};

}  // namespace foretoken
