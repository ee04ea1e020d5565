// StepTimeModel: a law plus what one instance adds to it: host overhead per step, a factor, the CUDA-graph staircase.
// The emulated truth and the predictors each hold their own; noise is apart (StepNoise), since predictors never see it.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/base/units.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {

struct StepTimeModel {
  std::shared_ptr<const StepTimeLaw> law;  // shared, immutable; never null
  Duration host_overhead;                  // added to every step that computes anything
  double factor = 1.0;                     // multiplies the law's time (biased tables, a slow card)
  // Captured CUDA-graph batch sizes, ascending; a pure-decode step is padded up to the next one. Empty: no padding.
  std::vector<int32_t> graph_sizes;

  int64_t Padded(int64_t decode_seqs) const {
    for (int32_t s : graph_sizes)
      if (s >= decode_seqs) return s;
    return decode_seqs;
  }
  // Nanoseconds before noise and rounding; 0 for an empty step.
  double NanosOf(const StepShape& shape) const {
    if (shape.prefill_tokens == 0) {
      if (shape.decode_seqs == 0) return 0;
      const DecodeSegment s = DecodeSegmentAt(shape.decode_seqs, shape.decode_kv_tokens);
      return s.base_ns + s.per_kv_token_ns * static_cast<double>(shape.decode_kv_tokens);
    }
    return law->NanosOf(shape) * factor + static_cast<double>(host_overhead.nanos());
  }
  // The linear piece of pure-decode steps, factor and overhead included.
  DecodeSegment DecodeSegmentAt(int64_t decode_seqs, int64_t kv) const {
    DecodeSegment s = law->DecodeSegmentAt(Padded(decode_seqs), kv);
    s.base_ns = s.base_ns * factor + static_cast<double>(host_overhead.nanos());
    s.per_kv_token_ns *= factor;
    return s;
  }
  Duration At(const StepShape& shape) const { return Duration::FromNanos(NanosOf(shape)); }
};

// Multiplicative noise of the emulated truth: the factor of step k is exp(sigma z_k - sigma^2/2), mean 1, a pure function of
// (seed, k) so that jumping over steps does not change it.
struct StepNoise {
  uint64_t seed = 0;
  double sigma = 0;  // 0.02: 2 %
  // A card that turns slow in its course: from this step on it takes so many times as long.
  uint64_t slow_from = ~uint64_t{0};
  double slow_factor = 1;
  bool silent() const { return sigma == 0 && slow_factor == 1; }
  double FactorAt(uint64_t step) const {
    const double factor = sigma == 0 ? 1.0 : std::exp(sigma * NormalAt(seed, step) - 0.5 * sigma * sigma);
    return step < slow_from ? factor : factor * slow_factor;
  }
};

}  // namespace foretoken
