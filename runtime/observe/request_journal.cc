#include "runtime/observe/request_journal.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

namespace foretoken {
namespace {

constexpr Duration kSecond = Duration::Seconds(1);
constexpr size_t kCandidatesMost = 1024;  // of one decision; the best are kept

// 2 %: a quarter of the buckets of 1 % over a narrower range; what is read off a page is not finer.
QuantileSketchOptions Times() { return {.02, 1e-5, 1e4}; }
QuantileSketchOptions Errors() { return {.02, 1e-4, 1e3}; }

}  // namespace

WindowSketches::WindowSketches()
    : ttft(Times()), e2e(Times()), tpot(Times()), decision(Times()), ttft_error(Errors()), e2e_error(Errors()) {}

void WindowSketches::Merge(const WindowSketches& o) {
  ttft.Merge(o.ttft);
  e2e.Merge(o.e2e);
  tpot.Merge(o.tpot);
  decision.Merge(o.decision);
  ttft_error.Merge(o.ttft_error);
  e2e_error.Merge(o.e2e_error);
  ttft_error_sum += o.ttft_error_sum;
  e2e_error_sum += o.e2e_error_sum;
  ttft_judged += o.ttft_judged;
  e2e_judged += o.e2e_judged;
  ttft_below_p90 += o.ttft_below_p90;
  e2e_below_p90 += o.e2e_below_p90;
  arrived += o.arrived;
  decided += o.decided;
  finished += o.finished;
  output_tokens += o.output_tokens;
  with_slo += o.with_slo;
  met_slo += o.met_slo;
  predicted.Add(o.predicted);
}

RequestJournal::RequestJournal(const Options& options)
    : options_(options),
      allowance_(options.details_per_second),
      ttft_(options.window_seconds, kSecond, Times()),
      e2e_(options.window_seconds, kSecond, Times()),
      tpot_(options.window_seconds, kSecond, Times()),
      decision_(options.window_seconds, kSecond, Times()),
      ttft_error_(options.window_seconds, kSecond, Errors()),
      e2e_error_(options.window_seconds, kSecond, Errors()),
      seconds_(options.window_seconds) {
  ring_.reserve(options.decisions);
}

void RequestJournal::Turn(Instant now) {
  const int64_t turn = now.nanos() / kSecond.nanos();
  second_ = &seconds_[static_cast<size_t>(turn) % seconds_.size()];
  second_begin_ = Instant() + kSecond * turn;
  second_end_ = second_begin_ + kSecond;
  if (second_->turn == turn) return;
  *second_ = Second();
  second_->turn = turn;
}

bool RequestJournal::MayKeep() {
  const double rate = options_.details_per_second;
  allowance_ = std::min(rate, allowance_ + (seen_ - allowed_at_).seconds() * rate);
  allowed_at_ = seen_;
  if (allowance_ < 1) return false;
  allowance_ -= 1;
  return true;
}

DecisionSeen* RequestJournal::Kept(const Open& open, RequestId request) {
  if (open.slot == kNotKept || ring_[open.slot].request != request) return nullptr;
  return &ring_[open.slot];
}

void RequestJournal::OnSubmitted(const RequestMeta& request, Instant submitted, Instant now) {
  Open open;
  open.submitted = submitted;
  const Slo& slo = request.slo ? *request.slo : options_.slo;
  open.slo_ttft = static_cast<float>(slo.ttft.seconds());
  open.slo_tpot = static_cast<float>(slo.tpot.seconds());
  open.prompt_tokens = static_cast<int32_t>(request.prompt_tokens.value());
  seen_ = now;
  if (!open_.Insert(request.id.value(), open)) return;
  ++totals_.arrived;
  ++totals_.open;
  ++SecondOf(now).arrived;
}

void RequestJournal::OnChosen(RequestId request, std::span<const Candidate> candidates, std::span<const double> scores) {
  if (!MayKeep()) return;
  auto seen = std::make_shared<std::vector<CandidateSeen>>();
  seen->reserve(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) {
    const Candidate& c = candidates[i];
    CandidateSeen s;
    s.instance = c.instance;
    s.requests = c.load.requests;
    s.score = scores[i];
    if (c.prediction != nullptr) {
      const Prediction& p = *c.prediction;
      s.predicted = true;
      s.stale = p.stale;
      s.predictor = p.predictor;
      s.state_version = p.versions.state;
      s.ttft = p.ttft;
      s.ttft_p90 = p.ttft_p90;
      s.e2e = p.e2e;
      s.e2e_p90 = p.e2e_p90;
      s.age = p.age;
      s.slo_violation = p.slo_violation;
    }
    seen->push_back(s);
  }
  std::stable_sort(seen->begin(), seen->end(), [](const auto& a, const auto& b) { return a.score < b.score; });
  if (seen->size() > kCandidatesMost) seen->resize(kCandidatesMost);
  chosen_.Erase(request.value());
  chosen_.Insert(request.value(), std::move(seen));
}

void RequestJournal::OnDecided(const DecisionRecord& r) {
  seen_ = r.at;
  ++totals_.decided;
  totals_.retried += r.attempt > 0;
  ++SecondOf(r.at).decided;
  Open* open = open_.Find(r.request.value());
  if (open == nullptr) return;
  if (r.attempt == 0 && !options_.timed_by_owner) OnTook(r.at - open->submitted, r.at);
  open->decided = r.at;
  open->first_token = Instant::Max();  // nothing was kept of a failed attempt
  open->predicted = r.predicted;
  if (r.predicted) {
    open->ttft = static_cast<float>(r.prediction.ttft.seconds());
    open->ttft_p90 = static_cast<float>(r.prediction.ttft_p90.seconds());
    open->e2e = static_cast<float>(r.prediction.e2e.seconds());
    open->e2e_p90 = static_cast<float>(r.prediction.e2e_p90.seconds());
    PredictedSums& sums = SecondOf(r.at).predicted;
    const int64_t computed = std::max<int64_t>(0, open->prompt_tokens - r.prediction.cached_tokens.value());
    ++sums.decisions;
    sums.violation += r.prediction.slo_violation;
    sums.prompt_tokens += open->prompt_tokens;
    sums.computed += static_cast<double>(computed);
    sums.computed_squared += static_cast<double>(computed) * static_cast<double>(computed);
    ++sums.prompts[std::min<size_t>(static_cast<size_t>(std::bit_width(static_cast<uint64_t>(computed))), kPromptBuckets - 1)];
  }
  auto* chosen = chosen_.Find(r.request.value());
  if (chosen == nullptr) return;
  DecisionSeen d;
  d.number = totals_.decided;
  d.scheduler = options_.scheduler;
  d.decision = r.decision;
  d.request = r.request;
  d.instance = r.instance;
  d.attempt = r.attempt;
  d.repicked = r.repicked;
  d.prompt_tokens = open->prompt_tokens;
  d.submitted = open->submitted;
  d.decided = r.at;
  d.score = r.score;
  d.predicted = r.predicted;
  d.prediction = r.prediction;
  d.candidates = std::move(*chosen);
  chosen_.Erase(r.request.value());
  open->slot = static_cast<uint32_t>(next_);
  if (next_ < ring_.size()) {
    ring_[next_] = std::move(d);
  } else {
    ring_.push_back(std::move(d));
  }
  next_ = (next_ + 1) % options_.decisions;
}

void RequestJournal::OnRejected(RequestId request, OutcomeReason reason, Instant now) {
  chosen_.Erase(request.value());
  if (open_.Find(request.value()) == nullptr) return;
  const bool failed = reason == OutcomeReason::kRetriesExhausted || reason == OutcomeReason::kEngineRestarted;
  uint64_t& count = reason == OutcomeReason::kShed ? totals_.shed : failed ? totals_.failed : totals_.rejected;
  ++count;
  ++SecondOf(now).with_slo;
  ++latencies_.with_slo;
  Close(request, failed ? OutcomeKind::kFailed : OutcomeKind::kRejected, TokenCount(), now);
}

void RequestJournal::OnFirstToken(RequestId request, Instant at) {
  Open* open = open_.Find(request.value());
  if (open == nullptr || open->first_token != Instant::Max()) return;
  open->first_token = at;
  const double ttft = (at - open->submitted).seconds();
  ttft_.Add(ttft, at);
  latencies_.ttft.Add(ttft);
  if (DecisionSeen* kept = Kept(*open, request)) kept->first_token = at;
  if (!open->predicted) return;
  const double actual = (at - open->decided).seconds();
  if (actual <= 0) return;
  Second& second = SecondOf(at);
  const double error = static_cast<double>(open->ttft) / actual - 1;
  ++second.ttft_judged;
  second.ttft_error_sum += error;
  second.ttft_below_p90 += actual <= static_cast<double>(open->ttft_p90);
  ttft_error_.Add(std::abs(error), at);
}

void RequestJournal::Judge(const Open& open, Instant ended, TokenCount output) {
  const Duration e2e = ended - open.submitted;
  e2e_.Add(e2e.seconds(), ended);
  latencies_.e2e.Add(e2e);
  Second& second = SecondOf(ended);
  ++second.finished;
  second.output_tokens += static_cast<uint64_t>(output.value());
  ++second.with_slo;
  bool met =
      open.first_token != Instant::Max() && (open.first_token - open.submitted).seconds() <= static_cast<double>(open.slo_ttft);
  if (open.first_token != Instant::Max() && output.value() > 1) {
    const double tpot = (ended - open.first_token).seconds() / static_cast<double>(output.value() - 1);
    tpot_.Add(tpot, ended);
    latencies_.tpot.Add(tpot);
    met = met && tpot <= static_cast<double>(open.slo_tpot);
  }
  second.met_slo += met;
  ++latencies_.with_slo;
  latencies_.met_slo += met;
  const double actual = (ended - open.decided).seconds();
  if (!open.predicted || actual <= 0) return;
  const double error = static_cast<double>(open.e2e) / actual - 1;
  ++second.e2e_judged;
  second.e2e_error_sum += error;
  second.e2e_below_p90 += actual <= static_cast<double>(open.e2e_p90);
  e2e_error_.Add(std::abs(error), ended);
}

void RequestJournal::OnEnded(RequestId request, OutcomeKind outcome, TokenCount output, Instant at) {
  const Open* open = open_.Find(request.value());
  if (open == nullptr) return;
  if (outcome == OutcomeKind::kFinished) {
    ++totals_.finished;
    totals_.output_tokens += static_cast<uint64_t>(output.value());
    Judge(*open, at, output);
  } else {
    ++totals_.cancelled;
  }
  Close(request, outcome, output, at);
}

void RequestJournal::Close(RequestId request, OutcomeKind outcome, TokenCount output, Instant at) {
  Open* open = open_.Find(request.value());
  if (DecisionSeen* kept = Kept(*open, request)) {
    kept->ended = at;
    kept->outcome = outcome;
    kept->output_tokens = output.value();
  }
  open_.Erase(request.value());
  chosen_.Erase(request.value());
  --totals_.open;
}

JournalView RequestJournal::View(Instant now) const {
  JournalView v;
  v.totals = totals_;
  v.latencies = latencies_;
  const int64_t turn = now.nanos() / kSecond.nanos();
  // Before so much time has passed, the window is as long as the run.
  v.window = std::min(kSecond * static_cast<int64_t>(seconds_.size() - 1) + Duration::Nanos(now.nanos() % kSecond.nanos()),
                      std::max(now - Instant(), Duration::Nanos(1)));
  WindowSketches& w = v.latest;
  w.ttft = ttft_.Read(now);
  w.e2e = e2e_.Read(now);
  w.tpot = tpot_.Read(now);
  w.decision = decision_.Read(now);
  w.ttft_error = ttft_error_.Read(now);
  w.e2e_error = e2e_error_.Read(now);
  for (const Second& s : seconds_) {
    if (s.turn < 0 || s.turn > turn || turn - s.turn >= static_cast<int64_t>(seconds_.size())) continue;
    w.arrived += s.arrived;
    w.decided += s.decided;
    w.finished += s.finished;
    w.output_tokens += s.output_tokens;
    w.with_slo += s.with_slo;
    w.met_slo += s.met_slo;
    w.predicted.Add(s.predicted);
    w.ttft_judged += s.ttft_judged;
    w.e2e_judged += s.e2e_judged;
    w.ttft_below_p90 += s.ttft_below_p90;
    w.e2e_below_p90 += s.e2e_below_p90;
    w.ttft_error_sum += s.ttft_error_sum;
    w.e2e_error_sum += s.e2e_error_sum;
  }
  v.decisions.reserve(ring_.size());
  for (size_t i = 0; i < ring_.size(); ++i) v.decisions.push_back(ring_[(next_ + ring_.size() - 1 - i) % ring_.size()]);
  return v;
}

}  // namespace foretoken
