// EngineMirror: the mirror of one engine that reports nothing, fed by what passes through the gateway: what was sent to it and when,
// when output came, when requests ended. Pure: time comes in.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/perf/step_time_model.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/predict/simulator_core.h"

namespace foretoken {

class EngineMirror {
 public:
  struct Options {
    InstanceId instance;
    Slo slo;
  };

  explicit EngineMirror(Options options);

  Prediction Predict(const PredictQuery& query, Instant now);
  EnqueueReply OnEnqueue(const EnqueueOrder& order, Instant now);
  void OnSent(const RequestMeta& request, bool streaming, Instant now);
  void OnOutput(RequestId request, int32_t chunks, Instant now);
  void OnFinished(RequestId request, TokenCount output, Instant now);
  // Taken back: cancelled or failed there.
  void OnGone(RequestId request, Instant now);

  StepTimeModel step_time() const { return step_time_; }
  const SimulatorCore& simulator() const { return *simulator_; }

 private:
  Options options_;
  StepTimeModel step_time_;
  std::unique_ptr<SimulatorCore> simulator_;
};

}  // namespace foretoken
