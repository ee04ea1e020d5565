#include "runtime/metrics/drift_meter.h"

#include <cmath>

#include "runtime/base/check.h"
#include "runtime/metrics/sample_set.h"

namespace foretoken {

DriftMeter::DriftMeter(size_t window) : window_(window) { FT_CHECK(window > 0); }

void DriftMeter::Add(const DriftPair& pair) {
  if (!(pair.actual > 0)) return;
  if (pairs_.size() < window_) {
    pairs_.push_back(pair);
  } else {
    pairs_[total_ % window_] = pair;
  }
  ++total_;
}

std::optional<DriftReport> DriftMeter::Report() const {
  if (pairs_.empty()) return std::nullopt;
  SampleSet ape;
  double predicted = 0, actual = 0;
  size_t covered = 0;
  for (const DriftPair& p : pairs_) {
    ape.Add(std::fabs(p.predicted - p.actual) / p.actual);
    predicted += p.predicted;
    actual += p.actual;
    if (p.actual <= p.predicted_p90) ++covered;
  }
  DriftReport report;
  report.count = pairs_.size();
  report.bias = predicted / actual - 1;
  report.ape_p50 = *ape.Quantile(0.5);
  report.ape_p95 = *ape.Quantile(0.95);
  report.coverage_p90 = static_cast<double>(covered) / static_cast<double>(pairs_.size());
  return report;
}

void DriftMeter::Clear() {
  pairs_.clear();
  total_ = 0;
}

}  // namespace foretoken
