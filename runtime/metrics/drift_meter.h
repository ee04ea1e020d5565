// DriftMeter: whether a predictor is still right, from the newest predictions that came true. Fixed memory: older pairs fall out
// of the window.
//
// Bias: sum of predicted / sum of actual - 1 over the window. Coverage: the share of actuals at or below the predicted p90;
// 0.9 is well calibrated, less means too bold, more means too wide. Pairs whose actual is not above 0 are left out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace foretoken {

struct DriftPair {
  double predicted = 0;  // p50
  double predicted_p90 = 0;
  double actual = 0;
};

struct DriftReport {
  size_t count = 0;  // pairs in the window
  double bias = 0;
  double ape_p50 = 0;
  double ape_p95 = 0;
  double coverage_p90 = 0;
};

class DriftMeter {
 public:
  explicit DriftMeter(size_t window = 512);  // > 0

  void Add(const DriftPair& pair);
  uint64_t total() const { return total_; }   // pairs ever added
  std::optional<DriftReport> Report() const;  // absent before the first pair; O(window)
  void Clear();                               // after a change of the model: what was learned before says nothing

 private:
  size_t window_;
  std::vector<DriftPair> pairs_;  // a ring once full
  uint64_t total_ = 0;
};

}  // namespace foretoken
