#include "runtime/predict/judged.h"

#include <utility>

#include "runtime/base/check.h"
#include "runtime/predict/backlog.h"
#include "runtime/predict/make_predictor.h"

namespace foretoken {
namespace {

LedgerOptions WithLadder(LedgerOptions options, size_t rungs) {
  FT_CHECK(rungs >= 1 && rungs <= PredictionLedger::kMostLevels);
  options.lowest_level = static_cast<int32_t>(rungs) - 1;
  return options;
}

}  // namespace

JudgedPredictor::JudgedPredictor(std::vector<std::unique_ptr<Predictor>> ladder, LedgerOptions options, Duration ttft_offset)
    : ladder_(std::move(ladder)), ledger_(WithLadder(options, ladder_.size())), ttft_offset_(ttft_offset) {}

PredictionLedger::Secret JudgedPredictor::AskInSecret(const Reservation& r, Instant now) {
  PredictionLedger::Secret secret{-1, -1, -1};
  RequestMeta meta;
  meta.id = r.request;
  meta.arrival = r.arrival;
  meta.priority = r.priority;
  meta.prompt_tokens = TokenCount(r.prompt_tokens);
  meta.segments = r.segments;
  const PredictQuery query{&meta, r.length.quantile, TokenCount(r.expected_output), r.slo, false};
  for (size_t l = 0; l < static_cast<size_t>(ledger_.level()); ++l) {
    secret[l] = static_cast<float>(ladder_[l]->Predict(query, now).ttft.seconds());
  }
  return secret;
}

void JudgedPredictor::OnEnqueue(const Reservation& reservation, Instant now) {
  const Answer* last = nullptr;
  for (uint32_t i = 0; i < answers_.size(); ++i) {
    const Answer& a = answers_[(next_answer_ + i) % answers_.size()];  // oldest first
    if (a.given && a.request == reservation.request) last = &a;
  }
  if (last != nullptr) ledger_.OnAssigned(reservation.request, last->prediction, last->asked, AskInSecret(reservation, now));
  for (const auto& p : ladder_) p->OnEnqueue(reservation, now);
}

void JudgedPredictor::OnArrived(RequestId request, Instant at) {
  for (const auto& p : ladder_) p->OnArrived(request, at);
}

void JudgedPredictor::OnGone(RequestId request, Instant now) {
  ledger_.OnGone(request);
  for (const auto& p : ladder_) p->OnGone(request, now);
}

void JudgedPredictor::OnEnded(RequestId request, Instant now) {
  ledger_.OnFinished(request, now + ttft_offset_);
  for (const auto& p : ladder_) p->OnEnded(request, now);
}

void JudgedPredictor::OnStep(const BatchTrace& trace) {
  const Instant at = trace.end() + ttft_offset_;
  for (const BatchTrace::Chunk& c : trace.chunks) {
    if (c.samples) ledger_.OnFirstToken(c.request, at);
  }
  for (const BatchTrace::Finish& f : trace.finished) {
    f.reason == FinishReason::kAborted ? ledger_.OnGone(f.request) : ledger_.OnFinished(f.request, at);
  }
  for (RequestId id : trace.cancelled) ledger_.OnGone(id);
  for (const auto& p : ladder_) p->OnStep(trace);
}

void JudgedPredictor::OnAggregate(const AggregateState& state, const BatchTrace* step) {
  for (const auto& p : ladder_) p->OnAggregate(state, step);
}

void JudgedPredictor::OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) {
  std::vector<std::pair<RequestId, bool>> live;
  for (const auto* list : {&snapshot.running, &snapshot.waiting}) {
    for (const Snapshot::Request& r : *list) live.emplace_back(r.request, r.generated_tokens > 0);
  }
  for (const Reservation& r : reservations) live.emplace_back(r.request, false);
  ledger_.Retain(live);
  for (const auto& p : ladder_) p->OnSnapshot(snapshot, as_of, reservations);
}

Prediction JudgedPredictor::Predict(const PredictQuery& query, Instant now) {
  Prediction p = ladder_[static_cast<size_t>(ledger_.level())]->Predict(query, now);
  answers_[next_answer_++ % answers_.size()] = {query.request->id, now, p, true};
  return p;
}

size_t JudgedPredictor::memory_bytes() const {
  size_t bytes = sizeof(*this) - sizeof(ledger_) + ledger_.memory_bytes();
  for (const auto& p : ladder_) bytes += p->memory_bytes();
  return bytes;
}

Result<std::unique_ptr<Predictor>> MakeJudgedPredictor(PredictorKind kind, InstanceProfile profile,
                                                       const LengthEstimator* lengths, bool demote) {
  std::vector<std::unique_ptr<Predictor>> ladder;
  auto configured = MakePredictor(kind, profile, lengths);
  if (!configured.ok()) return configured.error();
  ladder.push_back(std::move(configured).value());
  if (demote) {
    if (kind != PredictorKind::kPattern && kind != PredictorKind::kPatternReuse) {
      auto pattern = MakePredictor(PredictorKind::kPatternReuse, profile, lengths);
      if (!pattern.ok()) return pattern.error();
      ladder.push_back(std::move(pattern).value());
    }
    ladder.push_back(std::make_unique<BacklogPredictor>(profile, lengths));
  }
  const Duration offset = profile.ttft_offset;
  return std::unique_ptr<Predictor>(std::make_unique<JudgedPredictor>(std::move(ladder), LedgerOptions{}, offset));
}

}  // namespace foretoken
