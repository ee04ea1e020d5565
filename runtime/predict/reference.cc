#include "runtime/predict/reference.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

// The request asked about, which may have been assigned already. The router's ids do not reach it.
constexpr RequestId kAsked{uint64_t{1} << 63};
// Nothing lies further ahead than this; a fork that has not ended by then is stuck.
constexpr Duration kHorizon = Duration::Seconds(100'000);

// What a fork tells about its requests: the tracked one's times, and when the others end.
class ForkSink final : public EngineSink {
 public:
  explicit ForkSink(RequestId tracked) : tracked_(tracked) {}
  void OnStep(const BatchTrace&) override {}
  void OnFirstToken(RequestId id, Instant at) override {
    if (id == tracked_) first = at;
  }
  void OnFinished(RequestId id, const BatchTrace::Finish&, Instant at) override {
    if (id == tracked_) {
      end = at;
    } else {
      ends.emplace_back(id, at);
    }
  }
  void OnRejected(RequestId id, OutcomeReason, Instant at) override {
    if (id == tracked_) end = at;
  }
  std::optional<Instant> first, end;
  std::vector<std::pair<RequestId, Instant>> ends;

 private:
  RequestId tracked_;
};

StepShape ShapeOf(const BatchTrace& t) { return {t.prefill_tokens, t.prefill_ctx_tokens, t.decode_seqs, t.decode_kv_tokens}; }

// What was generated counts as prompt from here on: the segments, where they are known, have to say so too.
void FitTo(int64_t prompt_tokens, RequestId id, std::vector<PromptSegment>& segments) {
  if (segments.empty()) return;
  int64_t listed = 0;
  for (const PromptSegment& segment : segments) listed += segment.length.value();
  for (; listed > prompt_tokens; segments.pop_back()) {
    const int64_t kept = prompt_tokens - (listed - segments.back().length.value());
    listed -= segments.back().length.value();
    if (kept <= 0) continue;
    segments.back().length = TokenCount(kept);
    return;
  }
  if (listed == prompt_tokens) return;
  if (segments.empty() || segments.back().content != OutputContent(id)) segments.push_back({OutputContent(id), TokenCount(0)});
  segments.back().length = TokenCount(segments.back().length.value() + prompt_tokens - listed);
}

}  // namespace

// The model, except for the step whose real duration is known when the mirror composes it.
class ReferencePredictor::ReplayLaw final : public StepTimeLaw {
 public:
  explicit ReplayLaw(StepTimeModel model) : model_(std::move(model)) {}
  double NanosOf(const StepShape& shape) const override {
    const std::optional<double> real = std::exchange(real_, std::nullopt);
    return real ? *real : model_.NanosOf(shape);
  }
  DecodeSegment DecodeSegmentAt(int64_t decode_seqs, int64_t kv) const override {
    const std::optional<double> real = std::exchange(real_, std::nullopt);
    if (real) return {*real, 0, kv, kv + 1};
    DecodeSegment s = model_.DecodeSegmentAt(decode_seqs, kv);
    // An engine keeps a piece while it holds: the mirror has to ask for every step, which may be one to replay.
    if (!forking_) s.kv_from = kv, s.kv_until = kv + 1;
    return s;
  }
  // From an idle asynchronous engine two batches are composed at one instant: only the first is the reported one.
  void Replay(Duration real) { real_ = static_cast<double>(std::max<int64_t>(1, real.nanos())); }
  void Stop() { real_ = std::nullopt; }
  // A fork only asks the model, and may keep its pieces.
  void SetForking(bool on) { forking_ = on; }
  void Become(StepTimeModel model) { model_ = std::move(model); }

 private:
  StepTimeModel model_;
  mutable std::optional<double> real_;
  bool forking_ = false;
};

ReferencePredictor::ReferencePredictor(InstanceProfile profile, const LengthEstimator* lengths)
    : profile_(std::move(profile)),
      step_time_(profile_.step_time, profile_.calibrate),
      lengths_(lengths),
      law_(std::make_shared<ReplayLaw>(profile_.step_time)) {}

Result<std::unique_ptr<ReferencePredictor>> ReferencePredictor::Make(InstanceProfile profile, const LengthEstimator* lengths) {
  std::unique_ptr<ReferencePredictor> p(new ReferencePredictor(std::move(profile), lengths));
  if (const Status s = p->Restart(Instant::FromNanos(0)); !s.ok()) return s.error();
  return p;
}

Status ReferencePredictor::Restart(Instant at) {
  EmulatedEngine::Options o;
  o.config = profile_.limits;
  o.step_time.law = law_;
  o.start = at;
  auto engine = EmulatedEngine::Make(std::move(o));
  if (!engine.ok()) return engine.error();
  engine_ = std::move(engine).value();
  ran_to_ = at;
  reported_ = 0;
  last_end_ = at;
  owed_ = {};
  return {};
}

