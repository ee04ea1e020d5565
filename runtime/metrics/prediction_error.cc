#include "runtime/metrics/prediction_error.h"

#include <cmath>

namespace foretoken {

void PredictionError::Add(double predicted, double actual) {
  if (!(actual > 0)) {
    ++without_actual_;
    return;
  }
  ape_.Add(std::fabs(predicted - actual) / actual);
  predicted_ += predicted;
  actual_ += actual;
}

std::optional<double> PredictionError::Bias() const {
  if (ape_.count() == 0) return std::nullopt;
  return predicted_ / actual_ - 1;
}

}  // namespace foretoken
