#include "runtime/engine/emulated_engine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

// The engine's loop (vllm-scheduler.md 1.3) without host time of its own: taking requests in, composing and applying take none
// (a step's host overhead is in the step-time model).
class LoopedEngine final : public EmulatedEngine {
 public:
  LoopedEngine(Options options, std::unique_ptr<EngineCore> core)
      : options_(std::move(options)),
        core_(std::move(core)),
        depth_(options_.config.async_scheduling ? 2 : 1),
        now_(options_.start),
        ran_to_(options_.start),
        gpu_free_(options_.start) {}
  LoopedEngine(const LoopedEngine& o)
      : options_(o.options_),
        core_(o.core_->Clone()),
        depth_(o.depth_),
        now_(o.now_),
        ran_to_(o.ran_to_),
        gpu_free_(o.gpu_free_),
        waiting_for_result_(o.waiting_for_result_),
        blocked_(o.blocked_),
        empty_turns_(o.empty_turns_),
        inbox_(o.inbox_),
        inbox_head_(o.inbox_head_),
        flying_(o.flying_),
        first_(o.first_),
        in_flight_(o.in_flight_),
        composed_(o.composed_),
        reported_(o.reported_),
        cancelled_(o.cancelled_),
        preempted_before_(o.preempted_before_),
        counters_(o.counters_),
        idle_preemptions_(o.idle_preemptions_),
        last_preempted_(o.last_preempted_),
        segment_(o.segment_),
        segment_seqs_(o.segment_seqs_) {}

  std::optional<OutcomeReason> Refusal(const EngineRequest& q) const override;
  void Submit(const EngineRequest& request, Instant at) override { Post({at, true, request}); }
  void Abort(RequestId request, Instant at) override {
    EngineRequest named;
    named.id = request;
    Post({at, false, std::move(named)});
  }
  bool SetLength(RequestId request, int64_t max_tokens, int64_t output_tokens) override {
    return core_->SetLength(request, max_tokens, output_tokens);
  }
  void RunUntil(Instant until, EngineSink& sink) override;
  Instant NextEvent() const override {
    if (waiting_for_result_) return Oldest().end;
    return InboxEmpty() ? Instant::Max() : std::max(now_, inbox_[inbox_head_].at);
  }
  const Counters& counters() const override { return counters_; }
  const EngineCore& core() const override { return *core_; }
  Snapshot TakeSnapshot(bool exact) const override;
  std::unique_ptr<EmulatedEngine> Clone() const override { return std::make_unique<LoopedEngine>(*this); }

 private:
  struct Message {
    Instant at;
    bool is_request = true;
    EngineRequest request;  // an abort: only its id
  };
  struct Flying {
    Instant start;
    Instant end;
    uint64_t step = 0;
    bool executed = false;
    BatchTrace trace;  // only when traces are asked for
  };
  static constexpr size_t kMaxDepth = 2;

  bool InboxEmpty() const { return inbox_head_ == inbox_.size(); }
  const Flying& Oldest() const { return flying_[first_]; }
  void Post(Message m);
  void AddInboxTo(Snapshot& snapshot) const;
  void TakeIn(EngineSink& sink);
  void TakeAborts();
  void AbortNow(RequestId request);
  bool Compose();
  void BreakLivelock(EngineSink& sink);
  Duration DurationOf(const StepShape& shape);
  void Describe(const BatchSummary& summary, const Flying& f, BatchTrace& trace);
  void Complete(EngineSink& sink);

