// VllmCore's state as a value, the way back, and the invariants that hold between any two calls.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "runtime/engine/vllm_core.h"

namespace foretoken {

Snapshot::Request VllmCore::Progress(const ScheduledRequest& r) const {
  const int64_t computed = r.steady() ? SteadyComputed(r) : r.computed;
  const int64_t generated = r.generated + (r.steady() ? SteadyUpdated(r) - r.joined : 0);
  return {r.id, static_cast<int32_t>(r.prompt), static_cast<int32_t>(computed), static_cast<int32_t>(generated),
          r.cached_at_admission};
}

// Waiting requests in the order in which they would be looked at.
std::vector<Slot> VllmCore::WaitingOrder() const {
  std::vector<Slot> order;
  Slot w = waiting_.head, s = skipped_.head;
  while (w != kNoSlot || s != kNoSlot) {
    const bool from_skipped =
        s != kNoSlot && (w == kNoSlot || config_.policy == QueuePolicy::kFcfs || Before(slab_[s], slab_[w]));
    Slot& next = from_skipped ? s : w;
    order.push_back(next);
    next = slab_[next].next;
  }
  return order;
}

Snapshot::RequestBlocks VllmCore::Detail(const ScheduledRequest& r, bool skipped) const {
  Snapshot::RequestBlocks d;
  d.request = r.id;
  d.priority = r.priority;
  d.max_tokens = r.max_tokens;
  d.arrival = Instant() + Duration::FromSeconds(r.arrival_key);
  d.blocks = r.blocks;
  const size_t prompt_blocks = static_cast<size_t>(r.prompt / config_.block_size);
  d.prompt_hashes.assign(r.hashes.begin(),
                         r.hashes.begin() + static_cast<std::ptrdiff_t>(std::min(prompt_blocks, r.hashes.size())));
  d.registered_blocks = static_cast<int32_t>(r.registered);
  d.placeholders = r.placeholders;
  d.in_flight_tokens = r.in_flight;
  d.stale_tokens = r.stale;
  d.preempted = r.status == RequestStatus::kPreempted;
  d.partial_prefill = r.chunk;
  d.skipped = skipped;
  return d;
}

// Of a settled core.
Snapshot::Exact VllmCore::ExactState() const {
  Snapshot::Exact e;
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next) e.requests.push_back(Detail(slab_[s], false));
  for (Slot s = skipped_.head; s != kNoSlot; s = slab_[s].next) e.requests.push_back(Detail(slab_[s], true));
  for (Slot s = waiting_.head; s != kNoSlot; s = slab_[s].next) e.requests.push_back(Detail(slab_[s], false));
  e.free_list = pool_.FreeList();
  e.hashed_blocks = pool_.HashedBlocks();
  for (int32_t i = 0; i < in_flight_; ++i) {
    const BatchInFlight& b = ring_[static_cast<size_t>((first_ + i) % kMaxInFlight)];
    Snapshot::InFlight f;
    f.step = b.batch.index;
    for (const Item& item : b.items) {
      if (slab_[item.slot].generation != item.generation) continue;  // ended meanwhile: its result will be ignored
      f.requests.push_back(slab_[item.slot].id);
      f.tokens.push_back(item.tokens);
      f.samples.push_back(item.samples ? 1 : 0);
    }
    e.in_flight.push_back(std::move(f));
  }
  e.finish_pending = finish_pending_;
  e.executed_steps = executed_;
  e.last_prefill_step = last_prefill_;
  e.capacity_bound = capacity_bound_;
  return e;
}

Snapshot VllmCore::TakeSnapshot(bool exact) const {
  Snapshot snapshot;
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next) snapshot.running.push_back(Progress(slab_[s]));
  for (const Slot s : WaitingOrder()) snapshot.waiting.push_back(Progress(slab_[s]));
  snapshot.next_step = next_index_;
  snapshot.free_blocks = pool_.free();
  snapshot.total_blocks = pool_.usable();
  if (!exact) return snapshot;
  VllmCore settled(*this);
  settled.Settle();
  for (Slot s = settled.running_.head; s != kNoSlot; s = settled.slab_[s].next) {
    settled.MakeFindable(settled.slab_[s]);
    settled.HashUpTo(settled.slab_[s], settled.slab_[s].prompt / config_.block_size);
  }
  snapshot.exact = settled.ExactState();
  return snapshot;
}

