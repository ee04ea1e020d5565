// SlidingSketch: quantiles of the values of the last seconds, in fixed memory: one QuantileSketch per slot of time, cleared when its turn
// comes again. Add is O(1) with one logarithm; Read merges the slots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/metrics/quantile_sketch.h"

namespace foretoken {

// What Read gives: figures of the values in the window; all 0 when there were none.
struct Spread {
  uint64_t count = 0;
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p95 = 0;
  double p99 = 0;
  bool operator==(const Spread&) const = default;
};

inline Spread SpreadOf(const QuantileSketch& s) {
  if (s.count() == 0) return {};
  return {s.count(), *s.Mean(), *s.Quantile(.5), *s.Quantile(.9), *s.Quantile(.95), *s.Quantile(.99)};
}

class SlidingSketch {
 public:
  SlidingSketch(const SlidingSketch&) = delete;
  SlidingSketch& operator=(const SlidingSketch&) = delete;
  // The window is slots x slot long; the slot under way counts from its begin.
  SlidingSketch(size_t slots, Duration slot, const QuantileSketchOptions& options)
      : options_(options), slot_(slot), slots_(slots, Slot{-1, QuantileSketch(options)}) {}

  void Add(double value, Instant now) {
    if (now < begin_ || now >= end_) Turn(now);
    current_->sketch.Add(value);
  }
  // Everything in the window that ends now.
  QuantileSketch Read(Instant now) const {
    const int64_t turn = now.nanos() / slot_.nanos();
    QuantileSketch out(options_);
    for (const Slot& s : slots_)
      if (s.turn >= 0 && s.turn <= turn && turn - s.turn < static_cast<int64_t>(slots_.size())) out.Merge(s.sketch);
    return out;
  }

 private:
  struct Slot {
    int64_t turn;
    QuantileSketch sketch;
  };

  void Turn(Instant now) {
    const int64_t turn = now.nanos() / slot_.nanos();
    current_ = &slots_[static_cast<size_t>(turn) % slots_.size()];
    begin_ = Instant() + slot_ * turn;
    end_ = begin_ + slot_;
    if (current_->turn == turn) return;
    current_->sketch.Clear();
    current_->turn = turn;
  }

  QuantileSketchOptions options_;
  Duration slot_;
  std::vector<Slot> slots_;
  Slot* current_ = nullptr;  // that of [begin_, end_)
  Instant begin_, end_;
};

}  // namespace foretoken
