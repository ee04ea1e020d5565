#include "runtime/sync/instance_core.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/sync/map_times.h"

namespace foretoken {

Result<std::unique_ptr<InstanceCore>> InstanceCore::Make(Options options) {
  options.engine.traces = options.level >= SyncLevel::kAggregate;
  std::unique_ptr<InstanceCore> core(new InstanceCore(std::move(options)));
  const Status started = core->StartEngine(core->options_.engine.start);
  if (!started.ok()) return started.error();
  core->StartEpoch(core->options_.engine.start);
  return core;
}

Status InstanceCore::StartEngine(Instant at) {
  EmulatedEngine::Options o = options_.engine;
  o.start = at;
  o.noise.seed = Mix64(o.noise.seed, epoch_.value());  // a new epoch draws new noise
  auto engine = EmulatedEngine::Make(std::move(o));
  if (!engine.ok()) return engine.error();
  engine_ = std::move(engine).value();
  return Status();
}

void InstanceCore::StartEpoch(Instant at) {
  next_seq_ = 0;
  hello_sent_ = false;
  echo_.reset();
  down_until_ = at;
  if (options_.level == SyncLevel::kNone) return;
  if (options_.heartbeat > Duration()) next_heartbeat_ = at;
  if (options_.level == SyncLevel::kPoll) next_poll_ = at + options_.poll_interval;
}

EmulatedEngine::Counters InstanceCore::counters() const {
  EmulatedEngine::Counters c = engine_->counters();
  c.steps += before_restart_.steps;
  c.preemptions += before_restart_.preemptions;
  c.tokens += before_restart_.tokens;
  c.blocks_evicted += before_restart_.blocks_evicted;
  return c;
}

template <class Body>
void InstanceCore::Emit(Body&& body, Instant at) {
  if (!hello_sent_) {
    hello_sent_ = true;
    const EngineConfig& c = options_.engine.config;
    Emit(Hello{c.max_num_batched_tokens, c.max_num_seqs, c.block_size, c.num_gpu_blocks, c.prefix_caching, c.async_scheduling},
         at);
  }
  message_.instance = options_.instance;
  message_.epoch = epoch_;
  message_.seq = next_seq_++;
  using B = std::decay_t<Body>;
  if (B* same = std::get_if<B>(&message_.body)) {
    *same = std::forward<Body>(body);  // keeps the vectors' storage
  } else {
    message_.body = std::forward<Body>(body);
  }
  message_.sent = options_.clock.At(at);
  if (options_.clock != ClockSkew{}) MapTimes(message_.body, [this](Instant t) { return options_.clock.At(t); });
  effects_->Send(message_, at);
}

void InstanceCore::OnDispatch(const EngineRequest& request, Instant now, InstanceEffects& effects) {
  effects_ = &effects;
  if (!up(now)) return effects.Failed(options_.instance, request.id, OutcomeReason::kEngineDown, now);
  // The front end answers at once; in the engine's own queue a refusal would come when the step in flight ends.
  if (const auto reason = engine_->Refusal(request)) return effects.Failed(options_.instance, request.id, *reason, now);
  held_.push_back(request.id);
  if (options_.level == SyncLevel::kFull)
    Emit(Arrived{request.id, now, request.prompt_tokens, request.max_tokens, request.priority, {}}, now);
  engine_->Submit(request, now);
  engine_->RunUntil(now, *this);
}

void InstanceCore::OnCancel(RequestId request, Instant now, InstanceEffects& effects) {
  effects_ = &effects;
  const auto at = std::find(held_.begin(), held_.end(), request);
  if (at == held_.end()) return;  // it ended before the cancellation came
  held_.erase(at);
  engine_->Abort(request, now);
  if (options_.level == SyncLevel::kFull) Emit(Aborted{request, now}, now);
}

void InstanceCore::OnResyncRequest(Instant now, InstanceEffects& effects) {
  effects_ = &effects;
  if (!up(now) || options_.level == SyncLevel::kNone) return;
  RunUntil(now, effects);
  Snapshot s = engine_->TakeSnapshot(options_.exact_snapshots);
  s.last_seq = next_seq_ == 0 ? 0 : next_seq_ - 1;
  s.as_of = now;
  Emit(std::move(s), now);
}

void InstanceCore::OnHeartbeatReply(Epoch epoch, Instant sent, Instant now) {
  if (epoch == epoch_ && up(now)) echo_ = Heartbeat::Echo{sent, now};
}

void InstanceCore::OnRestart(Instant now, Duration downtime, InstanceEffects& effects) {
  effects_ = &effects;
  RunUntil(now, effects);
  const std::vector<RequestId> lost = std::move(held_);
  held_.clear();
  before_restart_ = counters();
  epoch_ = Epoch(epoch_.value() + 1);
  const Status started = StartEngine(now + downtime);
  FT_CHECK(started.ok());  // the same options made an engine before
  StartEpoch(now + downtime);
  for (RequestId r : lost) effects.Failed(options_.instance, r, OutcomeReason::kEngineRestarted, now);
}

Instant InstanceCore::NextEvent() const { return std::min({engine_->NextEvent(), next_heartbeat_, next_poll_}); }

void InstanceCore::RunUntil(Instant until, InstanceEffects& effects) {
  effects_ = &effects;
  for (;;) {
    const Instant timer = std::min(next_heartbeat_, next_poll_);
    if (timer > until || timer == Instant::Max()) break;
    engine_->RunUntil(timer, *this);
    RunTimers(timer);
  }
  engine_->RunUntil(until, *this);
}

void InstanceCore::RunTimers(Instant at) {
  if (next_heartbeat_ <= at) {
    next_heartbeat_ = at + options_.heartbeat;
    const EngineCore& core = engine_->core();
    Heartbeat h{at, next_seq_ == 0 ? 0 : next_seq_ - 1, core.running() + core.waiting(), core.batches_in_flight() > 0,
                at, std::exchange(echo_, std::nullopt)};
    Emit(h, at);
  }
  if (next_poll_ <= at) {
    next_poll_ = at + options_.poll_interval;
    const EngineCore& core = engine_->core();
    Emit(Aggregate{at, core.waiting(), core.running(), core.free_blocks(), core.usable_blocks()}, at);
  }
}

void InstanceCore::OnStep(const BatchTrace& trace) {
  if (options_.level == SyncLevel::kFull) return Emit(trace, trace.end());
  scratch_ = trace;
  scratch_.chunks.clear();
  scratch_.admitted.clear();
  scratch_.finished.clear();
  scratch_.preempted.clear();
  scratch_.cancelled.clear();
  scratch_.skipped.clear();
  Emit(scratch_, trace.end());
}

void InstanceCore::OnFirstToken(RequestId request, Instant at) { effects_->FirstToken(options_.instance, request, at); }

void InstanceCore::OnFinished(RequestId request, const BatchTrace::Finish& finish, Instant at) {
  const auto held = std::find(held_.begin(), held_.end(), request);
  if (held != held_.end()) held_.erase(held);
  effects_->Finished(options_.instance, request, TokenCount(finish.output_tokens), at);
}

void InstanceCore::OnRejected(RequestId request, OutcomeReason reason, Instant at) {
  const auto held = std::find(held_.begin(), held_.end(), request);
  if (held != held_.end()) held_.erase(held);
  effects_->Failed(options_.instance, request, reason, at);
}

}  // namespace foretoken
