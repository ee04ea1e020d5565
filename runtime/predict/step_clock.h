// StepClock: a step-time model in exact integer arithmetic, so that a run of decode steps added up in closed form equals the sum
// of its steps, however it is cut. That makes a cached timeline and one rebuilt from the state give the same bits.
// Ticks are 2^-16 ns: 39 hours fit, and a coefficient of .03 ns per KV token is met to .03 %.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

using Ticks = int64_t;
constexpr int kTickBits = 16;
constexpr Ticks TicksOf(double ns) { return static_cast<Ticks>(ns * 65536.0 + 0.5); }
// Saturates at 19 hours either way: nothing that a prediction compares lies further off.
constexpr Ticks TicksOf(Duration d) {
  constexpr int64_t kLimit = int64_t{1} << 46;
  const int64_t ns = d.nanos() > kLimit ? kLimit : d.nanos() < -kLimit ? -kLimit : d.nanos();
  return ns * (int64_t{1} << kTickBits);
}
constexpr Duration DurationOf(Ticks t) { return Duration::Nanos((t + (int64_t{1} << (kTickBits - 1))) >> kTickBits); }

class StepClock {
 public:
  // A linear piece of pure-decode steps of one size: base + per_token * kv for kv < until.
  struct Piece {
    int32_t decode_seqs = -1;
    int64_t from = 0;
    int64_t until = 0;
    Ticks base = 0;
    Ticks per_token = 0;

    // At most `limit` steps (>= 1) that stay in the piece when the KV tokens grow by `decode_seqs` a step.
    int64_t StepsWithin(int64_t kv, int64_t limit) const {
      if (until - kv > (limit - 1) * decode_seqs) return limit;
      return (until - kv + decode_seqs - 1) / decode_seqs;
    }
    // Sum over `steps` steps, the first one at `kv`.
    Ticks Sum(int64_t kv, int64_t steps) const {
      return steps * base + per_token * (steps * kv + decode_seqs * (steps * (steps - 1) / 2));
    }
  };

  explicit StepClock(StepTimeModel model) : model_(std::move(model)), cache_(kCached) {}

  const StepTimeModel& model() const { return model_; }
  void Reset(StepTimeModel model) {
    model_ = std::move(model);
    cache_.assign(kCached, Piece{});
  }

  // decode_seqs >= 1. The cache holds what the law says, so it never changes an answer.
  const Piece& Decode(int64_t decode_seqs, int64_t kv) {
    Piece& p = cache_[static_cast<size_t>(decode_seqs) % kCached];
    if (p.decode_seqs != decode_seqs || kv < p.from || kv >= p.until) {
      const DecodeSegment s = model_.DecodeSegmentAt(decode_seqs, kv);
      p = {static_cast<int32_t>(decode_seqs), s.kv_from, s.kv_until, TicksOf(s.base_ns), TicksOf(s.per_kv_token_ns)};
    }
    return p;
  }
  Ticks Mixed(const StepShape& shape) const { return TicksOf(model_.NanosOf(shape)); }

  size_t memory_bytes() const { return cache_.capacity() * sizeof(Piece) + model_.graph_sizes.capacity() * sizeof(int32_t); }

 private:
  static constexpr size_t kCached = 64;
  StepTimeModel model_;
  std::vector<Piece> cache_;
};

}  // namespace foretoken
