#include "runtime/sync/shadow_engine.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

using Found = std::optional<ShadowDisagreement>;

// Batches without a token that are composed in a row before the reported one: after each of them something was preempted.
constexpr int kEmptyBatchesMax = 2;

// vLLM composes a batch while at most one is in flight (core.py: batch_queue_size = 2).
constexpr size_t kInFlightMax = 2;

Found Differ(const ReportedStep& step, ShadowRule rule, int64_t shadow, int64_t engine, std::optional<RequestId> request = {}) {
  if (shadow == engine) return std::nullopt;
  return ShadowDisagreement{step.step, rule, request, shadow, engine};
}

bool Contains(const std::vector<RequestId>& ids, RequestId id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

// Named is a request that only one side has, the engine's first; else (the order differs) the engine's first out of place.
Found DifferInIds(const ReportedStep& step, ShadowRule rule, const std::vector<RequestId>& shadow,
                  const std::vector<RequestId>& engine) {
  if (shadow == engine) return std::nullopt;
  for (const RequestId id : engine)
    if (!Contains(shadow, id)) return ShadowDisagreement{step.step, rule, id, 0, 1};
  for (const RequestId id : shadow)
    if (!Contains(engine, id)) return ShadowDisagreement{step.step, rule, id, 1, 0};
  const auto [s, e] = std::mismatch(shadow.begin(), shadow.end(), engine.begin(), engine.end());
  return ShadowDisagreement{step.step, rule, e != engine.end() ? *e : *s, 1, 1};
}

template <class Range, class Project>
std::vector<RequestId> Ids(const Range& range, Project request_of) {
  std::vector<RequestId> ids;
  for (const auto& x : range) ids.push_back(request_of(x));
  return ids;
}

std::vector<BatchTrace::Admission> Admissions(const std::vector<BatchTrace::Admission>& all, bool resumed) {
  std::vector<BatchTrace::Admission> some;
  std::copy_if(all.begin(), all.end(), std::back_inserter(some), [resumed](const auto& a) { return a.resumed == resumed; });
  return some;
}

Found CompareAdmissions(const ReportedStep& step, const Batch& batch) {
  const auto request = [](const BatchTrace::Admission& a) { return a.request; };
  for (const bool resumed : {false, true}) {
    const auto ours = Admissions(batch.admitted, resumed);
    const auto theirs = Admissions(step.admitted, resumed);
    if (const Found f = DifferInIds(step, ShadowRule::kAdmission, Ids(ours, request), Ids(theirs, request))) return f;
    for (size_t i = 0; i < ours.size(); ++i)
      if (const Found f = Differ(step, ShadowRule::kPrefixCache, ours[i].cached, theirs[i].cached, ours[i].request)) return f;
  }
  return std::nullopt;
}

Found CompareItems(const ReportedStep& step, const Batch& batch) {
  const auto ours = Ids(batch.items, [](const ScheduledItem& i) { return i.request; });
  const auto theirs = Ids(step.items, [](const ReportedStep::Item& i) { return i.request; });
  if (const Found f = DifferInIds(step, ShadowRule::kComposition, ours, theirs)) return f;
  for (size_t i = 0; i < ours.size(); ++i) {
    const ScheduledItem& s = batch.items[i];
    const ReportedStep::Item& e = step.items[i];
    if (const Found f = Differ(step, ShadowRule::kChunk, s.tokens, e.tokens, s.request)) return f;
    if (const Found f = Differ(step, ShadowRule::kProgress, s.computed, e.computed, s.request)) return f;
    if (const Found f = Differ(step, ShadowRule::kSampling, s.samples, e.samples, s.request)) return f;
  }
  return std::nullopt;
}

// What a stream lists of a batch: chunks are named, whoever gets the one token that is expected of it is not.
Found CompareImplied(const ReportedStep& step, const Batch& batch) {
  size_t named = 0;
  int32_t decodes = 0;
  int64_t context = 0;
  for (const ScheduledItem& s : batch.items) {
    const bool is_named = named < step.items.size() && step.items[named].request == s.request;
    if (is_named) {
      const ReportedStep::Item& e = step.items[named++];
      if (const Found f = Differ(step, ShadowRule::kChunk, s.tokens, e.tokens, s.request)) return f;
      if (const Found f = Differ(step, ShadowRule::kProgress, s.computed, e.computed, s.request)) return f;
      if (const Found f = Differ(step, ShadowRule::kSampling, s.samples, e.samples, s.request)) return f;
      continue;
    }
    if (s.tokens != 1 || !s.samples) return ShadowDisagreement{step.step, ShadowRule::kComposition, s.request, 1, 0};
    ++decodes;
    context += s.computed + 1;
  }
  if (named < step.items.size())
    return ShadowDisagreement{step.step, ShadowRule::kComposition, step.items[named].request, 0, 1};
  for (const RequestId r : step.implied->skipped)
    for (const ScheduledItem& s : batch.items)
      if (s.request == r) return ShadowDisagreement{step.step, ShadowRule::kSkipped, r, 0, 1};
  if (const Found f = Differ(step, ShadowRule::kDecodes, decodes, step.implied->decode_seqs)) return f;
  return Differ(step, ShadowRule::kDecodeContext, context, step.implied->decode_kv_tokens);
}

Found CompareSchedule(const ReportedStep& step, const Batch& batch, const std::vector<RequestId>& preempted) {
  if (const Found f = DifferInIds(step, ShadowRule::kPreemption, preempted, step.preempted)) return f;
  if (const Found f = CompareAdmissions(step, batch)) return f;
  if (const Found f = step.implied ? CompareImplied(step, batch) : CompareItems(step, batch)) return f;
  if (!step.after_schedule) return std::nullopt;
  const ReportedStep::Scheduled& after = *step.after_schedule;
  if (const Found f = Differ(step, ShadowRule::kFreeBlocks, batch.free_blocks_after, after.free_blocks)) return f;
  if (const Found f = Differ(step, ShadowRule::kRunning, batch.running_after, after.running)) return f;
  return Differ(step, ShadowRule::kWaiting, batch.waiting_after, after.waiting);
}

Found CompareUpdate(const ReportedStep& step, const BatchResult& result) {
  const auto ours = Ids(result.finished, [](const BatchTrace::Finish& f) { return f.request; });
  if (const Found f = DifferInIds(step, ShadowRule::kFinish, ours, step.finished)) return f;
  if (const Found f = Differ(step, ShadowRule::kFreeBlocksAfter, result.free_blocks_after, step.free_blocks_after)) return f;
  if (const Found f = Differ(step, ShadowRule::kRunningAfter, result.running_after, step.running_after)) return f;
  if (!step.implied) return std::nullopt;
  return Differ(step, ShadowRule::kWaitingAfter, result.waiting_after, step.implied->waiting_after);
}

}  // namespace

