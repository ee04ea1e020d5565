// VllmCore's steady decode: the same decisions as vllm_schedule.cc without touching requests that do nothing but decode.
//
// A steady request gets one token in every steady batch. So, S and U being the numbers of steady batches scheduled and updated,
//   computed = (at joining) + S - joined,   generated = (at joining) + U - joined,
// and only three things happen to it, at batches known in advance: it needs a block (every block_size batches), it leaves
// (asynchronous: its last token is in flight, it is passed over), it finishes. Each waits in a calendar; the last two are noted
// only once the next crossing is not before them, which keeps the calendars a block long.
// Blocks are taken in running order, merged with the work of the requests that are not steady ("loose").
#include <algorithm>
#include <limits>

#include "runtime/base/check.h"
#include "runtime/engine/vllm_core.h"

namespace foretoken {

namespace {
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
}  // namespace

int64_t VllmCore::SteadyUpdated(const ScheduledRequest& r) const {
  return std::clamp(steady_updated_, r.joined, SteadyUntil(r));
}

// The first batch not yet scheduled at which the request's next token begins a block.
int64_t VllmCore::NextCrossing(const ScheduledRequest& r) const {
  const int64_t bs = config_.block_size;
  const int64_t over = SteadyComputed(r) % bs;
  return steady_scheduled_ + (over == 0 ? 0 : bs - over);
}

void VllmCore::NoteEvents(Slot slot, int64_t from, int64_t until) {
  const ScheduledRequest& r = slab_[slot];
  if (from < r.leaves_at && r.leaves_at <= until) leavings_.Add(r.leaves_at, {r.rank, slot});
  if (from <= r.finishes_at && r.finishes_at < until) endings_.Add(r.finishes_at, {r.rank, slot});
}

void VllmCore::JoinSteady(Slot slot) {
  ScheduledRequest& r = slab_[slot];
  const int64_t s = steady_scheduled_;
  r.joined = s;
  r.left = false;
  r.finishes_at = s + r.ends_at - (r.generated + r.placeholders) - 1;
  r.leaves_at = kNever;
  if (config_.async_scheduling) r.leaves_at = s + std::min(r.prompt + r.max_tokens - 1, config_.max_model_len - 1) - r.computed;
  ++steady_members_;
  ++steady_decodes_;
  steady_kv_ += r.computed;
  steady_findable_ += r.findable() ? 1 : 0;
  const int64_t crossing = NextCrossing(r);
  crossings_.Add(crossing, {r.rank, slot});
  NoteEvents(slot, s, crossing);
}

void VllmCore::LeaveSteady(Slot slot) {
  ScheduledRequest& r = slab_[slot];
  crossings_.Remove(NextCrossing(r), slot);
  --steady_decodes_;
  steady_kv_ -= SteadyComputed(r);
  steady_findable_ -= r.findable() ? 1 : 0;
  r.leaves_at = steady_scheduled_;
  r.left = true;
}

void VllmCore::MaterialiseSteady(ScheduledRequest& r) {
  const int64_t until = SteadyUntil(r), updated = SteadyUpdated(r);
  const bool stepped = until > r.joined;
  r.computed += until - r.joined;
  r.generated += updated - r.joined;
  r.in_flight += static_cast<int32_t>(until - updated);
  if (config_.async_scheduling) r.placeholders += static_cast<int32_t>(until - updated);
  r.joined = -1;
  r.left = false;
  // What schedule() and update() would have registered by now: synchronous, all that is computed; asynchronous, what was known
  // when it was last scheduled, or all but the newest token since.
  if (stepped) CacheUpTo(r, config_.async_scheduling ? std::max(r.computed - 1, r.known_tokens() - 1) : r.computed);
}

void VllmCore::DropSteady(Slot slot) {
  ScheduledRequest& r = slab_[slot];
  const int64_t until = SteadyUntil(r);
  for (int32_t i = 0; i < in_flight_; ++i) {
    BatchInFlight& b = InFlightAt(i);
    if (b.steady && r.joined <= b.steady_index && b.steady_index < until) --b.steady_alive;
  }
  leavings_.Remove(r.leaves_at, slot);
  endings_.Remove(r.finishes_at, slot);
  if (!r.left) LeaveSteady(slot);
  MaterialiseSteady(r);
  --steady_members_;
}

// Puts the steady decodes among the items of a batch in flight, in running order.
void VllmCore::ListSteadyItems(BatchInFlight& b) {
  merged_.clear();
  size_t next = 0;
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next) {
    const ScheduledRequest& r = slab_[s];
    if (!r.steady() || b.steady_index < r.joined || b.steady_index >= SteadyUntil(r)) continue;
    while (next < b.items.size() && b.items[next].rank < r.rank) merged_.push_back(b.items[next++]);
    merged_.push_back({s, r.generation, 1, r.computed + b.steady_index - r.joined, 0, r.rank, false, false, true});
  }
  merged_.insert(merged_.end(), b.items.begin() + static_cast<std::ptrdiff_t>(next), b.items.end());
  b.items.swap(merged_);
  b.steady = false;
}

