// VllmCore's schedule() and update_from_output() (vllm-scheduler.md 1.4, 1.6-1.8 and "Newer versions"), request by request.
#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/engine/vllm_core.h"

namespace foretoken {

int64_t VllmCore::PrefillThreshold() const {
  const int64_t eligible = running_.size + waiting();
  int64_t threshold = config_.long_prefill_token_threshold;
  if (config_.lone_long_prefill_full && eligible <= 1) threshold = 0;
  if (threshold > 0 && config_.long_prefill_adaptive)
    threshold = std::max(threshold, config_.max_num_batched_tokens / std::max<int64_t>(eligible, 1));
  return threshold;
}

bool VllmCore::DeferPrefills() const {
  const int64_t interval = config_.prefill_schedule_interval;
  if (interval <= 1 || capacity_bound_ || executed_ + 1 - last_prefill_ >= interval) return false;
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next)
    if (!slab_[s].chunk) return true;
  return false;
}

VllmCore::BatchInFlight& VllmCore::OpenBatch() {
  FT_CHECK(in_flight_ < kMaxInFlight);
  BatchInFlight& b = InFlightAt(in_flight_++);
  b.items.clear();
  b.batch.index = next_index_++;
  b.batch.items.clear();
  b.batch.admitted.clear();
  b.batch.preempted.clear();
  b.batch.new_blocks.clear();
  b.steady = false;
  b.steady_alive = 0;
  pool_.TakeEvicted();
  touched_prefill_ = false;
  return b;
}

// How many tokens a running request would compute now; <= 0: none.
int64_t VllmCore::TokensWanted(const ScheduledRequest& r, int64_t threshold, int64_t budget) const {
  // Asynchronous: its last possible token is in flight already.
  if (r.placeholders > 0 && r.computed + 2 - r.placeholders >= r.prompt + r.max_tokens) return 0;
  int64_t n = r.known_tokens() + r.placeholders - r.computed;
  if (threshold > 0) n = std::min(n, threshold);
  return std::min({n, budget, config_.max_model_len - r.computed - 1});
}

// fcfs: the last of the running list. priority: the last by (priority, arrival); of equals the first in the list.
Slot VllmCore::PickVictim() const {
  if (config_.policy == QueuePolicy::kFcfs) return running_.tail;
  Slot victim = running_.head;
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next) {
    const ScheduledRequest &a = slab_[victim], &b = slab_[s];
    if (b.priority > a.priority || (b.priority == a.priority && b.arrival_key > a.arrival_key)) victim = s;
  }
  return victim;
}

void VllmCore::Preempt(Slot victim, BatchInFlight& b) {
  ScheduledRequest& r = slab_[victim];
  slab_.Remove(running_, victim);
  MakeFindable(r);
  FreeBlocks(r);
  r.status = RequestStatus::kPreempted;
  r.computed = 0;
  r.stale = r.in_flight;
  r.placeholders = 0;
  PushWaiting(waiting_, victim, true);
  b.batch.preempted.push_back(r.id);
}

void VllmCore::ScheduleRunning(BatchInFlight& b, int64_t threshold, bool defer, int64_t& budget) {
  Slot at = running_.head;
  while (at != kNoSlot && budget > 0) {
    ScheduledRequest& r = slab_[at];
    const int64_t n = defer && r.chunk ? 0 : TokensWanted(r, threshold, budget);
    if (n <= 0) {
      at = r.next;
      continue;
    }
    const Slot after = r.next;
    const int64_t held = static_cast<int64_t>(r.blocks.size());
    bool placed = false;
    Slot resume_at = after;  // where to go on if r goes; a victim behind it may be that one
    while (!(placed = Allocate(r, n, false))) {
      const Slot victim = PickVictim();
      if (victim == resume_at) resume_at = slab_[victim].next;
      // A victim that had its place in this batch gives its tokens back (only priority can pick one).
      const auto item = std::find_if(b.items.begin(), b.items.end(), [&](const Item& i) { return i.slot == victim; });
      if (item != b.items.end()) {
        budget += item->tokens;
        b.items.erase(item);
      }
      Preempt(victim, b);
      if (victim == at) break;
    }
    if (!placed) {
      if (!(config_.self_preempt_continues && config_.policy == QueuePolicy::kPriority)) break;
      at = resume_at;
      continue;
    }
    b.items.push_back({at, r.generation, static_cast<int32_t>(n), r.computed, held, r.rank, false, false, false});
    budget -= n;
    touched_prefill_ |= r.chunk;
    at = r.next;
  }
}

bool VllmCore::StillBlocked(Slot head, int64_t threshold, int64_t budget) const {
  return blocked_.slot == head && blocked_.known_tokens == slab_[head].known_tokens() && blocked_.threshold == threshold &&
         blocked_.budget == budget && pool_.free() <= blocked_.free && pool_.index_version() == blocked_.index_version;
}

