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

Found CompareSchedule(const ReportedStep& step, const Batch& batch, const std::vector<RequestId>& preempted) {
  if (const Found f = DifferInIds(step, ShadowRule::kPreemption, preempted, step.preempted)) return f;
  if (const Found f = CompareAdmissions(step, batch)) return f;
  if (const Found f = CompareItems(step, batch)) return f;
  if (const Found f = Differ(step, ShadowRule::kFreeBlocks, batch.free_blocks_after, step.free_blocks)) return f;
  if (const Found f = Differ(step, ShadowRule::kRunning, batch.running_after, step.running)) return f;
  return Differ(step, ShadowRule::kWaiting, batch.waiting_after, step.waiting);
}

Found CompareUpdate(const ReportedStep& step, const BatchResult& result) {
  const auto ours = Ids(result.finished, [](const BatchTrace::Finish& f) { return f.request; });
  if (const Found f = DifferInIds(step, ShadowRule::kFinish, ours, step.finished)) return f;
  if (const Found f = Differ(step, ShadowRule::kFreeBlocksAfter, result.free_blocks_after, step.free_blocks_after)) return f;
  return Differ(step, ShadowRule::kRunningAfter, result.running_after, step.running_after);
}

}  // namespace

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
    case ShadowRule::kFinish: return "finish";
    case ShadowRule::kFreeBlocksAfter: return "free blocks after update";
    case ShadowRule::kRunningAfter: return "running after update";
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
  return copy;
}

void ShadowEngine::Resynchronise(const ShadowEngine& exact) {
  core_ = exact.core_->Clone();
  pending_ = exact.pending_;
  in_flight_ = exact.in_flight_;
  counters_ = exact.counters_;
  next_step_ = exact.next_step_;
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
  const BatchResult& result = core_->Update();
  counters_.finished += result.finished.size();
  if (disagreed) return;
  if (const Found found = CompareUpdate(step, result)) Count(*found);
}

void ShadowEngine::Count(const ShadowDisagreement& found) {
  ++disagreements_;
  if (!first_) first_ = found;
}

}  // namespace foretoken