  Options options_;
  std::unique_ptr<EngineCore> core_;
  int32_t depth_;
  Instant now_;  // of the loop
  Instant ran_to_;
  Instant gpu_free_;  // end of the last batch given to the accelerator
  bool waiting_for_result_ = false;
  bool blocked_ = false;        // nothing can run until a message comes
  int32_t empty_turns_ = 0;     // turns in a row that ran nothing
  std::vector<Message> inbox_;  // by time, from inbox_head_
  size_t inbox_head_ = 0;
  std::array<Flying, kMaxDepth> flying_;
  size_t first_ = 0;
  int32_t in_flight_ = 0;
  uint64_t composed_ = 0;  // executed steps composed; the next one's number
  uint64_t reported_ = 0;
  std::vector<RequestId> cancelled_;         // since the last executed step's end
  std::vector<RequestId> preempted_before_;  // by batches that computed nothing, since the last that did
  Counters counters_;
  int64_t idle_preemptions_ = 0;  // since a token last came out
  RequestId last_preempted_;
  // The linear piece of the step-time model around the last pure-decode step.
  DecodeSegment segment_;
  int64_t segment_seqs_ = -1;
};

void LoopedEngine::Post(Message m) {
  m.at = std::max(m.at, options_.start);
  FT_CHECK(m.at >= ran_to_);
  if (InboxEmpty()) {
    inbox_.clear();
    inbox_head_ = 0;
  }
  inbox_.push_back(std::move(m));
  for (size_t i = inbox_.size() - 1; i > inbox_head_ && inbox_[i - 1].at > inbox_[i].at; --i)
    std::swap(inbox_[i - 1], inbox_[i]);
}

// The engine's front end, and one deliberate difference from vLLM, which would hold such a request (and all behind it) for ever:
// what the request will compute by its end must fit the pool when it runs alone, and, without chunked prefill, the budget.
std::optional<OutcomeReason> LoopedEngine::Refusal(const EngineRequest& q) const {
  const EngineConfig& c = options_.config;
  if (q.prompt_tokens >= c.max_model_len) return OutcomeReason::kTooLong;
  int64_t output = std::min(q.max_tokens, c.max_model_len - q.prompt_tokens);
  if (c.stop_at_eos) output = std::min(output, q.output_tokens);
  const int64_t computed = q.prompt_tokens + std::max<int64_t>(output, 1) - 1;  // the last token's KV is never computed
  if ((computed + c.block_size - 1) / c.block_size > core_->usable_blocks()) return OutcomeReason::kNeverFits;
  if (!c.chunked_prefill && computed > c.max_num_batched_tokens) return OutcomeReason::kNeverFits;
  return std::nullopt;
}

void LoopedEngine::TakeIn(EngineSink& sink) {
  for (; !InboxEmpty() && inbox_[inbox_head_].at <= now_; ++inbox_head_) {
    const Message& m = inbox_[inbox_head_];
    if (!m.is_request) {
      AbortNow(m.request.id);
    } else if (const auto reason = Refusal(m.request)) {
      sink.OnRejected(m.request.id, *reason, now_);
    } else {
      const Status added = core_->Add(m.request);
      FT_CHECK(added.ok());  // the host's ids are unique
    }
  }
}

void LoopedEngine::AbortNow(RequestId request) {
  if (core_->Abort(request) && options_.traces) cancelled_.push_back(request);
}

// While a batch runs, aborts are taken out of turn; those of requests that still wait in the inbox keep their turn.
void LoopedEngine::TakeAborts() {
  for (size_t i = inbox_head_; i < inbox_.size() && inbox_[i].at <= now_; ++i)
    if (!inbox_[i].is_request) AbortNow(inbox_[i].request.id);
}

Duration LoopedEngine::DurationOf(const StepShape& shape) {
  double nanos;
  if (shape.prefill_tokens > 0) {
    nanos = options_.step_time.NanosOf(shape);
  } else {
    const int64_t kv = shape.decode_kv_tokens;
    if (shape.decode_seqs != segment_seqs_ || kv < segment_.kv_from || kv >= segment_.kv_until) {
      segment_ = options_.step_time.DecodeSegmentAt(shape.decode_seqs, kv);
      segment_seqs_ = shape.decode_seqs;
    }
    nanos = segment_.base_ns + segment_.per_kv_token_ns * static_cast<double>(kv);
  }
  if (!options_.noise.silent()) nanos *= options_.noise.FactorAt(composed_);
  return Duration::Nanos(std::max<int64_t>(1, std::llround(nanos)));
}