// Back to requests one by one.
void VllmCore::Settle() {
  for (int32_t i = 0; i < in_flight_; ++i)
    if (InFlightAt(i).steady) ListSteadyItems(InFlightAt(i));
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next)
    if (slab_[s].steady()) MaterialiseSteady(slab_[s]);
  steady_updated_ = steady_scheduled_;
  steady_members_ = steady_decodes_ = steady_kv_ = steady_findable_ = 0;
  crossings_.Clear();
  leavings_.Clear();
  endings_.Clear();
  loose_stale_ = true;
}

// Takes in every loose request that from now on only decodes.
void VllmCore::RefreshLoose() {
  if (loose_stale_) {
    loose_.clear();
    for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next)
      if (!slab_[s].steady()) loose_.push_back(s);
    loose_stale_ = false;
  }
  const int32_t in_flight = config_.async_scheduling ? 1 : 0;  // what its own loop keeps when it schedules
  if (in_flight_ - 1 != in_flight) return;
  size_t kept = 0;
  for (const Slot s : loose_) {
    const ScheduledRequest& r = slab_[s];
    const bool decodes = !r.chunk && r.stale == 0 && r.placeholders == in_flight &&
                         r.known_tokens() + r.placeholders - r.computed == 1 && TokensWanted(r, 0, 1) == 1;
    if (decodes) {
      JoinSteady(s);
    } else {
      loose_[kept++] = s;
    }
  }
  loose_.resize(kept);
}

void VllmCore::TakeLeavers() {
  SteadyCalendar::Due& due = leavings_.At(steady_scheduled_);
  for (const SteadyCalendar::Entry& e : due) {
    LeaveSteady(e.slot);
    passed_over_.push_back(e);
  }
  due.clear();
}

// What each loose request computes now, into work_. False: the budget must be dealt out request by request.
bool VllmCore::PlanLoose(int64_t threshold, int64_t budget, int64_t& blocks) {
  work_.clear();
  int64_t demand = steady_decodes_;
  for (const Slot s : loose_) {
    const ScheduledRequest& r = slab_[s];
    const int64_t n = TokensWanted(r, threshold, kNever);
    if (n > 0) {
      work_.push_back({r.rank, s, n});
      demand += n;
    } else if (!r.chunk) {
      passed_over_.push_back({r.rank, s});
    }
  }
  if (demand > budget) {
    // The order matters now. Decodes first is its order if no loose request with work stands before one of them.
    Slot last = running_.tail;
    while (last != kNoSlot && !(slab_[last].steady() && !slab_[last].left)) last = slab_[last].prev;
    if (steady_decodes_ > budget || (last != kNoSlot && work_.front().rank < slab_[last].rank)) return false;
    int64_t rest = budget - steady_decodes_;
    for (Work& w : work_) {
      w.tokens = std::min(w.tokens, rest);
      rest -= w.tokens;
      if (w.tokens == 0 && !slab_[w.slot].chunk) passed_over_.push_back({w.rank, w.slot});
    }
    std::erase_if(work_, [](const Work& w) { return w.tokens == 0; });
  }
  for (const Work& w : work_) {
    const ScheduledRequest& r = slab_[w.slot];
    blocks += std::max<int64_t>(BlocksOf(r.computed + w.tokens) - static_cast<int64_t>(r.blocks.size()), 0);
  }
  return true;
}

void VllmCore::AllocateSteady(BatchInFlight& b) {
  const int64_t now = steady_scheduled_;
  SteadyCalendar::Due& due = crossings_.At(now);
  if (work_.empty() && steady_findable_ == 0) {
    for (const SteadyCalendar::Entry& e : due) slab_[e.slot].blocks.push_back(pool_.AllocateOne());
  } else {
    for (const SteadyCalendar::Entry& e : due) work_.push_back({e.rank, e.slot, 0});
    // Synchronous: a block is registered by the batch that fills it, one before the next crossing.
    if (!config_.async_scheduling && steady_findable_ > 0 && config_.block_size > 1)
      for (const SteadyCalendar::Entry& e : crossings_.At(now + 1)) work_.push_back({e.rank, e.slot, -1});
    std::sort(work_.begin(), work_.end(), [](const Work& a, const Work& c) { return a.rank < c.rank; });
    for (const Work& w : work_) {
      ScheduledRequest& r = slab_[w.slot];
      if (w.tokens > 0) {
        const int64_t held = static_cast<int64_t>(r.blocks.size());
        FT_CHECK(Allocate(r, w.tokens, false));
        b.items.push_back(
            {w.slot, r.generation, static_cast<int32_t>(w.tokens), r.computed, held, r.rank, false, false, false});
        touched_prefill_ |= r.chunk;
        continue;
      }
      if (w.tokens == 0) r.blocks.push_back(pool_.AllocateOne());
      if (r.findable()) CacheUpTo(r, SteadyComputed(r) + (config_.async_scheduling ? 0 : 1));
    }
  }
  const int64_t next = now + config_.block_size;
  for (const SteadyCalendar::Entry& e : due) NoteEvents(e.slot, now, next);
  crossings_.At(next).swap(due);
}