EngineRequest ReferencePredictor::RequestOf(const Reservation& r) const {
  EngineRequest q;
  q.id = r.request;
  q.priority = r.priority;
  q.arrival_key = r.arrival.seconds();
  q.prompt_tokens = std::max<int64_t>(1, r.prompt_tokens);
  q.output_tokens = std::max<int64_t>(1, r.expected_output);
  // With an end-of-sequence token the scheduler does not know the length.
  q.max_tokens = profile_.limits.stop_at_eos ? profile_.limits.max_model_len : q.output_tokens;
  q.segments = r.segments;
  return q;
}

void ReferencePredictor::OnEnqueue(const Reservation& reservation, Instant now) {
  Known known{RequestOf(reservation), reservation.length, 0, false,
              errors_.ForecastOf(reservation.request, reservation.expected_output, now)};
  inbox_.push_back({now, false, known.request});
  if (!known_.Insert(reservation.request.value(), std::move(known))) {
    inbox_.pop_back();
    return;
  }
  if (!follows_steps_) RunBefore(now);
}

void ReferencePredictor::OnArrived(RequestId request, Instant at) {
  const auto is = [request](const Arrival& a) { return a.request.id == request; };
  const auto it = std::find_if(inbox_.begin(), inbox_.end(), is);
  if (it == inbox_.end() || it->confirmed) return;
  it->confirmed = true;
  it->ready = at;
  const auto first = std::find_if(inbox_.begin(), inbox_.end(), [](const Arrival& a) { return !a.confirmed; });
  if (first < it) std::rotate(first, it, it + 1);
}

void ReferencePredictor::OnGone(RequestId request, Instant now) {
  Withdraw(request);  // before the mirror runs on, which would take it in
  if (!follows_steps_) RunBefore(now);
  End(request, true, now);
}

// True if the mirror's engine had not taken it in yet: then nothing knows of it any more.
bool ReferencePredictor::Withdraw(RequestId request) {
  if (std::erase_if(inbox_, [request](const Arrival& a) { return a.request.id == request; }) == 0) return false;
  known_.Erase(request.value());
  return true;
}

// By word from outside. `abort`: the mirror's engine would not end it by itself.
void ReferencePredictor::End(RequestId request, bool abort, Instant at) {
  std::erase_if(decoding_, [request](const Decoding& d) { return d.request == request; });
  if (Withdraw(request)) return;
  Known* known = known_.Find(request.value());
  if (known == nullptr) return;
  known->ended = true;
  if (abort) engine_->Abort(request, std::max(at, ran_to_));
}

// Gives the engine what has arrived by `until`, in order.
void ReferencePredictor::TakeIn(EmulatedEngine& engine, Instant until) {
  size_t taken = 0;
  while (taken < inbox_.size() && inbox_[taken].ready <= until) {
    engine.Submit(inbox_[taken].request, std::max(inbox_[taken].ready, ran_to_));
    ++taken;
  }
  if (&engine == engine_.get()) inbox_.erase(inbox_.begin(), inbox_.begin() + static_cast<std::ptrdiff_t>(taken));
}

void ReferencePredictor::RunTo(Instant at) {
  if (at < ran_to_) return;
  TakeIn(*engine_, at);
  engine_->RunUntil(at, *this);
  ran_to_ = at;
  if (!follows_steps_) {
    running_ = engine_->core().running();
    waiting_ = engine_->core().waiting();
  }
}

// Without steps the mirror runs by itself, but composes nothing at `now` that a request of the same instant could still join.
void ReferencePredictor::RunBefore(Instant now) { RunTo(now - Duration::Nanos(1)); }

// A batch that the mirror composed before its real duration was known (the second one from idle) or started at another time ends
// off in the mirror, and everything behind it: the next batch has to make up for it.
Duration ReferencePredictor::OwedAfter(const BatchTrace& trace) {
  const Instant before = std::exchange(last_end_, trace.end());
  const uint64_t done = engine_->counters().steps;
  if (engine_->core().batches_in_flight() == 0 || done + 2 < reported_ || done >= reported_) return {};
  // The oldest batch in flight is the reported one (from idle, a second one is composed with it), or the one before it.
  const Duration off = done + 1 == reported_ ? trace.end() - engine_->NextEvent() : before - engine_->NextEvent() - owed_;
  // More than that is another batch than the reported one.
  return off > trace.duration || off < -trace.duration ? Duration() : off;
}