Status VllmCore::RestoreRequest(const Snapshot::RequestBlocks& d, const EngineRequest& q, const Snapshot::Request& progress,
                                bool running) {
  if (Status s = Add(q); !s.ok()) return s;
  const Slot slot = slab_.Find(q.id);
  ScheduledRequest& r = slab_[slot];
  if (progress.prompt_tokens != q.prompt_tokens)
    return Error{"snapshot: request " + std::to_string(q.id.value()) + " has " + std::to_string(progress.prompt_tokens) +
                 " prompt tokens, its description " + std::to_string(q.prompt_tokens)};
  if (running) {
    slab_.Remove(waiting_, slot);
    slab_.InsertBefore(running_, kNoSlot, slot);
    r.status = RequestStatus::kRunning;
    r.rank = next_rank_++;
  } else if (d.skipped) {
    slab_.Remove(waiting_, slot);
    slab_.InsertBefore(skipped_, kNoSlot, slot);
  }
  if (d.preempted) r.status = RequestStatus::kPreempted;
  r.blocks = d.blocks;
  r.hashes = d.prompt_hashes;
  r.computed = progress.computed_tokens;
  r.generated = progress.generated_tokens;
  r.cached_at_admission = progress.cached_tokens;
  r.registered = d.registered_blocks;
  r.has_registered = d.registered_blocks > 0;
  r.placeholders = d.placeholders;
  r.in_flight = d.in_flight_tokens;
  r.stale = d.stale_tokens;
  r.chunk = d.partial_prefill;
  r.private_from = std::numeric_limits<int64_t>::max();  // its blocks are in the snapshot's map
  return {};
}

Result<std::unique_ptr<EngineCore>> VllmCore::Restore(const EngineConfig& config, const Snapshot& snapshot,
                                                      std::span<const EngineRequest> requests) {
  if (!snapshot.exact) return Error{"snapshot: level light; an engine is restored from an exact one"};
  Result<std::unique_ptr<EngineCore>> made = Make(config);
  if (!made.ok()) return made;
  VllmCore& core = static_cast<VllmCore&>(**made);
  const Snapshot::Exact& e = *snapshot.exact;
  RequestSlab wanted;  // id -> position in `requests`
  for (size_t i = 0; i < requests.size(); ++i) {
    if (wanted.Find(requests[i].id) != kNoSlot)
      return Error{"request " + std::to_string(requests[i].id.value()) + ": described twice"};
    wanted.Acquire(requests[i].id);
  }
  RequestSlab progress;
  std::vector<const Snapshot::Request*> progresses;
  for (const auto* list : {&snapshot.running, &snapshot.waiting})
    for (const Snapshot::Request& p : *list) {
      if (progress.Find(p.request) != kNoSlot)
        return Error{"snapshot: request " + std::to_string(p.request.value()) + " is listed twice"};
      progress.Acquire(p.request);
      progresses.push_back(&p);
    }
  std::vector<int32_t> refs(static_cast<size_t>(config.num_gpu_blocks));
  for (const Snapshot::RequestBlocks& d : e.requests) {
    const Slot q = wanted.Find(d.request), p = progress.Find(d.request);
    if (q == kNoSlot || p == kNoSlot)
      return Error{"snapshot: request " + std::to_string(d.request.value()) + " has no description or no progress"};
    if (Status s = core.RestoreRequest(d, requests[q], *progresses[p], p < snapshot.running.size()); !s.ok()) return s.error();
    for (const uint32_t b : d.blocks) {
      if (b == 0 || b >= refs.size())
        return Error{"snapshot: request " + std::to_string(d.request.value()) + " holds block " + std::to_string(b) +
                     ", out of range"};
      ++refs[b];
    }
  }
  if (core.slab_.size() != static_cast<int32_t>(progresses.size()))
    return Error{"snapshot: a request has progress but no blocks entry"};
  if (Status s = core.pool_.Restore(e.free_list, e.hashed_blocks, refs); !s.ok()) return s.error();
  if (Status s = core.RestoreInFlight(e); !s.ok()) return s.error();
  core.next_index_ = snapshot.next_step;
  core.finish_pending_ = e.finish_pending;
  core.executed_ = e.executed_steps;
  core.last_prefill_ = e.last_prefill_step;
  core.capacity_bound_ = e.capacity_bound;
  if (Status s = core.CheckInvariants(); !s.ok()) return s.error();
  return made;
}

