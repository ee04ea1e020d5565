#include "runtime/predict/simulator_core.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/base/prng.h"
#include "runtime/model/wire_size.h"
#include "runtime/sync/map_times.h"

namespace foretoken {

namespace {

constexpr uint64_t kRefused = uint64_t{1} << 63;  // the router's ids do not reach it

}  // namespace

class SimulatorCore::Sink final : public Stream::Sink {
 public:
  Sink(SimulatorCore& core, SimulatorEffects& effects) : core_(core), effects_(effects) {}
  void Apply(StreamMessage& m) override { core_.Apply(m); }
  void ApplySnapshot(StreamMessage& m) override { core_.Apply(m); }
  void EpochChanged(Epoch) override { core_.EpochChanged(); }
  void RequestResync(Epoch epoch, uint64_t from_seq) override {
    effects_.RequestResync(core_.instance(), epoch, from_seq, core_.now_);
  }

 private:
  SimulatorCore& core_;
  SimulatorEffects& effects_;
};

SimulatorCore::SimulatorCore(Options options, std::unique_ptr<Predictor> predictor, std::unique_ptr<LengthEstimator> lengths)
    : options_(std::move(options)),
      lengths_(std::move(lengths)),
      predictor_(std::move(predictor)),
      sequencer_(options_.sequencer) {}

void SimulatorCore::OnStream(StreamMessage& message, Instant now, SimulatorEffects& effects) {
  now_ = now;
  last_heard_ = now;
  if (options_.own_clock) HearClock(message, effects);
  const bool snapshot = std::holds_alternative<Snapshot>(message.body);
  const auto bytes = static_cast<uint64_t>(WireBytesOf(message));
  counters_.stream_bytes += bytes;
  if (snapshot) counters_.snapshot_bytes += bytes;
  const Stream::Header header{message.epoch, message.seq, snapshot};
  Sink sink(*this, effects);
  sequencer_.OnMessage(header, message, now, sink);
}

void SimulatorCore::Progress(Instant at) {
  KnownUpTo(at);
  ++versions_.state;
}

// What comes later in a stream is of a later time, however its clock was mapped: where the map says otherwise, the true time lies
// between the two, and is no further off than the worse of them.
void SimulatorCore::KnownUpTo(Instant at) {
  const Duration error = ClockError(at);
  as_of_error_ = at > as_of_ ? error : std::max(error, as_of_error_);
  as_of_ = std::max(as_of_, std::min(at, now_));
}

// Every message bounds the clock from one side, whether or not its turn has come; an echo does from the other.
void SimulatorCore::HearClock(const StreamMessage& message, SimulatorEffects& effects) {
  if (message.epoch < clock_epoch_) return;
  if (clock_epoch_ < message.epoch) {  // another process, with another clock
    clock_ = ClockMap();
    clock_epoch_ = message.epoch;
  }
  clock_.OnReceived(message.sent, now_);
  const Heartbeat* h = std::get_if<Heartbeat>(&message.body);
  if (h == nullptr) return;
  if (h->echo) clock_.OnEcho(h->echo->sent, h->echo->received, now_);
  effects.AnswerHeartbeat(instance(), message.epoch, now_);
}

// How far off a mapped time may be: the map's uncertainty now, and what the clocks may have drifted since then.
Duration SimulatorCore::ClockError(Instant at) const {
  if (!options_.own_clock) return Duration();
  const Duration now = clock_.Uncertainty(now_);
  return now == Duration::Max() ? now : now + clock_.DriftOver(now_ - std::min(at, now_));
}

void SimulatorCore::Apply(StreamMessage& message) {
  if (options_.own_clock) {
    // Nothing that was heard of lies ahead.
    MapTimes(message.body, [this](Instant t) { return std::min(clock_.ToRouter(t, now_), now_); });
  }
  if (const BatchTrace* trace = std::get_if<BatchTrace>(&message.body)) {
    ApplyStep(*trace);
  } else if (const Arrived* a = std::get_if<Arrived>(&message.body)) {
    if (!Confirm(a->request)) {
      ++counters_.foreign;
      if (options_.late_orders) early_.Put(a->request);
    }
    prefill_due_ += a->prompt_tokens;
    predictor_->OnArrived(a->request, a->at);
    Progress(a->at);
  } else if (const Aborted* a = std::get_if<Aborted>(&message.body)) {
    Confirm(a->request);
    length_class_.Erase(a->request.value());
    NoteGone(a->request);
    predictor_->OnGone(a->request, a->at);
    aborted_.push_back({a->request, kStepsInFlight});
    Progress(a->at);
  } else if (const Heartbeat* h = std::get_if<Heartbeat>(&message.body)) {
    if (held_ == 0 && h->held > 0) last_progress_ = now_;  // work came: its first step has the whole bound from here
    held_ = h->held;
    if (held_ == 0) last_progress_ = now_;
    KnownUpTo(h->at);
  } else if (const Snapshot* s = std::get_if<Snapshot>(&message.body)) {
    ApplySnapshot(*s);
  } else if (const Aggregate* g = std::get_if<Aggregate>(&message.body)) {
    free_blocks_ = g->free_blocks;
    total_blocks_ = g->total_blocks;
    predictor_->OnAggregate({g->at, g->waiting, g->running, g->free_blocks, g->total_blocks}, nullptr);
    last_progress_ = now_;
    Progress(g->at);
  }
  // Hello carries limits that the topology gave already.
}

void SimulatorCore::ApplyStep(const BatchTrace& trace) {
  const StepShape shape{trace.prefill_tokens, trace.prefill_ctx_tokens, trace.decode_seqs, trace.decode_kv_tokens};
  const double actual = static_cast<double>(trace.duration.nanos());
  if (actual > 0) {
    const double error = predictor_->step_time().NanosOf(shape) / actual - 1;
    drift_.step_ape += std::abs(error);
    drift_.step_bias += error;
  }
  longest_step_ = std::max(trace.duration, Duration::Nanos(longest_step_.nanos() - longest_step_.nanos() / 16));
  last_progress_ = now_;
  free_blocks_ = trace.free_blocks;
  total_blocks_ = trace.total_blocks;
  prefill_due_ = std::max<int64_t>(0, prefill_due_ - trace.prefill_tokens);
  if (trace.prefill_tokens == 0 && trace.waiting == 0) prefill_due_ = 0;  // the rest was cached
  if (options_.level == SyncLevel::kFull) {
    for (const BatchTrace::Finish& f : trace.finished) {
      NoteGone(f.request);
      if (const uint32_t* c = length_class_.Find(f.request.value())) {
        if (f.reason != FinishReason::kAborted) lengths_->Learn(*c, TokenCount(f.output_tokens));
        length_class_.Erase(f.request.value());
      }
    }
    CompareWithStepBefore(trace);
    predictor_->OnStep(trace);
    ForgetAborted();
    told_ = Told{trace.step, trace.end(), predictor_->running() - trace.running,
                 predictor_->waiting() - static_cast<int32_t>(unconfirmed_.size()) - trace.waiting};
  } else {
    predictor_->OnAggregate({trace.end(), trace.waiting, trace.running, trace.free_blocks, trace.total_blocks}, &trace);
  }
  ++drift_.steps;
  Progress(trace.end());
}

// An engine that composes a batch while the one before it runs has admitted that batch's requests by the time that it tells what it
// holds, while the mirror learns of them with that batch. So a step is compared once the next one says what was admitted by then.
void SimulatorCore::CompareWithStepBefore(const BatchTrace& next) {
  if (!told_) return;
  const bool composed = next.scheduled < told_->end;
  const int32_t moved = composed ? static_cast<int32_t>(next.admitted.size()) - static_cast<int32_t>(next.preempted.size()) : 0;
  if (next.step == told_->step + 1) {
    drift_.running_abs += std::abs(told_->running + moved);
    drift_.waiting_abs += std::abs(told_->waiting - moved);
  }
  told_.reset();
}

void SimulatorCore::ApplySnapshot(const Snapshot& snapshot) {
  told_.reset();
  free_blocks_ = snapshot.free_blocks;
  total_blocks_ = snapshot.total_blocks;
  for (const auto* list : {&snapshot.running, &snapshot.waiting})
    for (const Snapshot::Request& r : *list)
      if (!Confirm(r.request) && options_.late_orders) early_.Put(r.request);
  // Arrived and ended within what the snapshot stands in for: not in flight to the engine any more.
  const Duration error = ClockError(snapshot.as_of);
  if (error != Duration::Max())
    std::erase_if(unconfirmed_, [&](const Unconfirmed& u) { return u.ended <= snapshot.as_of - error; });
  std::vector<Reservation> pending;
  for (const Unconfirmed& u : unconfirmed_) pending.push_back(u.reservation);
  if (options_.level == SyncLevel::kFull) ForgetEnded(snapshot);
  prefill_due_ = 0;
  for (const auto* list : {&snapshot.running, &snapshot.waiting})
    for (const Snapshot::Request& r : *list) prefill_due_ += std::max(0, r.prompt_tokens - r.computed_tokens);
  if (options_.level == SyncLevel::kFull) {
    predictor_->OnSnapshot(snapshot, snapshot.as_of, pending);
  } else {
    // The client side has seen some of them end meanwhile, and the stream will not tell.
    Snapshot live = snapshot;
    const auto ended = [this](const Snapshot::Request& r) { return length_class_.Find(r.request.value()) == nullptr; };
    std::erase_if(live.running, ended);
    std::erase_if(live.waiting, ended);
    predictor_->OnSnapshot(live, live.as_of, pending);
  }
  last_progress_ = now_;
  Progress(snapshot.as_of);
}

// A step that was in flight when a request was aborted still lists it; that must not bring it back.
void SimulatorCore::ForgetAborted() {
  for (AbortedLately& a : aborted_) {
    predictor_->OnGone(a.request, now_);
    --a.steps;
  }
  std::erase_if(aborted_, [](const AbortedLately& a) { return a.steps == 0; });
}

// Those that the engine had confirmed and no longer has ended in a message that the snapshot stands in for.
void SimulatorCore::ForgetEnded(const Snapshot& snapshot) {
  IdMap<uint32_t> live;
  const auto keep = [&](RequestId r) {
    if (const uint32_t* c = length_class_.Find(r.value())) live.Insert(r.value(), *c);
  };
  for (const auto* list : {&snapshot.running, &snapshot.waiting})
    for (const Snapshot::Request& r : *list) keep(r.request);
  for (const Unconfirmed& u : unconfirmed_) keep(u.reservation.request);
  length_class_ = std::move(live);
}

void SimulatorCore::EpochChanged() {
  told_.reset();
  // What the old engine had confirmed died with it. What is unconfirmed may have reached the new one: it stays until confirmed,
  // cancelled by its SCHEDULER (which sees the failure first hand), or expired.
  std::vector<Reservation> pending;
  for (const Unconfirmed& u : unconfirmed_) pending.push_back(u.reservation);
  Snapshot empty;
  empty.free_blocks = empty.total_blocks = options_.profile.limits.num_gpu_blocks - 1;
  if (options_.level == SyncLevel::kFull) ForgetEnded(empty);
  predictor_->OnSnapshot(empty, now_, pending);
  free_blocks_ = empty.free_blocks;
  total_blocks_ = empty.total_blocks;
  held_ = 0;
  prefill_due_ = 0;
  aborted_.clear();
  early_.Clear();
  last_progress_ = now_;
  Progress(now_);
}

bool SimulatorCore::Confirm(RequestId request) {
  const auto at = std::find_if(unconfirmed_.begin(), unconfirmed_.end(),
                               [&](const Unconfirmed& u) { return u.reservation.request == request; });
  if (at == unconfirmed_.end()) return length_class_.Find(request.value()) != nullptr;
  unconfirmed_.erase(at);
  return true;
}

Prediction SimulatorCore::Predict(const PredictQuery& query, Instant now) {
  now_ = now;
  Prediction p = predictor_->Predict(query, now);
  p.instance = instance();
  p.versions = versions_;
  const Liveness liveness = LivenessAt(now);
  p.as_of = options_.level == SyncLevel::kNone ? now : as_of_;
  p.age = Age(now, liveness);
  if (p.age > Duration()) p.age_uncertainty = as_of_error_;
  p.stale = liveness != Liveness::kFresh;
  p.usable = liveness <= Liveness::kStale;
  ++counters_.predictions;
  ++counters_.answered[static_cast<size_t>(p.predictor)];
  answered_last_ = p.predictor;
  counters_.stale_predictions += p.stale;
  return p;
}

// Idle and heard of: nothing can have changed unseen. Without heartbeats a healthy link is assumed.
Duration SimulatorCore::Age(Instant now, Liveness liveness) const {
  const bool quiet = predictor_->running() == 0 && predictor_->waiting() == 0;
  if (options_.level == SyncLevel::kNone || (quiet && liveness == Liveness::kFresh)) return Duration();
  return std::max(Duration(), now - as_of_);
}

EnqueueReply SimulatorCore::OnEnqueue(const EnqueueOrder& order, Instant now) {
  now_ = now;
  EnqueueReply reply{order.decision, instance(), true, versions_, {}};
  const Reservation& r = order.reservation;
  if (length_class_.Find(r.request.value()) != nullptr) return reply;  // a repeated order: idempotent
  if (gone_.Has(r.request)) return reply;  // it ended, or was taken back, before its order came, or comes again
  // A guarded order that was refused may come again: its SCHEDULER has chosen anew since, or will.
  const RequestId refused(Mix64(order.decision.value(), r.request.value()) | kRefused);
  const bool again = order.guarded && gone_.Has(refused);
  if (order.guarded && (again || order.predicted_on.reservations != versions_.reservations)) {
    reply.fresh = Predict(order.query, now);
    const bool worse = ScoreOf(order.score_rule, reply.fresh) > order.runner_up;
    if (again || order.rule == RepickRule::kRejectOnAnyChange || (order.rule == RepickRule::kVersioned && worse)) {
      counters_.overtaken += !again;
      NoteGone(refused);
      reply.accepted = false;
      return reply;
    }
  }
  length_class_.Insert(r.request.value(), r.length.length_class);
  if (early_.Has(r.request)) {
    --counters_.foreign;  // it was ours
  } else if (options_.level == SyncLevel::kFull) {
    unconfirmed_.push_back({r, now + options_.confirm_timeout});
  } else {
    prefill_due_ += r.prompt_tokens;
  }
  predictor_->OnEnqueue(r, now);
  ++versions_.reservations;
  ++counters_.enqueues;
  reply.versions = versions_;
  return reply;
}

void SimulatorCore::OnCancel(RequestId request, Instant now) {
  now_ = now;
  NoteGone(request);
  if (!length_class_.Erase(request.value())) return;  // ended or released already
  Confirm(request);
  predictor_->OnGone(request, now);
  ++versions_.reservations;
  ++counters_.cancelled;
}

void SimulatorCore::OnEnded(RequestId request, TokenCount output, Instant now) {
  now_ = now;
  NoteGone(request);
  if (options_.level == SyncLevel::kFull) {  // the stream tells, in order; unless what would tell is lost
    for (Unconfirmed& u : unconfirmed_)
      if (u.reservation.request == request) u.ended = now;
    return;
  }
  const uint32_t* c = length_class_.Find(request.value());
  if (c == nullptr) return;
  lengths_->Learn(*c, output);
  length_class_.Erase(request.value());
  predictor_->OnEnded(request, now);
  Progress(now);
}

void SimulatorCore::NoteGone(RequestId request) {
  if (options_.late_orders) gone_.Put(request);
}

Instant SimulatorCore::NextTimer() const {
  const Instant expiry = unconfirmed_.empty() ? Instant::Max() : unconfirmed_.front().expires;
  return std::min(sequencer_.NextTimeout(), expiry);
}

void SimulatorCore::OnTimer(Instant now, SimulatorEffects& effects) {
  now_ = now;
  ExpireReservations(now);
  Sink sink(*this, effects);
  sequencer_.OnTimeout(now, sink);
}

void SimulatorCore::ExpireReservations(Instant now) {
  while (!unconfirmed_.empty() && unconfirmed_.front().expires <= now) {
    const RequestId request = unconfirmed_.front().reservation.request;
    unconfirmed_.erase(unconfirmed_.begin());
    length_class_.Erase(request.value());
    predictor_->OnGone(request, now);
    ++versions_.reservations;
    ++counters_.lost_assignments;
  }
}

// What the step in flight may take at most, as far as the prompts are known that it may be computing.
Duration SimulatorCore::LongestDue() const {
  if (prefill_due_ == 0 || options_.profile.step_time.law == nullptr) return Duration();
  const int64_t tokens = std::min<int64_t>(prefill_due_, options_.profile.limits.max_num_batched_tokens);
  return options_.profile.step_time.At({tokens, 0, 0, 0});
}

Liveness SimulatorCore::LivenessAt(Instant now) const {
  if (!options_.liveness) return Liveness::kFresh;
  const Duration silent = now - last_heard_;
  if (silent >= options_.dead_after) return Liveness::kUnreachable;
  if (held_ > 0) {
    const Duration bound = std::max(options_.dead_after, std::max(longest_step_, LongestDue()) * 5);
    if (now - last_progress_ >= bound) return Liveness::kHung;
  }
  return silent >= options_.stale_after ? Liveness::kStale : Liveness::kFresh;
}

}  // namespace foretoken