// The mirror composes the reported step when its composition was due, and so runs behind by what is in flight.
void ReferencePredictor::OnStep(const BatchTrace& trace) {
  follows_steps_ = true;
  if (trace.kind != StepKind::kReal) return;
  law_->Replay(trace.duration + owed_);
  RunTo(std::max(trace.scheduled, ran_to_));
  law_->Stop();
  ++reported_;
  owed_ = OwedAfter(trace);
  for (const BatchTrace::Chunk& c : trace.chunks) {
    Known* known = known_.Find(c.request.value());
    if (c.samples && known != nullptr) errors_.FirstToken(known->forecast, trace.end(), profile_.ttft_offset);
  }
  for (const BatchTrace::Finish& f : trace.finished) {
    Known* known = known_.Find(f.request.value());
    if (known == nullptr) continue;
    if (f.reason != FinishReason::kAborted) errors_.Ended(known->forecast, f.output_tokens, trace.end(), profile_.ttft_offset);
    // It ended before the mirror would have it.
    const bool early = f.output_tokens < known->before + known->request.output_tokens;
    End(f.request, early || f.reason == FinishReason::kAborted, trace.end());
  }
  for (RequestId id : trace.cancelled) End(id, true, trace.end());
  CountTokens(trace);
  running_ = trace.running;
  waiting_ = trace.waiting;
  Learn(trace);
}

void ReferencePredictor::Learn(const BatchTrace& step) {
  if (step_time_.Observe(ShapeOf(step), step.duration)) law_->Become(step_time_.model());
}

// The mirror has composed this step and not yet applied its result: who should end with it and does not gets a new length now.
void ReferencePredictor::CountTokens(const BatchTrace& trace) {
  const auto contains = [](const std::vector<RequestId>& list, RequestId id) {
    return std::find(list.begin(), list.end(), id) != list.end();
  };
  const auto find = [this](RequestId id) {
    return std::find_if(decoding_.begin(), decoding_.end(), [id](const Decoding& d) { return d.request == id; });
  };
  for (RequestId id : trace.preempted) {
    if (const auto d = find(id); d != decoding_.end()) d->preempted = true;
  }
  for (Decoding& d : decoding_) d.generated += d.preempted || contains(trace.skipped, d.request) ? 0 : 1;
  for (const BatchTrace::Chunk& c : trace.chunks) {
    if (!c.samples) continue;
    if (const auto d = find(c.request); d == decoding_.end()) {
      decoding_.push_back({c.request, 1, false});
    } else {
      d->generated += d->preempted ? 1 : 0;
      d->preempted = false;
    }
  }
  std::erase_if(decoding_, [this](const Decoding& d) {
    const Known* known = known_.Find(d.request.value());
    return known == nullptr || known->ended;
  });
  for (const Decoding& d : decoding_) {
    Known& known = *known_.Find(d.request.value());
    if (d.generated < known.request.output_tokens) continue;
    known.request.output_tokens = NewLength(known, d.generated);
    if (!profile_.limits.stop_at_eos) known.request.max_tokens = known.request.output_tokens;
    engine_->SetLength(d.request, known.request.max_tokens, known.request.output_tokens);
  }
}

// Output tokens since the mirror began, more than `generated`.
int64_t ReferencePredictor::NewLength(const Known& known, int64_t generated) const {
  const int64_t all = known.before + generated;
  const int64_t total =
      lengths_ != nullptr ? lengths_->Total(known.length, TokenCount(all)).value() : all + std::max<int64_t>(1, all / 2);
  const EngineConfig& c = profile_.limits;
  const int64_t room =
      std::min<int64_t>(c.max_model_len, int64_t{c.num_gpu_blocks - 1} * c.block_size) - known.request.prompt_tokens;
  return std::max(generated + 1, std::min(total - known.before, room));
}

void ReferencePredictor::OnFinished(RequestId request, const BatchTrace::Finish& finish, Instant at) {
  const Known* known = known_.Find(request.value());
  if (known == nullptr) return;
  const bool over = known->ended || finish.reason == FinishReason::kAborted || !follows_steps_;
  const Known was = *known;
  known_.Erase(request.value());
  if (!over) Continue(was, at);
}

void ReferencePredictor::OnRejected(RequestId request, OutcomeReason, Instant) { known_.Erase(request.value()); }

// The mirror ended it, and no reported step did: they have parted, as after lost messages. What it has generated counts as prompt.
void ReferencePredictor::Continue(const Known& known, Instant at) {
  Known next = known;
  const int64_t generated = known.request.output_tokens;
  if (profile_.limits.max_model_len - known.request.prompt_tokens - generated <= 1) return;
  next.request.output_tokens = NewLength(known, generated) - generated;
  next.before += generated;
  next.request.prompt_tokens += generated;
  FitTo(next.request.prompt_tokens, next.request.id, next.request.segments);
  if (!profile_.limits.stop_at_eos) next.request.max_tokens = next.request.output_tokens;
  inbox_.insert(inbox_.begin(), {at, true, next.request});
  std::erase_if(decoding_, [&](const Decoding& d) { return d.request == next.request.id; });
  known_.Insert(next.request.id.value(), std::move(next));
}

