#include "runtime/metrics/run_metrics.h"

namespace foretoken {

std::optional<Duration> TtftOf(const RequestRecord& record) {
  if (!record.first_token) return std::nullopt;
  return *record.first_token - record.arrival;
}

std::optional<Duration> E2eOf(const RequestRecord& record) {
  if (!record.last_token) return std::nullopt;
  return *record.last_token - record.arrival;
}

std::optional<double> TpotSecondsOf(const RequestRecord& record) {
  if (!record.first_token || !record.last_token || record.output_tokens <= 1) return std::nullopt;
  return (*record.last_token - *record.first_token).seconds() / static_cast<double>(record.output_tokens - 1);
}

bool MeetsSlo(const RequestRecord& record) {
  const std::optional<Duration> ttft = TtftOf(record);
  if (record.outcome != OutcomeKind::kFinished || !ttft || *ttft > record.slo.ttft) return false;
  if (record.output_tokens <= 1 || !record.last_token) return true;
  // In whole nanoseconds: (last - first) / (n - 1) <= target.
  return (*record.last_token - *record.first_token) <= record.slo.tpot * (record.output_tokens - 1);
}

void RunMetrics::Add(const RequestRecord& record) {
  ++requests_;
  ++by_outcome_[static_cast<size_t>(record.outcome)];
  if (record.outcome != OutcomeKind::kFinished) return;
  output_tokens_ += record.output_tokens;
  if (MeetsSlo(record)) ++met_;
  if (const auto ttft = TtftOf(record)) ttft_.Add(ttft->seconds());
  if (const auto e2e = E2eOf(record)) e2e_.Add(e2e->seconds());
  if (const auto tpot = TpotSecondsOf(record)) tpot_.Add(*tpot);
}

RunReport RunMetrics::Report(Duration length) const {
  const auto count = [this](OutcomeKind kind) { return by_outcome_[static_cast<size_t>(kind)]; };
  RunReport r;
  r.requests = requests_;
  r.completed = count(OutcomeKind::kFinished);
  r.rejected = count(OutcomeKind::kRejected);
  r.cancelled = count(OutcomeKind::kCancelled);
  r.failed = count(OutcomeKind::kFailed);
  r.lost = count(OutcomeKind::kLost);
  r.ttft = ttft_.Summarize();
  r.tpot = tpot_.Summarize();
  r.e2e = e2e_.Summarize();
  if (requests_ > 0) r.slo_attainment = static_cast<double>(met_) / static_cast<double>(requests_);
  if (length > Duration()) {
    r.goodput_rps = static_cast<double>(met_) / length.seconds();
    r.throughput_rps = static_cast<double>(r.completed) / length.seconds();
    r.output_tokens_per_second = static_cast<double>(output_tokens_) / length.seconds();
  }
  return r;
}

}  // namespace foretoken