ReportedStep ReportOf(const BatchTrace& trace) {
  ReportedStep step;
  step.step = trace.step;
  step.scheduled = trace.scheduled;
  step.result = step.updated = trace.end();
  step.items.reserve(trace.chunks.size());
  for (const BatchTrace::Chunk& c : trace.chunks) step.items.push_back({c.request, c.tokens, c.computed, c.samples});
  step.admitted = trace.admitted;
  step.preempted = trace.preempted;
  for (const BatchTrace::Finish& f : trace.finished) {
    step.finished.push_back(f.request);
    if (f.reason != FinishReason::kLength) step.stopped.push_back(f);
  }
  step.running_after = trace.running;
  step.free_blocks_after = trace.free_blocks;
  step.implied = ReportedStep::Implied{trace.decode_seqs, trace.decode_kv_tokens, trace.skipped, trace.waiting};
  return step;
}

const char* NameOf(ShadowRule rule) {
  switch (rule) {
    case ShadowRule::kEnqueue: return "enqueue";
    case ShadowRule::kAbort: return "abort";
    case ShadowRule::kPreemption: return "preemption";
    case ShadowRule::kAdmission: return "admission";
    case ShadowRule::kPrefixCache: return "cached tokens";
    case ShadowRule::kComposition: return "batch composition";
    case ShadowRule::kChunk: return "chunk size";
    case ShadowRule::kProgress: return "computed tokens";
    case ShadowRule::kSampling: return "sampling";
    case ShadowRule::kFreeBlocks: return "free blocks after schedule";
    case ShadowRule::kRunning: return "running after schedule";
    case ShadowRule::kWaiting: return "waiting after schedule";
    case ShadowRule::kSkipped: return "skipped";
    case ShadowRule::kDecodes: return "decodes";
    case ShadowRule::kDecodeContext: return "decode context";
    case ShadowRule::kFinish: return "finish";
    case ShadowRule::kFreeBlocksAfter: return "free blocks after update";
    case ShadowRule::kRunningAfter: return "running after update";
    case ShadowRule::kWaitingAfter: return "waiting after update";
  }
  return "unknown";
}

void ShadowEngine::OnEnqueue(const EngineRequest& request, Instant at) {
  if (in_order_only()) return Enqueue(request);
  Insert({at, Pending::Kind::kEnqueue, request, {}, nullptr});
}

void ShadowEngine::OnAbort(RequestId request, Instant at) { Insert({at, Pending::Kind::kAbort, {}, request, nullptr}); }

void ShadowEngine::OnStep(std::shared_ptr<const ReportedStep> step) {
  if (in_order_only()) {
    ApplyUntil(step->scheduled);
    Decide(*step);
    ApplyUntil(Instant::Max());  // aborts while the step ran: the engine drains them before its update
    Update(*step);
    return;
  }
  // Aborts drained behind the result but before the update that it is for are reported with times inside that update.
  std::deque<Pending> pending;
  pending.swap(pending_);
  for (Pending& p : pending) {
    if (p.kind == Pending::Kind::kAbort && step->result <= p.at && p.at < step->updated) p.at = step->result;
    Insert(std::move(p));
  }
  ApplyUntil(step->scheduled);
  while (in_flight_.size() >= kInFlightMax && !pending_.empty()) ApplyUntil(pending_.front().at);  // times that cannot be
  Decide(*step);
  const Instant result = step->result;
  Insert({result, Pending::Kind::kUpdate, {}, {}, std::move(step)});
}