Status VllmCore::RestoreInFlight(const Snapshot::Exact& e) {
  if (e.in_flight.size() >= static_cast<size_t>(kMaxInFlight))
    return Error{"snapshot: more batches in flight than an engine keeps"};
  for (const Snapshot::InFlight& f : e.in_flight) {
    if (f.tokens.size() != f.requests.size() || f.samples.size() != f.requests.size())
      return Error{"snapshot: batch " + std::to_string(f.step) + " in flight has lists of different lengths"};
    BatchInFlight& b = OpenBatch();
    b.batch.index = f.step;
    for (size_t i = 0; i < f.requests.size(); ++i) {
      const Slot slot = slab_.Find(f.requests[i]);
      if (slot == kNoSlot) return Error{"snapshot: batch " + std::to_string(f.step) + " in flight holds an unknown request"};
      const ScheduledRequest& r = slab_[slot];
      b.items.push_back({slot, r.generation, f.tokens[i], 0, 0, r.rank, false, false, f.samples[i] != 0});
    }
  }
  return {};
}

Status VllmCore::CheckInvariants() const {
  if (Status s = pool_.CheckInvariants(); !s.ok()) return s;
  int64_t members = 0, decodes = 0, kv = 0;
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next) {
    const ScheduledRequest& r = slab_[s];
    members += r.steady() ? 1 : 0;
    if (!r.steady() || r.left) continue;
    ++decodes;
    kv += SteadyComputed(r);
  }
  if (members != steady_members_ || decodes != steady_decodes_ || kv != steady_kv_) return Error{"steady counts are off"};
  if (slab_.size() != running_.size + waiting()) return Error{"requests known != running + waiting"};
  std::vector<int32_t> refs(static_cast<size_t>(config_.num_gpu_blocks));
  uint64_t rank = 0;
  int32_t running = 0;
  for (Slot s = running_.head; s != kNoSlot; s = slab_[s].next, ++running) {
    const ScheduledRequest& r = slab_[s];
    const std::string who = "running request " + std::to_string(r.id.value());
    if (r.status != RequestStatus::kRunning) return Error{who + " has another status"};
    if (r.rank <= rank) return Error{who + " stands out of order"};
    rank = r.rank;
    const int64_t computed = r.steady() ? SteadyComputed(r) : r.computed;
    if (BlocksOf(computed) != static_cast<int64_t>(r.blocks.size())) return Error{who + " holds a wrong number of blocks"};
    for (const uint32_t b : r.blocks) ++refs[b];
  }
  if (running != running_.size) return Error{"running list and its size disagree"};
  for (const Slot s : WaitingOrder()) {
    if (slab_[s].status == RequestStatus::kRunning) return Error{"a running request waits"};
    if (!slab_[s].blocks.empty() || slab_[s].computed != 0) return Error{"a waiting request holds blocks"};
  }
  for (uint32_t b = 1; b < refs.size(); ++b)
    if (refs[b] != pool_.refs(b)) return Error{"block " + std::to_string(b) + ": references != holders"};
  return {};
}

}  // namespace foretoken
