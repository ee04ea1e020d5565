// Calibrator: corrects a step-time law online from the durations that an engine reports. Per regime (pure decode by batch size,
// mixed by prompt tokens; knots at powers of two, linear between them) it fits factor and overhead,
//   corrected = factor * law + overhead,
// by least squares of errors relative to the prediction (so that it meets the mean of steps that vary) with exponential
// forgetting; a step far off counts less, so that a stall does not move it.
// Guarantees: factor 0.25..4, overhead 0..the law's typical time in the regime; a regime without observations follows the mean
// of all; memory is constant; the laws it hands out are immutable and equal for equal version(). Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "runtime/base/units.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {

class Calibrator {
 public:
  struct Options {
    double forgetting = 0.98;       // weight of a regime's observations one observation later: about the last 50 count
    double publish_change = 0.005;  // a new version when a correction has moved by this much, relative
    double prior_weight = 2.0;      // observations' worth of belief in the mean of all regimes
  };
  // `base` is what is corrected; never null.
  explicit Calibrator(std::shared_ptr<const StepTimeLaw> base) : Calibrator(std::move(base), Options()) {}
  Calibrator(std::shared_ptr<const StepTimeLaw> base, Options options);

  // A step of this shape took `measured` accelerator time (host overhead that StepTimeModel adds apart must be taken off). Empty
  // shapes and durations <= 0 are ignored.
  void Observe(const StepShape& shape, Duration measured);

  // The corrected law of this version.
  std::shared_ptr<const StepTimeLaw> law() const { return published_; }
  uint64_t version() const { return version_; }
  uint64_t observed() const { return observed_; }

  static constexpr size_t kKnots = 16;  // 1, 2, 4, ... 32,768 sequences or tokens

 private:
  // Decayed sums of a weighted regression of measured / unit on (law / unit, 1 ns / unit); the unit is what was predicted.
  struct Sums {
    double n = 0, tt = 0, t = 0, one = 0, ty = 0, y = 0, mean_t = 0;
  };
  struct Correction {
    double factor = 1, overhead_ns = 0;
  };
  using Corrections = std::array<std::array<Correction, kKnots>, 2>;  // [pure decode, mixed][knot]
  class CorrectedLaw;

  // One observation as one knot sees it.
  struct Sample {
    double law_ns = 0, unit_ns = 0;
    double share = 1;   // the knot's weight in the prediction, 0..1
    double target = 1;  // what it should add, in units
    double robust = 1;  // weight, less for outliers
  };
  void Add(Sums& sums, const Sample& sample) const;
  Correction Solve(const Sums& sums, double prior_factor) const;
  void PublishIfMoved();

  std::shared_ptr<const StepTimeLaw> base_;
  Options options_;
  std::array<std::array<Sums, kKnots>, 2> sums_{};
  Sums all_;
  double spread_ = 1.0;  // running mean of |relative error|
  Corrections current_{};
  Corrections last_published_{};
  std::shared_ptr<const StepTimeLaw> published_;
  uint64_t version_ = 0;
  uint64_t observed_ = 0;
};

}  // namespace foretoken
