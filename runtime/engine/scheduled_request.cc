#include "runtime/engine/scheduled_request.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "runtime/base/check.h"

namespace foretoken {

Slot RequestSlab::Find(RequestId id) const {
  if (used_ == 0) return kNoSlot;
  const size_t mask = index_.size() - 1;
  for (size_t i = Home(id.value()); index_[i].slot != kNoSlot; i = (i + 1) & mask)
    if (index_[i].id == id.value()) return index_[i].slot;
  return kNoSlot;
}

void RequestSlab::Grow() {
  std::vector<Entry> old = std::exchange(index_, {});
  index_.resize(std::max<size_t>(64, old.size() * 2));
  shift_ = 64 - std::countr_zero(index_.size());
  const size_t mask = index_.size() - 1;
  for (const Entry& e : old) {
    if (e.slot == kNoSlot) continue;
    size_t i = Home(e.id);
    while (index_[i].slot != kNoSlot) i = (i + 1) & mask;
    index_[i] = e;
  }
}

Slot RequestSlab::Acquire(RequestId id) {
  if ((static_cast<size_t>(used_) + 1) * 2 > index_.size()) Grow();
  Slot slot;
  if (free_slots_.empty()) {
    slot = static_cast<Slot>(requests_.size());
    requests_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  const size_t mask = index_.size() - 1;
  size_t i = Home(id.value());
  while (index_[i].slot != kNoSlot) i = (i + 1) & mask;
  index_[i] = {id.value(), slot};
  ++used_;
  // A fresh request in the old one's memory.
  ScheduledRequest& r = requests_[slot];
  ScheduledRequest fresh;
  fresh.id = id;
  fresh.status = RequestStatus::kWaiting;
  fresh.generation = r.generation + 1;
  std::swap(fresh.blocks, r.blocks);
  std::swap(fresh.hashes, r.hashes);
  std::swap(fresh.segments, r.segments);
  fresh.blocks.clear();
  fresh.hashes.clear();
  fresh.segments.clear();
  r = std::move(fresh);
  return slot;
}

// Backward shift, as in HashIndex.
void RequestSlab::EraseFromIndex(uint64_t id) {
  const size_t mask = index_.size() - 1;
  size_t hole = Home(id);
  while (index_[hole].id != id || index_[hole].slot == kNoSlot) hole = (hole + 1) & mask;
  index_[hole] = {};
  for (size_t i = (hole + 1) & mask; index_[i].slot != kNoSlot; i = (i + 1) & mask) {
    if (((i - Home(index_[i].id)) & mask) < ((i - hole) & mask)) continue;
    index_[hole] = index_[i];
    index_[i] = {};
    hole = i;
  }
}

void RequestSlab::Release(Slot slot) {
  ScheduledRequest& r = requests_[slot];
  FT_CHECK(r.status != RequestStatus::kFree);
  EraseFromIndex(r.id.value());
  r.status = RequestStatus::kFree;
  ++r.generation;
  --used_;
  free_slots_.push_back(slot);
}

void RequestSlab::InsertBefore(RequestQueue& queue, Slot at, Slot slot) {
  ScheduledRequest& r = requests_[slot];
  r.next = at;
  r.prev = at == kNoSlot ? queue.tail : requests_[at].prev;
  (r.next == kNoSlot ? queue.tail : requests_[r.next].prev) = slot;
  (r.prev == kNoSlot ? queue.head : requests_[r.prev].next) = slot;
  ++queue.size;
}

void RequestSlab::Remove(RequestQueue& queue, Slot slot) {
  ScheduledRequest& r = requests_[slot];
  (r.next == kNoSlot ? queue.tail : requests_[r.next].prev) = r.prev;
  (r.prev == kNoSlot ? queue.head : requests_[r.prev].next) = r.next;
  r.next = r.prev = kNoSlot;
  --queue.size;
}

}  // namespace foretoken