void ReferencePredictor::OnAggregate(const AggregateState& state, const BatchTrace* step) {
  if (step != nullptr) Learn(*step);
  RunTo(state.as_of);
  running_ = state.running;
  waiting_ = state.waiting;
}

void ReferencePredictor::OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) {
  FT_CHECK(Restart(as_of).ok());
  follows_steps_ = true;
  IdMap<Known> before = std::move(known_);
  known_ = IdMap<Known>();
  inbox_.clear();
  decoding_.clear();
  const auto resume = [&](const Snapshot::Request& s, bool) {
    Known k;
    if (const Known* old = before.Find(s.request.value())) k = *old;
    for (const Reservation& r : reservations) {
      if (r.request == s.request) k = {RequestOf(r), r.length};
    }
    const int64_t total = std::max<int64_t>(k.before + k.request.output_tokens, s.generated_tokens + 1);
    k.request.id = s.request;
    k.length.request = s.request;
    k.request.prompt_tokens = s.prompt_tokens + s.generated_tokens;
    k.request.output_tokens = total - s.generated_tokens;
    k.before = s.generated_tokens;
    FitTo(k.request.prompt_tokens, s.request, k.request.segments);
    k.request.max_tokens = profile_.limits.stop_at_eos ? profile_.limits.max_model_len : k.request.output_tokens;
    inbox_.push_back({as_of, true, k.request});
    known_.Insert(s.request.value(), std::move(k));
  };
  for (const Snapshot::Request& s : snapshot.running) resume(s, true);
  for (const Snapshot::Request& s : snapshot.waiting) resume(s, false);
  running_ = static_cast<int32_t>(snapshot.running.size());
  waiting_ = 0;
  for (const Reservation& r : reservations) {
    if (known_.Find(r.request.value()) == nullptr) OnEnqueue(r, r.arrival);
  }
}

Prediction ReferencePredictor::Predict(const PredictQuery& query, Instant now) {
  if (!follows_steps_) RunBefore(now);
  Reservation r;
  r.request = kAsked;
  r.priority = query.request->priority;
  r.arrival = query.request->arrival;
  r.prompt_tokens = query.request->prompt_tokens.value();
  r.expected_output = query.expected_output.value();
  r.segments = query.request->segments;
  std::unique_ptr<EmulatedEngine> fork = engine_->Clone();
  law_->SetForking(true);
  TakeIn(*fork, Instant::Max());
  std::unique_ptr<EmulatedEngine> without = query.want_externality ? fork->Clone() : nullptr;
  fork->Submit(RequestOf(r), std::max(now, ran_to_));
  ForkSink with(r.request);
  // In growing strides: to its end, and everybody's if asked.
  Duration stride = Duration::Millis(100);
  Instant at = std::max(now, ran_to_);
  while (at - now < kHorizon && (!with.end || (without != nullptr && fork->NextEvent() != Instant::Max()))) {
    at += stride;
    fork->RunUntil(at, with);
    stride = std::min(stride * 2, Duration::Seconds(1000));
  }
  Prediction p;
  p.predictor = PredictorKind::kReference;
  const Instant end = with.end.value_or(at);
  p.ttft = with.first.value_or(end) - now + profile_.ttft_offset;
  p.e2e = p.e2e_alone = end - now + profile_.ttft_offset;
  if (r.expected_output > 1) p.tpot = Duration::Nanos((p.e2e - p.ttft).nanos() / (r.expected_output - 1));
  p.longest_gap = p.tpot.value_or(Duration());
  if (without != nullptr) {
    ForkSink alone(r.request);
    without->RunUntil(at, alone);
    IdMap<int64_t> ends;
    for (const auto& [id, t] : alone.ends) ends.Insert(id.value(), t.nanos());
    int64_t lost = 0;
    for (const auto& [id, t] : with.ends) {
      if (const int64_t* before = ends.Find(id.value())) lost += t.nanos() - *before;
    }
    p.externality = Duration::Nanos(lost);
  }
  law_->SetForking(false);
  errors_.Fill(query, lengths_, p);
  errors_.Answered(query.request->id, p);
  p.kv_headroom = BlockCount(engine_->core().free_blocks());
  return p;
}

size_t ReferencePredictor::memory_bytes() const {
  return sizeof(*this) + static_cast<size_t>(profile_.limits.num_gpu_blocks) * 48 + known_.size() * 256 + known_.memory_bytes();
}

}  // namespace foretoken
