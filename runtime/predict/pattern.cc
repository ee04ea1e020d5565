#include "runtime/predict/pattern.h"

#include <algorithm>
#include <cmath>

namespace foretoken {
namespace {

// Pieces into which a request's own decode is cut, the pattern held within each.
constexpr int kOwnPieces = 12;

}  // namespace

PatternPredictor::PatternPredictor(InstanceProfile profile, const LengthEstimator* lengths, bool reuse)
    : profile_(std::move(profile)),
      step_time_(profile_.step_time, profile_.calibrate),
      lengths_(lengths),
      reuse_(reuse),
      prefixes_(profile_.limits) {
  total_blocks_ = free_blocks_ = profile_.limits.num_gpu_blocks - 1;
}

void PatternPredictor::Discard(uint64_t& reason) {
  if (end_valid_) ++reason;
  end_valid_ = false;
}

void PatternPredictor::Learn(const BatchTrace& step) {
  if (step_time_.Observe({step.prefill_tokens, step.prefill_ctx_tokens, step.decode_seqs, step.decode_kv_tokens},
                         step.duration))
    Discard(counters_.by_calibration);
}

void PatternPredictor::OnEnqueue(const Reservation& r, Instant now) {
  Known k;
  k.prompt = static_cast<int32_t>(std::max<int64_t>(1, r.prompt_tokens));
  k.expected = static_cast<int32_t>(std::clamp<int64_t>(r.expected_output, 1, 1 << 30));
  const PrefixEstimator::Request prefix{r.request, k.prompt, k.expected, &r.segments};
  k.cached = prefixes_.ExpectedCached(prefix);
  const bool fresh = known_.Insert(r.request.value(), k);
  // Steps may have told of it before its order came: what was expected of it counts from the next snapshot on.
  Forecast& forecast = known_.Find(r.request.value())->forecast;
  forecast = errors_.ForecastOf(r.request, k.expected, now);
  forecast.first_token_came = !fresh;
  if (!fresh) return;
  prefixes_.Enter(prefix);
  ++waiting_;
  waiting_tokens_ += k.prompt - k.cached;
  waiting_expected_ += k.expected;
  if (!end_valid_) return;
  ++counters_.extended;
  AdvanceOver(end_, k.prompt - k.cached, k.expected);
}

void PatternPredictor::Forget(RequestId request) {
  const Known* k = known_.Find(request.value());
  if (k == nullptr) return;
  if (k->started < 0) {
    waiting_ = std::max(0, waiting_ - 1);
    waiting_tokens_ = std::max<int64_t>(0, waiting_tokens_ - k->prompt + k->cached);
    waiting_expected_ = std::max<int64_t>(0, waiting_expected_ - k->expected);
  } else {
    running_ = std::max(0, running_ - 1);
    const int64_t generated = step_ - k->started + 1;
    remaining_ = std::max<int64_t>(running_, remaining_ - std::max<int64_t>(0, k->expected - generated));
    kv_tokens_ = std::max<int64_t>(0, kv_tokens_ - k->prompt - generated);
  }
  known_.Erase(request.value());
}

void PatternPredictor::OnGone(RequestId request, Instant) {
  if (known_.Find(request.value()) == nullptr) return;
  Discard(counters_.by_gone);
  Forget(request);
}

// A preempted request computes its context again.
void PatternPredictor::Preempt(RequestId id) {
  Known* k = known_.Find(id.value());
  if (k == nullptr || k->started < 0) return;
  const int32_t generated = step_ - k->started;
  running_ = std::max(0, running_ - 1);
  remaining_ = std::max<int64_t>(running_, remaining_ - std::max(0, k->expected - generated));
  kv_tokens_ = std::max<int64_t>(0, kv_tokens_ - k->prompt - generated);
  k->prompt += generated;
  k->cached = 0;
  k->expected = std::max(1, k->expected - generated);
  k->started = -1;
  ++waiting_;
  waiting_tokens_ += k->prompt;
  waiting_expected_ += k->expected;
}

// Whether the kept end state outlives the step: it does when the batch goes on as it was.
void PatternPredictor::MoveEnd(const BatchTrace& trace) {
  if (!end_valid_) return;
  if (!trace.finished.empty() || !trace.preempted.empty() || !trace.cancelled.empty()) {
    Discard(counters_.by_finish);
  } else if (trace.prefill_tokens != 0 || !trace.admitted.empty() || trace.decode_seqs != decode_len_ || prefill_len_ != 0) {
    Discard(counters_.by_pattern);
  } else if (waiting_ > 0 && HasPlace()) {
    // The backlog was not kept out: this batch had been composed before it came, and the kept state goes on without it.
    Discard(counters_.by_pattern);
  } else {
    end_.ns -= StepNanos(0, 0, trace.decode_seqs, static_cast<double>(kv_tokens_ + running_));
  }
}

void PatternPredictor::OnStep(const BatchTrace& trace) {
  MoveEnd(trace);
  prefill_len_ = trace.prefill_tokens;
  decode_len_ = trace.decode_seqs;
  clock_ns_ = trace.end().nanos();
  ++step_;
  remaining_ = std::max<int64_t>(running_, remaining_ - trace.decode_seqs);
  kv_tokens_ += trace.decode_seqs;
  for (RequestId id : trace.cancelled) Forget(id);
  for (const BatchTrace::Admission& a : trace.admitted) {
    // What was found beyond, or short of, what was expected.
    Known* k = known_.Find(a.request.value());
    waiting_tokens_ = std::max<int64_t>(0, waiting_tokens_ - a.cached + (k != nullptr ? k->cached : 0));
    if (k != nullptr) k->cached = a.cached;
  }
  for (const BatchTrace::Chunk& c : trace.chunks) {
    waiting_tokens_ = std::max<int64_t>(0, waiting_tokens_ - c.tokens);
    if (!c.samples) continue;
    Known* k = known_.Find(c.request.value());
    if (k == nullptr) {
      known_.Insert(c.request.value(), {c.computed + c.tokens, 0, 1, -1, {}});
      k = known_.Find(c.request.value());
    } else if (k->started < 0) {
      waiting_ = std::max(0, waiting_ - 1);
      waiting_expected_ = std::max<int64_t>(0, waiting_expected_ - k->expected);
    }
    k->started = step_;
    errors_.FirstToken(k->forecast, trace.end(), profile_.ttft_offset);
    ++running_;
    remaining_ += std::max(1, k->expected - 1);
    kv_tokens_ += k->prompt + 1;
  }
  for (RequestId id : trace.preempted) Preempt(id);
  for (const BatchTrace::Finish& f : trace.finished) {
    const Known* k = known_.Find(f.request.value());
    if (k != nullptr && f.reason != FinishReason::kAborted)
      errors_.Ended(k->forecast, f.output_tokens, trace.end(), profile_.ttft_offset);
    Forget(f.request);
  }
  if (waiting_ == 0) waiting_tokens_ = waiting_expected_ = 0;
  if (running_ == 0) remaining_ = kv_tokens_ = 0;
  if (trace.decode_kv_tokens > 0 && trace.finished.empty() && trace.chunks.empty()) kv_tokens_ = trace.decode_kv_tokens;
  if (trace.total_blocks > 0) {
    total_blocks_ = trace.total_blocks;
    free_blocks_ = trace.free_blocks;
  }
  Learn(trace);
  // Without a backlog its end is where the batch stands.
  if (end_valid_ && waiting_ == 0) end_ = Start();
}

void PatternPredictor::OnAggregate(const AggregateState& state, const BatchTrace* step) {
  Discard(counters_.by_aggregate);
  clock_ns_ = state.as_of.nanos();
  const double prompt = waiting_ > 0 ? static_cast<double>(waiting_tokens_) / waiting_ : 0;
  const double left = running_ > 0 ? static_cast<double>(remaining_) / running_ : 0;
  if (step != nullptr) {
    prefill_len_ = step->prefill_tokens;
    decode_len_ = step->decode_seqs;
    clock_ns_ = step->end().nanos();
    ++step_;
    kv_tokens_ = step->decode_kv_tokens;
    Learn(*step);
  }
  if (waiting_ > 0) {
    waiting_tokens_ = static_cast<int64_t>(prompt * state.waiting);
    waiting_expected_ = waiting_expected_ / waiting_ * state.waiting;
    waiting_ = state.waiting;
  }
  if (running_ > 0 && state.running > 0) remaining_ = static_cast<int64_t>(left * state.running);
  running_ = state.running;
  remaining_ = std::max<int64_t>(remaining_, running_);
  if (state.total_blocks > 0) {
    total_blocks_ = state.total_blocks;
    free_blocks_ = state.free_blocks;
    if (step == nullptr) kv_tokens_ = (total_blocks_ - free_blocks_) * profile_.limits.block_size;
  }
}

void PatternPredictor::OnSnapshot(const Snapshot& s, Instant as_of, const std::vector<Reservation>& reservations) {
  Discard(counters_.by_snapshot);
  IdMap<Known> before = std::move(known_);
  known_ = IdMap<Known>();
  waiting_ = running_ = prefill_len_ = 0;
  waiting_tokens_ = waiting_expected_ = remaining_ = kv_tokens_ = 0;
  clock_ns_ = as_of.nanos();
  // From what was expected at its assignment, not from what became of that in steps which another mirror may have missed.
  const auto recall = [&](RequestId id, int32_t prompt, int32_t generated) {
    Known k{prompt, 0, 1, -1, {}};
    for (const Reservation& r : reservations)
      if (r.request == id) k.forecast.expected = static_cast<int32_t>(std::clamp<int64_t>(r.expected_output, 1, 1 << 30));
    if (const Known* old = before.Find(id.value())) k.forecast = old->forecast;
    k.expected = std::max(k.forecast.expected, generated + 1);
    return k;
  };
  const auto add_waiting = [&](RequestId id, Known k, int64_t computed) {
    if (!known_.Insert(id.value(), k)) return;
    ++waiting_;
    waiting_tokens_ += std::max<int64_t>(0, k.prompt - computed);
    waiting_expected_ += k.expected;
  };
  // Started in a step that this mirror has counted: below 0 would say that it waits.
  for (const Snapshot::Request& r : s.running) step_ = std::max(step_, r.generated_tokens);
  for (const Snapshot::Request& r : s.running) {
    Known k = recall(r.request, r.prompt_tokens, r.generated_tokens);
    if (r.generated_tokens == 0) {
      add_waiting(r.request, k, r.computed_tokens);
      continue;
    }
    k.started = step_ - r.generated_tokens + 1;
    known_.Insert(r.request.value(), k);
    ++running_;
    remaining_ += k.expected - r.generated_tokens;
    kv_tokens_ += r.prompt_tokens + r.generated_tokens;
  }
  for (const Snapshot::Request& r : s.waiting) {
    Known k = recall(r.request, r.prompt_tokens, r.generated_tokens);
    k.prompt += r.generated_tokens;  // preempted: computes its context again, and has the rest to generate
    k.expected -= r.generated_tokens;
    add_waiting(r.request, k, 0);
  }
  for (const Reservation& r : reservations) {
    add_waiting(r.request, recall(r.request, static_cast<int32_t>(r.prompt_tokens), 0), 0);
  }
  decode_len_ = running_;
  if (s.total_blocks > 0) {
    total_blocks_ = s.total_blocks;
    free_blocks_ = s.free_blocks;
  }
}

double PatternPredictor::StepNanos(double prefill, double ctx, double decodes, double kv) const {
  StepShape shape;
  shape.prefill_tokens = static_cast<int64_t>(prefill + 0.5);
  shape.prefill_ctx = static_cast<int64_t>(ctx + 0.5);
  shape.decode_seqs = static_cast<int64_t>(decodes + 0.5);
  shape.decode_kv_tokens = std::max(static_cast<int64_t>(kv + 0.5), shape.decode_seqs);
  if (shape.decode_seqs == 0) shape.decode_kv_tokens = 0;
  return step_time_.model().NanosOf(shape);
}

bool PatternPredictor::HasPlace() const {
  const double prompt = static_cast<double>(waiting_tokens_) / std::max(1, waiting_);
  return running_ < profile_.limits.max_num_seqs && static_cast<double>(kv_tokens_) + prompt <= CapacityTokens();
}

double PatternPredictor::CapacityTokens() const { return static_cast<double>(total_blocks_ * profile_.limits.block_size); }

PatternPredictor::Point PatternPredictor::Start() const {
  Point p;
  p.running = running_;
  p.remaining = running_ > 0 ? std::max(1.0, static_cast<double>(remaining_) / running_) : 1.0;
  p.kv_tokens = static_cast<double>(kv_tokens_ + running_);
  return p;
}

// Decode steps with the present pattern: the running end one by one, their remaining outputs spread evenly over twice the mean.
void PatternPredictor::Decode(Point& p, double steps) const {
  if (p.running < 0.5 || steps <= 0) return;
  const double n = p.running;
  const double share = std::min(1.0, steps / std::max(1.0, 2 * p.remaining));
  const double left = n * (1 - share);
  const double kv_mean = p.kv_tokens * (1 - share / 2) + 0.5 * steps * n * (1 - share / 2);
  p.ns += steps * StepNanos(0, 0, std::max(1.0, n - 0.5 * (n - left)), kv_mean);
  p.kv_tokens = (p.kv_tokens + steps * n) * (1 - share);
  p.running = left;
  p.remaining = std::max(1.0, p.remaining * (1 - share));
}

void PatternPredictor::CloseStep(Point& p) const {
  if (p.open_tokens <= 0) return;
  p.ns += StepNanos(p.open_tokens, 0, std::max(0.0, p.running), p.kv_tokens);
  p.kv_tokens += p.running;
  p.remaining = std::max(1.0, p.remaining - 1);
  p.open_tokens = 0;
}

void PatternPredictor::WaitForPlace(Point& p, double prompt) const {
  const double most = profile_.limits.max_num_seqs;
  const double capacity = CapacityTokens();
  for (int tries = 0; tries < 64 && p.running >= 1; ++tries) {
    const bool seqs = p.running + 1 <= most + 0.01;
    const bool kv = p.kv_tokens + p.open_tokens + prompt <= capacity;
    if (seqs && kv) return;
    CloseStep(p);
    // The next one ends after this many steps.
    Decode(p, std::max(1.0, 2 * p.remaining / p.running));
  }
}

void PatternPredictor::AdvanceOver(Point& p, double prompt, double expected) const {
  WaitForPlace(p, prompt);
  const double budget = std::max(1.0, profile_.limits.max_num_batched_tokens - p.running);
  double left = prompt;
  while (left > budget - p.open_tokens) {
    left -= budget - p.open_tokens;
    p.open_tokens = budget;
    CloseStep(p);
  }
  p.open_tokens += left;
  // It decodes from the next step on, with its whole output ahead.
  p.remaining = (p.remaining * p.running + expected) / (p.running + 1);
  p.running += 1;
  p.kv_tokens += prompt + 1;
}

void PatternPredictor::Advance() {
  end_ = Start();
  const double prompt = waiting_ > 0 ? static_cast<double>(waiting_tokens_) / waiting_ : 0;
  const double expected = waiting_ > 0 ? std::max(1.0, static_cast<double>(waiting_expected_) / waiting_) : 1;
  for (int32_t i = 0; i < waiting_; ++i) AdvanceOver(end_, prompt, expected);
  end_valid_ = true;
}

Prediction PatternPredictor::Predict(const PredictQuery& query, Instant now) {
  ++counters_.predictions;
  if (reuse_ && end_valid_) {
    ++counters_.reused;
  } else {
    ++counters_.advanced;
    Advance();
  }
  Prediction out;
  Point p = end_;
  const double waited = static_cast<double>(now.nanos() - clock_ns_);
  // A batch in flight is not entered: the request joins the first one composed after `now`.
  if (p.running >= 0.5 && waiting_ == 0) {
    const double step = StepNanos(0, 0, p.running, p.kv_tokens);
    // At the very end of a batch the next one is not composed yet.
    const double steps = waited <= 0 ? 0.0 : std::max(1.0, std::ceil(waited / std::max(step, 1.0)));
    Decode(p, steps + (profile_.limits.async_scheduling ? 1 : 0));
  } else if (profile_.limits.async_scheduling && p.running >= 0.5) {
    // The backlog's last batch is composed one step ahead, so the request comes in behind it; at the very end of a batch it still joins.
    if (waited > 0) CloseStep(p);
    Decode(p, 1);
  }
  p.ns = std::max(p.ns, waited);
  const int64_t prompt = std::max<int64_t>(1, query.request->prompt_tokens.value());
  out.cached_tokens = TokenCount(
      prefixes_.ExpectedCached({query.request->id, prompt, query.expected_output.value(), &query.request->segments}));
  const int64_t uncached = prompt - out.cached_tokens.value();
  const double decodes = p.running;
  const double kv = p.kv_tokens;
  AdvanceOver(p, static_cast<double>(uncached), 1);
  CloseStep(p);
  out.predictor = kind();
  out.ttft = Duration::FromNanos(p.ns - waited) + profile_.ttft_offset;
  p.running = std::min(p.running - 1, decodes);
  p.kv_tokens = std::max(0.0, p.kv_tokens - static_cast<double>(uncached) - 1);
  if (query.want_externality) {
    const double own = StepNanos(static_cast<double>(uncached), 0, decodes, kv) - StepNanos(0, 0, decodes, kv);
    out.externality = Duration::FromNanos(own * decodes);
  }
  p.remaining = end_.remaining;
  OwnDecode(p, prompt, std::max<int64_t>(1, query.expected_output.value()), query.want_externality, out);
  const double least_free = (CapacityTokens() - p.kv_tokens - static_cast<double>(prompt + query.expected_output.value())) /
                            profile_.limits.block_size;
  out.kv_headroom = BlockCount(static_cast<int64_t>(std::floor(least_free)));
  out.e2e_alone = out.e2e;
  errors_.Fill(query, lengths_, out);
  errors_.Answered(query.request->id, out);
  if (query.want_externality && out.tpot && p.running >= 1) {
    // Each of the others is slowed by its share of what is lost, over its mean remaining output.
    const double mine = out.tpot->seconds();
    const double slower = out.externality.seconds() / p.running / std::max(1.0, 2 * end_.remaining);
    const double target = query.slo.tpot.seconds();
    out.slo_violation_added = p.running * (errors_.e2e().Exceeds(mine + slower, target) - errors_.e2e().Exceeds(mine, target));
  }
  return out;
}

void PatternPredictor::OwnDecode(Point p, int64_t prompt, int64_t output, bool others, Prediction& out) const {
  const double steps = static_cast<double>(output - 1);
  double done = 0, ns = 0, lost = 0, longest = 0;
  // The running end spread evenly over twice their mean remaining output; beyond that the request is alone.
  const double horizon = std::max(1.0, 2 * p.remaining);
  const double n0 = std::max(0.0, p.running), kv0 = p.kv_tokens;
  for (int i = 0; i < kOwnPieces && done < steps; ++i) {
    const double piece = i + 1 == kOwnPieces || done >= horizon
                             ? steps - done
                             : std::min(steps - done, std::max(1.0, std::min(steps, horizon) / (kOwnPieces - 1)));
    const double mid = done + piece / 2;
    const double left = std::max(0.0, 1 - mid / horizon);
    const double n = n0 * left;
    const double kv = (kv0 + mid * n0) * left;
    const double own_ctx = static_cast<double>(prompt) + 1 + mid;
    const double with = StepNanos(0, 0, n + 1, kv + own_ctx);
    ns += piece * with;
    longest = std::max(longest, with);
    if (others && n >= 0.5) lost += piece * n * std::max(0.0, with - StepNanos(0, 0, n, kv));
    done += piece;
  }
  out.e2e = out.ttft + Duration::FromNanos(ns);
  if (output > 1) out.tpot = Duration::FromNanos(ns / steps);
  out.longest_gap = Duration::FromNanos(longest);
  if (others) out.externality += Duration::FromNanos(lost);
}

}  // namespace foretoken
