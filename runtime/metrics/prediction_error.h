// PredictionError: how far predictions were from what came, over a whole run.
//
// APE (absolute percentage error) of one prediction: |predicted - actual| / actual, as a fraction (0.1 = 10 %). Bias: sum of
// predicted / sum of actual - 1: above 0, predictions are too long on the whole; long requests weigh more, and no division by a
// tiny actual can dominate. Pairs whose actual is not above 0 have no APE: they are counted apart and left out of both.
#pragma once

#include <cstddef>
#include <optional>

#include "runtime/metrics/sample_set.h"

namespace foretoken {

class PredictionError {
 public:
  void Add(double predicted, double actual);

  size_t count() const { return ape_.count(); }
  size_t without_actual() const { return without_actual_; }
  std::optional<double> ApeQuantile(double q) const { return ape_.Quantile(q); }
  std::optional<double> Mape() const { return ape_.Mean(); }
  std::optional<double> Bias() const;

 private:
  SampleSet ape_;
  double predicted_ = 0;
  double actual_ = 0;
  size_t without_actual_ = 0;
};

}  // namespace foretoken
