#include "runtime/predict/make_predictor.h"

#include "runtime/predict/pattern.h"
#include "runtime/predict/reference.h"
#include "runtime/predict/timeline.h"

namespace foretoken {

Result<std::unique_ptr<Predictor>> MakePredictor(PredictorKind kind, InstanceProfile profile, const LengthEstimator* lengths) {
  if (profile.step_time.law == nullptr)
    return Error{"the instance has no step-time law: a predictor needs a table or coefficients"};
  const EngineConfig& limits = profile.limits;
  if (limits.max_num_seqs <= 0 || limits.max_num_batched_tokens <= 0 || limits.block_size <= 0 || limits.num_gpu_blocks <= 1) {
    return Error{"max_num_seqs, max_num_batched_tokens, block_size and num_gpu_blocks - 1 must be > 0"};
  }
  switch (kind) {
    case PredictorKind::kTimeline:
      return std::unique_ptr<Predictor>(std::make_unique<TimelinePredictor>(std::move(profile), lengths, TimelineOptions{}));
    case PredictorKind::kPattern:
      return std::unique_ptr<Predictor>(std::make_unique<PatternPredictor>(std::move(profile), lengths, false));
    case PredictorKind::kPatternReuse:
      return std::unique_ptr<Predictor>(std::make_unique<PatternPredictor>(std::move(profile), lengths, true));
    case PredictorKind::kReference: {
      auto reference = ReferencePredictor::Make(std::move(profile), lengths);
      if (!reference.ok()) return reference.error();
      return std::unique_ptr<Predictor>(std::move(reference).value());
    }
    case PredictorKind::kLedger: break;
  }
  return Error{"no such predictor here: choose timeline, pattern, pattern_reuse or reference"};
}

}  // namespace foretoken