// False: nothing behind the head may be admitted in this step either.
bool VllmCore::AdmitHead(BatchInFlight& b, RequestQueue& queue, int64_t threshold, bool defer, int64_t& budget) {
  const Slot slot = queue.head;
  if (StillBlocked(slot, threshold, budget)) return false;
  ScheduledRequest& r = slab_[slot];
  hits_.clear();
  if (r.computed == 0) Lookup(r);
  const int64_t cached = r.computed == 0 ? static_cast<int64_t>(hits_.size()) * config_.block_size : r.computed;
  int64_t n = r.known_tokens() - cached;
  if (defer && n > 1) return false;
  if (threshold > 0) n = std::min(n, threshold);
  if (!config_.chunked_prefill && n > budget) return false;
  n = std::min(n, budget);
  if (!Allocate(r, n, true)) {
    blocked_ = {slot, r.known_tokens(), threshold, budget, pool_.free(), pool_.index_version()};
    return false;
  }
  blocked_.slot = kNoSlot;
  slab_.Remove(queue, slot);
  slab_.InsertBefore(running_, kNoSlot, slot);
  const bool resumed = r.status == RequestStatus::kPreempted;
  r.status = RequestStatus::kRunning;
  r.computed = cached;
  r.rank = next_rank_++;
  if (!resumed) r.cached_at_admission = static_cast<int32_t>(cached);
  b.batch.admitted.push_back({r.id, static_cast<int32_t>(cached), resumed});
  b.items.push_back({slot, r.generation, static_cast<int32_t>(n), cached, 0, r.rank, true, false, false});
  budget -= n;
  touched_prefill_ |= cached < r.known_tokens() - 1;
  if (!loose_stale_) loose_.push_back(slot);
  return true;
}

void VllmCore::AdmitWaiting(BatchInFlight& b, int64_t threshold, bool defer, int64_t& budget) {
  skip_.clear();
  while (waiting() > 0 && budget > 0 && running_.size < max_active_) {
    RequestQueue& queue = NextQueue();
    const Slot slot = queue.head;
    if (slab_[slot].stale > 0) {
      slab_.Remove(queue, slot);
      skip_.push_back(slot);
      continue;
    }
    if (!AdmitHead(b, queue, threshold, defer, budget)) break;
  }
  // Skipped ones go to the front of the skipped queue in their order (fcfs), or to their place.
  for (auto s = skip_.rbegin(); s != skip_.rend(); ++s) PushWaiting(skipped_, *s, true);
  if (!defer) capacity_bound_ = !waiting_.empty();
}

void VllmCore::CommitItems(BatchInFlight& b) {
  for (Item& item : b.items) {
    ScheduledRequest& r = slab_[item.slot];
    const int64_t total = r.known_tokens() + r.placeholders;
    item.computed = r.computed;
    item.prefill = !(r.computed == total - 1 && item.tokens == 1 && r.generated + r.placeholders > 0);
    r.computed += item.tokens;
    r.in_flight += item.tokens;
    r.chunk = r.computed < total;
    item.samples = !r.chunk;
    if (item.samples && config_.async_scheduling) ++r.placeholders;
  }
}

void VllmCore::Describe(BatchInFlight& b) {
  for (const Item& i : b.items) {
    const ScheduledRequest& r = slab_[i.slot];
    b.batch.items.push_back({r.id, i.tokens, static_cast<int32_t>(i.computed), i.prefill, i.samples});
    if (record_blocks_ && i.first_new_block < static_cast<int64_t>(r.blocks.size()))
      b.batch.new_blocks.emplace_back(r.id, std::vector<uint32_t>(r.blocks.begin() + i.first_new_block, r.blocks.end()));
  }
}

void VllmCore::FinishSchedule(BatchInFlight& b) {
  if (b.steady || !b.items.empty()) ++executed_;
  if (touched_prefill_) last_prefill_ = executed_;
  CommitItems(b);
  finish_pending_ = false;
  b.batch.evicted = pool_.TakeEvicted();
}

const Batch& VllmCore::Schedule() {
  if (steady_members_ > 0) Settle();
  BatchInFlight& b = OpenBatch();
  const int64_t threshold = PrefillThreshold();
  const bool defer = DeferPrefills();
  int64_t budget = config_.max_num_batched_tokens;
  loose_stale_ = true;
  ScheduleRunning(b, threshold, defer, budget);
  if (b.batch.preempted.empty()) AdmitWaiting(b, threshold, defer, budget);
  FinishSchedule(b);
  Describe(b);
  b.batch.free_blocks_after = pool_.free();
  b.batch.running_after = running_.size;
  b.batch.waiting_after = waiting();
  return b.batch;
}

void VllmCore::ApplyItem(const Item& item) {
  ScheduledRequest& r = slab_[item.slot];
  if (r.generation != item.generation) return;  // ended or aborted meanwhile
  r.in_flight -= item.tokens;
  const bool stale = r.stale > 0;
  if (stale) r.stale -= item.tokens;
  if (!item.samples) return;
  ++r.generated;
  if (config_.async_scheduling) {
    if (!stale) --r.placeholders;
    // A steady request registers what it fills by its own events.
    if (r.status == RequestStatus::kRunning && !r.steady()) CacheUpTo(r, r.computed - r.placeholders);
  }
  ++result_.tokens;
  if (list_sampled_) result_.sampled.push_back(r.id);
  if (r.generated == 1) result_.first_tokens.push_back(r.id);
  if (r.generated < r.ends_at) return;
  result_.finished.push_back(
      {r.id, r.ends_by_eos ? FinishReason::kStop : FinishReason::kLength, static_cast<int32_t>(r.generated)});
  End(item.slot);
}

void VllmCore::OpenResult() {
  FT_CHECK(in_flight_ > 0);
  result_.sampled.clear();
  result_.first_tokens.clear();
  result_.finished.clear();
  result_.tokens = 0;
}

void VllmCore::CloseBatch() {
  const BatchInFlight& b = InFlightAt(0);
  if (b.steady) steady_updated_ = b.steady_index + 1;
  first_ = (first_ + 1) % kMaxInFlight;
  --in_flight_;
  result_.free_blocks_after = pool_.free();
  result_.running_after = running_.size;
  result_.waiting_after = waiting();
}

const BatchResult& VllmCore::Update() {
  if (steady_members_ > 0) Settle();
  OpenResult();
  list_sampled_ = true;
  for (const Item& item : InFlightAt(0).items) ApplyItem(item);
  CloseBatch();
  return result_;
}

}  // namespace foretoken
