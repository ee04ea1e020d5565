#include "runtime/predict/ledger.h"

#include <algorithm>
#include <cmath>

namespace foretoken {
namespace {

constexpr int32_t kLowestLevel = 2;

double At(const std::vector<double>& sorted, double q) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(q * static_cast<double>(sorted.size())))];
}

}  // namespace

void PredictionLedger::OnAssigned(RequestId request, const Prediction& p, Instant now) {
  open_.Erase(request.value());
  open_.Insert(request.value(), {now.nanos(), p.ttft.nanos(), p.ttft_p90.nanos(), p.e2e.nanos(), p.e2e_p90.nanos()});
}

void PredictionLedger::OnFirstToken(RequestId request, Instant at) {
  const Open* o = open_.Find(request.value());
  if (o == nullptr) return;
  Add(ttft_, ttft_count_, at.nanos() - o->assigned_ns, o->ttft_ns, o->ttft_p90_ns);
  ++judged_;
  if (options_.demote) Judge();
}

void PredictionLedger::OnFinished(RequestId request, Instant at) {
  const Open* o = open_.Find(request.value());
  if (o == nullptr) return;
  Add(e2e_, e2e_count_, at.nanos() - o->assigned_ns, o->e2e_ns, o->e2e_p90_ns);
  open_.Erase(request.value());
}

void PredictionLedger::Add(std::vector<Sample>& window, uint64_t& count, int64_t actual, int64_t p50, int64_t p90) {
  const double error = static_cast<double>(p50) / static_cast<double>(std::max<int64_t>(actual, 1)) - 1;
  const Sample s{static_cast<float>(error), actual <= p50, actual <= p90};
  if (window.size() < options_.window) {
    window.push_back(s);
  } else {
    window[count % options_.window] = s;
  }
  ++count;
}

ErrorSummary PredictionLedger::SummaryOf(const std::vector<Sample>& window, uint64_t count) const {
  ErrorSummary s;
  s.count = count;
  if (window.empty()) return s;
  std::vector<double> errors;
  errors.reserve(window.size());
  for (const Sample& x : window) {
    s.bias += x.error;
    s.below_p50 += x.below_p50 ? 1 : 0;
    s.below_p90 += x.below_p90 ? 1 : 0;
    errors.push_back(std::abs(static_cast<double>(x.error)));
  }
  const auto n = static_cast<double>(window.size());
  s.bias /= n;
  s.below_p50 /= n;
  s.below_p90 /= n;
  std::sort(errors.begin(), errors.end());
  s.p50 = At(errors, 0.5);
  s.p95 = At(errors, 0.95);
  s.p99 = At(errors, 0.99);
  return s;
}

void PredictionLedger::Judge() {
  if (level_ > 0 && judged_ >= probation_) {
    // Another try: what the better one did before counts no more.
    --level_;
    ++recoveries_;
    judged_ = 0;
    ttft_.clear();
    ttft_count_ = 0;
    return;
  }
  if (level_ == kLowestLevel || judged_ < options_.least) return;
  if (SummaryOf(ttft_, ttft_count_).p50 <= options_.bound) {
    // It held for as long as it had been away: the next probation is short again.
    if (level_ == 0 && judged_ >= probation_) probation_ = 0;
    return;
  }
  ++level_;
  ++demotions_;
  probation_ = probation_ == 0 ? options_.probation : std::min(2 * probation_, options_.longest_probation);
  judged_ = 0;
  ttft_.clear();
  ttft_count_ = 0;
}

PredictorKind PredictionLedger::Advise(PredictorKind configured) const {
  if (level_ == 0) return configured;
  const bool simple = configured == PredictorKind::kPattern || configured == PredictorKind::kPatternReuse;
  return level_ == 1 && !simple ? PredictorKind::kPattern : PredictorKind::kLedger;
}

size_t PredictionLedger::memory_bytes() const {
  return sizeof(*this) + open_.memory_bytes() + (ttft_.capacity() + e2e_.capacity()) * sizeof(Sample);
}

}  // namespace foretoken
