#include "integration/engines/openai/engine_mirror.h"

#include <utility>

#include "runtime/base/check.h"
#include "runtime/perf/step_time_law.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

std::unique_ptr<LengthEstimator> NewLengths() {
  auto lengths = MakeLengthEstimator(LengthEstimatorKind::kHint);
  FT_CHECK(lengths.ok());
  return std::move(lengths).value();
}

}  // namespace

EngineMirror::EngineMirror(Options options) : options_(options) {
  step_time_.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{8e6, 5e4, 5e4, 50});
  SimulatorCore::Options o;
  o.profile.instance = options_.instance;
  o.profile.step_time = step_time_;
  o.profile.slo = options_.slo;
  o.level = SyncLevel::kNone;
  auto lengths = NewLengths();
  auto predictor = MakePredictor(PredictorKind::kTimeline, o.profile, lengths.get());
  FT_CHECK(predictor.ok());
  simulator_ = std::make_unique<SimulatorCore>(std::move(o), std::move(predictor).value(), std::move(lengths));
}

Prediction EngineMirror::Predict(const PredictQuery& query, Instant now) {
  Prediction p = simulator_->Predict(query, now);
  p.level = StateLevel::kInferred;
  return p;
}

EnqueueReply EngineMirror::OnEnqueue(const EnqueueOrder& order, Instant now) { return simulator_->OnEnqueue(order, now); }

void EngineMirror::OnSent(const RequestMeta&, bool, Instant) {}

void EngineMirror::OnOutput(RequestId, int32_t, Instant) {}

void EngineMirror::OnFinished(RequestId request, TokenCount output, Instant now) { simulator_->OnEnded(request, output, now); }

void EngineMirror::OnGone(RequestId request, Instant now) { simulator_->OnCancel(request, now); }

}  // namespace foretoken
