// MakePredictor: the predictor that an instance's configuration names.
#pragma once

#include <memory>

#include "runtime/base/result.h"
#include "runtime/predict/predictor.h"

namespace foretoken {

// `lengths` may be null; otherwise it outlives the predictor. Error: the kind makes no predictions of its own (ledger), or the
// engine's limits are impossible for it.
Result<std::unique_ptr<Predictor>> MakePredictor(PredictorKind kind, InstanceProfile profile, const LengthEstimator* lengths);

}  // namespace foretoken