bool VllmCore::ScheduleSteady(BatchInFlight& b, int64_t threshold, int64_t& budget) {
  passed_over_.clear();
  if (config_.prefill_schedule_interval > 1) return false;
  if (loose_stale_ || !loose_.empty()) RefreshLoose();
  if (steady_decodes_ > 0 && in_flight_ - 1 != (config_.async_scheduling ? 1 : 0)) return false;
  TakeLeavers();
  int64_t blocks = static_cast<int64_t>(crossings_.At(steady_scheduled_).size());
  if (steady_decodes_ > budget) return false;
  work_.clear();
  if (!loose_.empty() && !PlanLoose(threshold, budget, blocks)) return false;
  if (blocks > pool_.free()) return false;
  AllocateSteady(b);
  budget -= steady_decodes_;
  for (const Item& i : b.items) budget -= i.tokens;
  if (steady_decodes_ == 0) return true;
  b.steady = true;
  b.steady_index = steady_scheduled_++;
  b.steady_alive = steady_decodes_;
  steady_kv_ += steady_decodes_;
  return true;
}

// Running requests past their prefill that the batch passes over.
void VllmCore::ListSkipped(BatchInFlight& b) {
  size_t next = 0;
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next) {
    if (next < b.items.size() && b.items[next].slot == s) {
      ++next;
    } else if (!slab_[s].chunk) {
      passed_over_.push_back({slab_[s].rank, s});
    }
  }
}

void VllmCore::FillSummary(BatchInFlight& b) {
  BatchSummary& s = b.summary;
  s.shape = {};
  s.prefill_seqs = 0;
  s.chunks.clear();
  if (b.steady) {
    s.shape.decode_seqs = steady_decodes_;
    s.shape.decode_kv_tokens = steady_kv_;
  }
  int64_t context = 0;
  for (const Item& i : b.items) {
    if (i.prefill) {
      s.shape.prefill_tokens += i.tokens;
      ++s.prefill_seqs;
      context += i.tokens * i.computed;
    } else {
      ++s.shape.decode_seqs;
      s.shape.decode_kv_tokens += i.computed + i.tokens;
    }
    if (i.prefill || i.admission) s.chunks.push_back({slab_[i.slot].id, i.tokens, static_cast<int32_t>(i.computed), i.samples});
  }
  if (s.shape.prefill_tokens > 0) s.shape.prefill_ctx = (context + s.shape.prefill_tokens / 2) / s.shape.prefill_tokens;
  s.admitted.swap(b.batch.admitted);
  s.preempted.swap(b.batch.preempted);
  s.evicted = b.batch.evicted;
  s.skipped.clear();
  if (passed_over_.size() > 1)
    std::sort(passed_over_.begin(), passed_over_.end(),
              [](const SteadyCalendar::Entry& x, const SteadyCalendar::Entry& y) { return x.rank < y.rank; });
  for (const SteadyCalendar::Entry& e : passed_over_) s.skipped.push_back(slab_[e.slot].id);
}

const BatchSummary& VllmCore::ScheduleSummary() {
  BatchInFlight& b = OpenBatch();
  const int64_t threshold = PrefillThreshold();
  const bool defer = DeferPrefills();
  int64_t budget = config_.max_num_batched_tokens;
  const bool steady = ScheduleSteady(b, threshold, budget);
  if (!steady) {
    if (steady_members_ > 0) Settle();
    loose_stale_ = true;
    ScheduleRunning(b, threshold, defer, budget);
  }
  if (b.batch.preempted.empty()) AdmitWaiting(b, threshold, defer, budget);
  if (!steady) {
    passed_over_.clear();
    ListSkipped(b);
  }
  FinishSchedule(b);
  FillSummary(b);
  return b.summary;
}

const BatchResult& VllmCore::UpdateSummary() {
  OpenResult();
  list_sampled_ = false;
  BatchInFlight& b = InFlightAt(0);
  if (b.steady) {
    steady_updated_ = b.steady_index + 1;
    result_.tokens = b.steady_alive;
    ending_.swap(endings_.At(b.steady_index));
  }
  size_t next = 0;
  auto finish_steady = [&](Slot slot) {
    const ScheduledRequest& r = slab_[slot];
    result_.finished.push_back(
        {r.id, r.ends_by_eos ? FinishReason::kStop : FinishReason::kLength, static_cast<int32_t>(r.ends_at)});
    End(slot);
  };
  for (const Item& item : b.items) {
    while (next < ending_.size() && ending_[next].rank < item.rank) finish_steady(ending_[next++].slot);
    ApplyItem(item);
  }
  while (next < ending_.size()) finish_steady(ending_[next++].slot);
  ending_.clear();
  CloseBatch();
  return result_;
}

}  // namespace foretoken
