// ShadowStatistics: what comparing a second policy with the one that routes has shown: how often it would have decided otherwise, and
// what that is expected to bring, with an interval. The gain of one decision is the predicted end-to-end time where the request went
// less that where the second policy would have sent it, both predicted at the same instant. Pure.
//
// Neighbouring decisions see the same load, so the interval is taken from the means of batches of decisions, not from single ones.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "runtime/base/units.h"

namespace foretoken {

class ShadowStatistics {
 public:
  struct Report {
    uint64_t decisions = 0;
    double differ_share = 0;
    double mean_e2e_s = 0;  // predicted where requests went
    double gain_s = 0;      // mean over all decisions
    double gain_low_s = 0;  // 95 % interval of it; equal to gain_s while there are too few batches to tell
    double gain_high_s = 0;
    uint64_t batches = 0;
  };

  void Add(bool differs, Duration e2e_there, Duration e2e_shadow) {
    const double gain = e2e_there.seconds() - e2e_shadow.seconds();
    ++decisions_;
    differ_ += differs;
    gain_ += gain;
    e2e_ += e2e_there.seconds();
    batch_ += gain;
    if (++in_batch_ < kBatch) return;
    const double mean = batch_ / kBatch;
    ++batches_;
    const double off = mean - batch_mean_;
    batch_mean_ += off / static_cast<double>(batches_);
    squares_ += off * (mean - batch_mean_);
    batch_ = 0;
    in_batch_ = 0;
  }

  Report report() const {
    Report r;
    r.decisions = decisions_;
    r.batches = batches_;
    if (decisions_ == 0) return r;
    const double n = static_cast<double>(decisions_);
    r.differ_share = static_cast<double>(differ_) / n;
    r.mean_e2e_s = e2e_ / n;
    r.gain_s = r.gain_low_s = r.gain_high_s = gain_ / n;
    if (batches_ < kLeastBatches) return r;
    const double b = static_cast<double>(batches_);
    const double half =
        1.96 * (1 + 1.25 / b) * std::sqrt(squares_ / (b - 1) / b);  // Student's t, near enough from 5 batches on
    r.gain_low_s -= half;
    r.gain_high_s += half;
    return r;
  }

 private:
  static constexpr int kBatch = 50;
  static constexpr uint64_t kLeastBatches = 5;

  uint64_t decisions_ = 0, differ_ = 0, batches_ = 0;
  double gain_ = 0, e2e_ = 0;
  double batch_ = 0, batch_mean_ = 0, squares_ = 0;
  int in_batch_ = 0;
};

}  // namespace foretoken