void ShadowEngine::Finish() { ApplyUntil(Instant::Max()); }

std::unique_ptr<ShadowEngine> ShadowEngine::Clone() const {
  auto copy = std::make_unique<ShadowEngine>(core_->Clone());
  copy->pending_ = pending_;
  copy->in_flight_ = in_flight_;
  copy->counters_ = counters_;
  copy->next_step_ = next_step_;
  copy->disagreements_ = disagreements_;
  copy->first_ = first_;
  copy->last_ = last_;
  return copy;
}

void ShadowEngine::Resynchronise(const ShadowEngine& exact) {
  core_ = exact.core_->Clone();
  pending_ = exact.pending_;
  in_flight_ = exact.in_flight_;
  counters_ = exact.counters_;
  next_step_ = exact.next_step_;
}

void ShadowEngine::Continue(uint64_t next_step) {
  pending_.clear();
  in_flight_.clear();
  next_step_ = next_step;
  for (int32_t i = 0; i < core_->batches_in_flight(); ++i) in_flight_.push_back({next_step++, false});
}

std::unique_ptr<EngineCore> ShadowEngine::StateAt(const Snapshot& snapshot) const {
  const std::unique_ptr<ShadowEngine> copy = Clone();
  if (snapshot.exact)
    for (const Snapshot::InFlight& f : snapshot.exact->in_flight) {
      if (f.step < copy->next_step_) continue;  // it was decided when it was restored
      copy->ApplyUntil(f.start);
      for (int empty = 0; copy->core_->Schedule().items.empty() && empty < kEmptyBatchesMax; ++empty)
        copy->in_flight_.push_back({});
      copy->in_flight_.push_back({f.step, false});
    }
  copy->ApplyUntil(Instant::Max());
  return std::move(copy->core_);
}

void ShadowEngine::Insert(Pending pending) {
  const auto before = [](const Pending& a, const Pending& b) { return std::pair(a.at, a.kind) < std::pair(b.at, b.kind); };
  pending_.insert(std::upper_bound(pending_.begin(), pending_.end(), pending, before), std::move(pending));
}

void ShadowEngine::ApplyUntil(Instant until) {
  while (!pending_.empty() && pending_.front().at <= until) {
    const Pending next = std::move(pending_.front());
    pending_.pop_front();
    Apply(next);
  }
}

void ShadowEngine::Apply(const Pending& pending) {
  switch (pending.kind) {
    case Pending::Kind::kEnqueue: return Enqueue(pending.enqueue);
    case Pending::Kind::kUpdate: return Update(*pending.update);
    case Pending::Kind::kAbort:
      ++counters_.aborted;
      if (!core_->Abort(pending.abort)) Count({next_step_, ShadowRule::kAbort, pending.abort, 0, 1});
      return;
  }
}

void ShadowEngine::Enqueue(const EngineRequest& request) {
  if (!core_->Add(request).ok()) Count({next_step_, ShadowRule::kEnqueue, request.id, 0, 1});
}

void ShadowEngine::Decide(const ReportedStep& step) {
  for (const InFlight& f : in_flight_)
    if (f.step == step.step) return;  // composed before the snapshot that this continues from
  next_step_ = step.step + 1;
  std::vector<RequestId> preempted;  // those of unreported batches go with the next reported step
  const Batch* batch = &core_->Schedule();
  preempted.insert(preempted.end(), batch->preempted.begin(), batch->preempted.end());
  for (int empty = 0; batch->items.empty() && !batch->preempted.empty() && empty < kEmptyBatchesMax; ++empty) {
    in_flight_.push_back({});
    batch = &core_->Schedule();
    preempted.insert(preempted.end(), batch->preempted.begin(), batch->preempted.end());
  }
  ++counters_.steps;
  counters_.items += batch->items.size();
  counters_.preempted += preempted.size();
  for (const BatchTrace::Admission& a : batch->admitted)
    if (!a.resumed) counters_.cached_tokens += static_cast<uint64_t>(a.cached);
  const Found found = CompareSchedule(step, *batch, preempted);
  if (found) Count(*found);
  in_flight_.push_back({step.step, found.has_value()});
}

void ShadowEngine::Update(const ReportedStep& step) {
  while (!in_flight_.empty() && in_flight_.front().step != step.step) {
    in_flight_.pop_front();
    (void)core_->Update();
  }
  FT_CHECK(!in_flight_.empty());  // Decide put it there
  const bool disagreed = in_flight_.front().disagreed;
  in_flight_.pop_front();
  for (const BatchTrace::Finish& f : step.stopped) (void)core_->SetLength(f.request, f.output_tokens, f.output_tokens);
  const BatchResult& result = core_->Update();
  counters_.finished += result.finished.size();
  if (disagreed) return;
  if (const Found found = CompareUpdate(step, result)) Count(*found);
}

void ShadowEngine::Count(const ShadowDisagreement& found) {
  ++disagreements_;
  if (!first_) first_ = found;
  last_ = found;
}

}  // namespace foretoken