// Requests preempted by a batch that computes nothing are reported with the next one that does.
void LoopedEngine::Describe(const BatchSummary& s, const Flying& f, BatchTrace& t) {
  t.step = f.step;
  t.scheduled = now_;
  t.start = f.start;
  t.duration = f.end - f.start;
  t.prefill_tokens = static_cast<int32_t>(s.shape.prefill_tokens);
  t.prefill_seqs = s.prefill_seqs;
  t.prefill_ctx_tokens = s.shape.prefill_ctx;
  t.decode_seqs = static_cast<int32_t>(s.shape.decode_seqs);
  t.decode_kv_tokens = s.shape.decode_kv_tokens;
  t.chunks.assign(s.chunks.begin(), s.chunks.end());
  t.admitted.assign(s.admitted.begin(), s.admitted.end());
  t.preempted.swap(preempted_before_);
  preempted_before_.clear();
  t.skipped.assign(s.skipped.begin(), s.skipped.end());
}

// True if the batch computes anything.
bool LoopedEngine::Compose() {
  const BatchSummary& summary = core_->ScheduleSummary();
  Flying& f = flying_[(first_ + static_cast<size_t>(in_flight_++)) % kMaxDepth];
  f.executed = !summary.empty();
  f.step = composed_;
  f.start = f.end = now_;
  if (!summary.preempted.empty()) {
    counters_.preemptions += summary.preempted.size();
    idle_preemptions_ += static_cast<int64_t>(summary.preempted.size());
    last_preempted_ = summary.preempted.back();
  }
  counters_.blocks_evicted += static_cast<uint64_t>(summary.evicted);
  if (f.executed) {
    f.start = std::max(now_, gpu_free_);
    f.end = f.start + DurationOf(summary.shape);
    gpu_free_ = f.end;
    ++composed_;
  }
  if (options_.traces) {
    preempted_before_.insert(preempted_before_.end(), summary.preempted.begin(), summary.preempted.end());
    if (f.executed) Describe(summary, f, f.trace);
  }
  return f.executed;
}

void LoopedEngine::Complete(EngineSink& sink) {
  Flying& f = flying_[first_];
  now_ = std::max(now_, f.end);
  if (!InboxEmpty()) TakeAborts();
  const BatchResult& result = core_->UpdateSummary();
  first_ = (first_ + 1) % kMaxDepth;
  --in_flight_;
  counters_.tokens += static_cast<uint64_t>(result.tokens);
  if (result.tokens > 0) idle_preemptions_ = 0;
  if (f.executed) {
    ++counters_.steps;
    ++reported_;
    if (options_.traces) {
      f.trace.finished.assign(result.finished.begin(), result.finished.end());
      f.trace.cancelled.swap(cancelled_);
      cancelled_.clear();
      f.trace.waiting = result.waiting_after;
      f.trace.running = result.running_after;
      f.trace.free_blocks = result.free_blocks_after;
      f.trace.total_blocks = core_->usable_blocks();
      sink.OnStep(f.trace);
    }
  }
  for (const RequestId id : result.first_tokens) sink.OnFirstToken(id, now_);
  for (const BatchTrace::Finish& finish : result.finished) sink.OnFinished(finish.request, finish, now_);
}

// Without the full-ISL gate, partial prefills can preempt each other in turn and for ever (the specification does so too). The
// second deliberate difference: after far more preemptions without a token than one shortage explains, the last victim is refused.
void LoopedEngine::BreakLivelock(EngineSink& sink) {
  const int64_t bound = 1000 + 8 * static_cast<int64_t>(options_.config.max_num_seqs);
  if (idle_preemptions_ <= bound) return;
  idle_preemptions_ = 0;
  if (!core_->Abort(last_preempted_)) return;
  ++counters_.livelocks;
  sink.OnRejected(last_preempted_, OutcomeReason::kNeverFits, now_);
  if (options_.traces) cancelled_.push_back(last_preempted_);
}

