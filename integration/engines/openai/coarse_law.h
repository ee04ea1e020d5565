// CoarseLaw: how fast an engine is, learnt from nothing: a generic law, moved in coarse strides until the online calibrator's range holds
// the truth. Pure.
#pragma once

#include <cstdint>

#include "runtime/model/batch_trace.h"
#include "runtime/perf/step_time_law.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

class CoarseLaw {
 public:
  CoarseLaw();
  // A step whose duration was seen. True: the law has moved.
  bool Observe(const BatchTrace& step);

  const StepTimeModel& model() const { return model_; }
  uint64_t moved() const { return moved_; }
  // Has the engine's speed been seen?
  bool measured() const { return moved_ > 0 || decode_seen_ >= kLeastSeen; }

 private:
  static constexpr uint64_t kLeastSeen = 6;
  // Once it has moved some times: what it learns costs the mirror its memory.
  static constexpr uint64_t kSettledSeen = 200;

  void Move(double decode_ratio, double prefill_ratio);

  AffineStepTime::Coefficients base_;
  StepTimeModel model_;
  // Means of ln(seen / base) of steps without and with prompts.
  double decode_log_ = 0, prefill_log_ = 0;
  uint64_t decode_seen_ = 0, prefill_seen_ = 0;
  uint64_t moved_ = 0;
};

}  // namespace foretoken
