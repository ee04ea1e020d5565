#include "runtime/predict/ledger.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace foretoken {
namespace {

double At(const std::vector<double>& sorted, double q) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(q * static_cast<double>(sorted.size())))];
}

}  // namespace

void PredictionLedger::OnAssigned(RequestId request, const Prediction& p, Instant asked, const Secret& secret) {
  open_.Erase(request.value());
  const auto seconds = [](Duration d) { return static_cast<float>(d.seconds()); };
  open_.Insert(request.value(), {asked.nanos(), seconds(p.ttft), seconds(p.ttft_p90), seconds(p.e2e), seconds(p.e2e_p90),
                                 secret, changes(), false});
}

void PredictionLedger::OnFirstToken(RequestId request, Instant at) {
  Open* o = open_.Find(request.value());
  if (o == nullptr || std::exchange(o->first_token_came, true)) return;
  if (o->changes != changes()) return;  // somebody else's prediction
  const Duration actual = at - Instant::FromNanos(o->asked_ns);
  Add(ttft_, ttft_count_, actual, o->ttft_s, o->ttft_p90_s);
  if (options_.lowest_level > 0) Judge(*o, static_cast<float>(std::max(actual.seconds(), 1e-9)));
}

void PredictionLedger::OnFinished(RequestId request, Instant at) {
  const Open* o = open_.Find(request.value());
  if (o == nullptr) return;
  if (o->changes == changes()) Add(e2e_, e2e_count_, at - Instant::FromNanos(o->asked_ns), o->e2e_s, o->e2e_p90_s);
  open_.Erase(request.value());
}

void PredictionLedger::Retain(std::span<const std::pair<RequestId, bool>> live) {
  IdMap<Open> kept;
  for (const auto& [request, first_token_came] : live) {
    const Open* o = open_.Find(request.value());
    if (o == nullptr || !kept.Insert(request.value(), *o)) continue;
    kept.Find(request.value())->first_token_came |= first_token_came;
  }
  open_ = std::move(kept);
}

void PredictionLedger::Add(std::vector<Sample>& window, uint64_t& count, Duration actual, float p50_s, float p90_s) {
  const auto actual_s = static_cast<float>(std::max(actual.seconds(), 1e-9));
  const Sample s{p50_s / actual_s - 1, actual_s <= p50_s, actual_s <= p90_s};
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

// The median; negative: too few to judge.
double PredictionLedger::JudgedError(size_t level) const {
  std::vector<float> errors = errors_[level];
  if (errors.size() < options_.least) return -1;
  const auto middle = errors.begin() + static_cast<std::ptrdiff_t>(errors.size() / 2);
  std::nth_element(errors.begin(), middle, errors.end());
  return *middle;
}

// What a level did before the change counts no more: those below are not asked, and go stale.
void PredictionLedger::MoveTo(int32_t level) {
  ++(level > level_ ? demotions_ : recoveries_);
  level_ = level;
  ttft_.clear();
  e2e_.clear();
  ttft_count_ = e2e_count_ = 0;
  for (std::vector<float>& e : errors_) e.clear();
  error_count_ = {};
}

void PredictionLedger::Judge(const Open& o, float actual_s) {
  const auto answering = static_cast<size_t>(level_);
  for (size_t l = 0; l <= answering; ++l) {
    const float predicted_s = l == answering ? o.ttft_s : o.secret[l];
    if (predicted_s < 0) continue;
    const float error = std::abs(predicted_s / actual_s - 1);
    if (errors_[l].size() < options_.judged) {
      errors_[l].push_back(error);
    } else {
      errors_[l][error_count_[l] % options_.judged] = error;
    }
    ++error_count_[l];
  }
  for (size_t l = 0; l < answering; ++l) {
    const double error = JudgedError(l);
    if (error >= 0 && error <= options_.back) return MoveTo(static_cast<int32_t>(l));
  }
  if (level_ < options_.lowest_level && JudgedError(answering) > options_.bound) MoveTo(level_ + 1);
}

size_t PredictionLedger::memory_bytes() const {
  return sizeof(*this) + open_.memory_bytes() + (ttft_.capacity() + e2e_.capacity()) * sizeof(Sample);
}

}  // namespace foretoken