void LoopedEngine::RunUntil(Instant until, EngineSink& sink) {
  // A batch that can do nothing is tried this often before the engine waits for a message (its state has settled by then).
  constexpr int32_t kEmptyTurnsMax = 4;
  while (true) {
    if (waiting_for_result_) {
      if (Oldest().end > until) break;
      Complete(sink);
      BreakLivelock(sink);
      waiting_for_result_ = false;
      if (empty_turns_ >= kEmptyTurnsMax) blocked_ = core_->HasRequests();
    }
    if (blocked_ || (in_flight_ == 0 && !core_->HasRequests())) {
      if (InboxEmpty() || inbox_[inbox_head_].at > until) break;
      now_ = std::max(now_, inbox_[inbox_head_].at);
      blocked_ = false;
      empty_turns_ = 0;
    }
    if (!InboxEmpty()) TakeIn(sink);
    bool executed = false;
    if (core_->HasRequests()) {
      executed = Compose();
      if (in_flight_ < depth_ && (executed || core_->HasRequests())) continue;
    } else if (in_flight_ == 0) {
      continue;
    }
    waiting_for_result_ = true;
    empty_turns_ = executed || in_flight_ > 1 ? 0 : empty_turns_ + 1;
  }
  ran_to_ = std::max(ran_to_, until);
}

// Requests that came while a batch runs wait here until the next one is composed: its engine has them, so they are in its state.
void LoopedEngine::AddInboxTo(Snapshot& snapshot) const {
  for (size_t i = inbox_head_; i < inbox_.size() && inbox_[i].at <= ran_to_; ++i) {
    const EngineRequest& q = inbox_[i].request;
    if (!inbox_[i].is_request && !snapshot.exact) {  // gone as soon as the batch allows: an exact one says what the core holds
      const auto is = [&q](const Snapshot::Request& r) { return r.request == q.id; };
      std::erase_if(snapshot.running, is);
      std::erase_if(snapshot.waiting, is);
    }
    bool stays = inbox_[i].is_request && !Refusal(q);
    for (size_t k = i + 1; stays && k < inbox_.size(); ++k) stays = inbox_[k].is_request || inbox_[k].request.id != q.id;
    if (!stays) continue;
    snapshot.waiting.push_back({q.id, static_cast<int32_t>(q.prompt_tokens), 0, 0, 0});
    if (!snapshot.exact) continue;
    snapshot.exact->requests.emplace_back();
    Snapshot::RequestBlocks& blocks = snapshot.exact->requests.back();
    blocks.request = q.id;
    blocks.priority = q.priority;
    blocks.max_tokens = q.max_tokens;
    blocks.arrival = Instant() + Duration::FromSeconds(q.arrival_key);
  }
}

Snapshot LoopedEngine::TakeSnapshot(bool exact) const {
  Snapshot snapshot = core_->TakeSnapshot(exact);
  snapshot.as_of = ran_to_;
  snapshot.next_step = reported_;
  if (exact && snapshot.exact) {
    for (size_t i = 0; i < snapshot.exact->in_flight.size(); ++i) {
      const Flying& f = flying_[(first_ + i) % kMaxDepth];
      snapshot.exact->in_flight[i].step = f.step;
      snapshot.exact->in_flight[i].start = f.start;
    }
  }
  AddInboxTo(snapshot);
  return snapshot;
}

}  // namespace

Result<std::unique_ptr<EmulatedEngine>> EmulatedEngine::Make(Options options) {
  if (options.step_time.law == nullptr) return Error{"emulated engine: a step-time law is needed"};
  auto core = MakeEngineCore(options.config);
  if (!core.ok()) return core.error();
  return std::unique_ptr<EmulatedEngine>(new LoopedEngine(std::move(options), std::move(core).value()));
}

}  // namespace foretoken
