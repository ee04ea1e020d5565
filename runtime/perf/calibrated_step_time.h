// CalibratedStepTime: an instance's step-time model whose law follows the durations that its steps really took. It owns the
// calibrator (one per mirror) and says when the model changed: only then must what was computed from it be thrown away.
// Guarantees: without `calibrate` the model never changes; between two calls of Observe it never changes, so a prediction stays a
// pure function of what was observed. Not thread-safe.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>

#include "runtime/base/units.h"
#include "runtime/perf/calibrator.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

class CalibratedStepTime {
 public:
  CalibratedStepTime(StepTimeModel model, bool calibrate)
      : model_(std::move(model)), calibrator_(calibrate ? std::make_unique<Calibrator>(model_.law) : nullptr) {}

  const StepTimeModel& model() const { return model_; }

  // A step of this shape took `measured`. True: the model is another one from now on. Host overhead and the instance's factor
  // are the model's own: the law is corrected for what they leave.
  bool Observe(StepShape shape, Duration measured) {
    if (calibrator_ == nullptr || measured.nanos() <= 0) return false;
    if (shape.prefill_tokens == 0) shape.decode_seqs = model_.Padded(shape.decode_seqs);
    const double overhead_ns = static_cast<double>(model_.host_overhead.nanos());
    const double law_ns = std::max(1.0, static_cast<double>(measured.nanos()) - overhead_ns) / model_.factor;
    calibrator_->Observe(shape, Duration::FromNanos(law_ns));
    if (calibrator_->version() == version_) return false;
    version_ = calibrator_->version();
    model_.law = calibrator_->law();
    return true;
  }

  size_t memory_bytes() const { return calibrator_ == nullptr ? 0 : sizeof(Calibrator); }

 private:
  StepTimeModel model_;
  std::unique_ptr<Calibrator> calibrator_;
  uint64_t version_ = 0;
};

}  // namespace foretoken
