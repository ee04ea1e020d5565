#include "runtime/predict/prefix_index.h"

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/prng.h"

namespace foretoken {
PrefixIndex::PrefixIndex(uint32_t instances, int64_t blocks_per_instance)
    : entries_(1), owners_(instances), crowd_from_(std::max<uint32_t>(8, instances / 16)) {
  FT_CHECK(instances >= 1 && instances < kCrowdMark);
  for (Owner& o : owners_) o.capacity = std::max<int64_t>(0, blocks_per_instance);
}

uint64_t PrefixIndex::KeyOf(uint32_t instance, BlockHash hash) { return (Mix64(hash.value()) & ~kCrowdMark) | instance; }

// All instances' copies of one block share a bucket.
size_t PrefixIndex::BucketOf(uint64_t key) const { return static_cast<size_t>(((key >> 32) * heads_.size()) >> 32); }

PrefixIndex::Found PrefixIndex::Find(uint64_t key) const {
  Found f;
  if (heads_.empty()) return f;
  for (uint32_t e = heads_[BucketOf(key)]; e != 0; e = entries_[e].chain) {
    const uint64_t k = entries_[e].key();
    if ((k ^ key) >> 16 != 0) continue;
    if (k == key) {
      f.entry = e;
      return f;
    }
    if ((k & kCrowdMark) == kCrowdMark) {
      f.crowd = e;
      f.entry = crowds_[entries_[e].newer].entries[key & kCrowdMark];
      return f;
    }
    ++f.owners;
  }
  return f;
}

uint32_t PrefixIndex::FindCrowd(uint64_t key) const {
  uint32_t e = heads_[BucketOf(key)];
  while (entries_[e].key() != (key | kCrowdMark)) e = entries_[e].chain;
  return e;
}

void PrefixIndex::Unlink(Owner& owner, uint32_t e) {
  const Entry& x = entries_[e];
  (x.newer != 0 ? entries_[x.newer].older : owner.newest) = x.older;
  (x.older != 0 ? entries_[x.older].newer : owner.oldest) = x.newer;
}

void PrefixIndex::Touch(Owner& owner, uint32_t e) {
  if (owner.newest == e) return;
  Unlink(owner, e);
  entries_[e].newer = 0;
  entries_[e].older = owner.newest;
  if (owner.newest != 0) entries_[owner.newest].newer = e;
  owner.newest = e;
  if (owner.oldest == 0) owner.oldest = e;
}

uint32_t PrefixIndex::NewEntry(uint64_t key) {
  uint32_t e = free_;
  if (e != 0) {
    free_ = entries_[e].chain;
  } else {
    if (entries_.size() == entries_.capacity() || heads_.empty()) Grow();
    e = static_cast<uint32_t>(entries_.size());
    entries_.emplace_back();
  }
  Entry& x = entries_[e];
  x.key_low = static_cast<uint32_t>(key);
  x.key_high = static_cast<uint32_t>(key >> 32);
  return e;
}

void PrefixIndex::Free(uint32_t e) {
  entries_[e] = Entry{};
  entries_[e].chain = free_;
  free_ = e;
}

void PrefixIndex::Chain(uint32_t e) {
  uint32_t& head = heads_[BucketOf(entries_[e].key())];
  entries_[e].chain = head;
  head = e;
}

void PrefixIndex::Unchain(uint32_t e) {
  uint32_t* link = &heads_[BucketOf(entries_[e].key())];
  while (*link != e) link = &entries_[*link].chain;
  *link = entries_[e].chain;
}

void PrefixIndex::Add(Owner& owner, uint64_t key, const Found& found) {
  const uint32_t e = NewEntry(key);
  Entry& x = entries_[e];
  x.newer = 0;
  x.older = owner.newest;
  if (owner.newest != 0) entries_[owner.newest].newer = e;
  owner.newest = e;
  if (owner.oldest == 0) owner.oldest = e;
  ++owner.held;
  ++used_;
  if (found.crowd != 0) {
    Crowd& crowd = crowds_[entries_[found.crowd].newer];
    crowd.entries[key & kCrowdMark] = e;
    ++crowd.size;
    x.chain = kInCrowd;
    return;
  }
  Chain(e);
  if (found.owners + 1 >= crowd_from_) Crowded(key);
}

// Takes the block's entries out of their chain.
void PrefixIndex::Crowded(uint64_t key) {
  uint32_t index;
  if (free_crowds_.empty()) {
    index = static_cast<uint32_t>(crowds_.size());
    crowds_.emplace_back();
  } else {
    index = free_crowds_.back();
    free_crowds_.pop_back();
  }
  Crowd& crowd = crowds_[index];
  crowd.entries.assign(owners_.size(), 0);
  for (uint32_t* link = &heads_[BucketOf(key)]; *link != 0;) {
    Entry& x = entries_[*link];
    if ((x.key() ^ key) >> 16 != 0) {
      link = &x.chain;
      continue;
    }
    crowd.entries[x.key() & kCrowdMark] = *link;
    ++crowd.size;
    *link = x.chain;
    x.chain = kInCrowd;
  }
  const uint32_t mark = NewEntry(key | kCrowdMark);
  entries_[mark].newer = index;
  Chain(mark);
}

void PrefixIndex::Evict(Owner& owner) {
  const uint32_t e = owner.oldest;
  Unlink(owner, e);
  if (entries_[e].chain == kInCrowd) {
    const uint64_t key = entries_[e].key();
    const uint32_t mark = FindCrowd(key);
    Crowd& crowd = crowds_[entries_[mark].newer];
    crowd.entries[key & kCrowdMark] = 0;
    if (--crowd.size == 0) {
      free_crowds_.push_back(entries_[mark].newer);
      crowd.entries = {};
      Unchain(mark);
      Free(mark);
    }
  } else {
    Unchain(e);
  }
  Free(e);
  --owner.held;
  --used_;
}

void PrefixIndex::Grow() {
  // By an eighth, and four entries a bucket: (20 + 1) * 9 / 8 bytes per block stay below 24.
  const size_t room = std::max<size_t>(64, entries_.size() + entries_.size() / 8);
  entries_.reserve(room);
  heads_.assign(room / 4, 0);
  heads_.shrink_to_fit();
  for (uint32_t e = 1; e < entries_.size(); ++e) {
    if (entries_[e].chain != kInCrowd) Chain(e);  // none is free, or there were no need to grow
  }
}

void PrefixIndex::Insert(uint32_t instance, std::span<const BlockHash> prefix) {
  Owner& owner = owners_[instance];
  const auto most = std::min<size_t>(prefix.size(), static_cast<size_t>(owner.capacity));
  // Last block first: a prefix is evicted from its end, as the engine frees it.
  for (size_t i = most; i-- > 0;) {
    const uint64_t key = KeyOf(instance, prefix[i]);
    const Found found = Find(key);
    if (found.entry != 0) {
      Touch(owner, found.entry);
      continue;
    }
    if (owner.held < owner.capacity) {
      Add(owner, key, found);
      continue;
    }
    Evict(owner);
    Add(owner, key, Find(key));  // that may have been the last of its crowd
  }
}

// Whoever holds a block holds all before it: each time it was used, they were used after it, and the least recent go first.
int64_t PrefixIndex::Match(uint32_t instance, std::span<const BlockHash> prefix) const {
  const auto after = std::partition_point(prefix.begin(), prefix.end(),
                                          [&](BlockHash hash) { return Find(KeyOf(instance, hash)).entry != 0; });
  return after - prefix.begin();
}

// How many hold block k; for each of them, blocks is at least k + 1.
uint32_t PrefixIndex::NoteOwners(std::span<const BlockHash> prefix, size_t k, std::vector<int32_t>& blocks) const {
  const uint64_t block = KeyOf(0, prefix[k]);
  const auto held = static_cast<int32_t>(k) + 1;
  uint32_t owners = 0;
  for (uint32_t e = heads_[BucketOf(block)]; e != 0; e = entries_[e].chain) {
    const uint64_t key = entries_[e].key();
    if ((key ^ block) >> 16 != 0) continue;
    if ((key & kCrowdMark) != kCrowdMark) {
      blocks[key & kCrowdMark] = std::max(blocks[key & kCrowdMark], held);
      ++owners;
      continue;
    }
    const Crowd& crowd = crowds_[entries_[e].newer];
    for (size_t i = 0; i < crowd.entries.size(); ++i) {
      if (crowd.entries[i] != 0) blocks[i] = std::max(blocks[i], held);
    }
    owners += crowd.size;
  }
  return owners;
}

// The owners of block k + 1 are among those of block k. So between two blocks with as many owners nothing changes, and the blocks at
// which somebody stops are found by bisection: 40 blocks looked up for a prompt of 750 that all share a tenth of.
void PrefixIndex::NoteBetween(std::span<const BlockHash> prefix, Probe low, Probe high, std::vector<int32_t>& blocks) const {
  if (low.owners == high.owners || high.block - low.block < 2) return;
  Probe middle{low.block + (high.block - low.block) / 2, 0};
  middle.owners = NoteOwners(prefix, middle.block, blocks);
  NoteBetween(prefix, low, middle, blocks);
  NoteBetween(prefix, middle, high, blocks);
}

void PrefixIndex::MatchAll(std::span<const BlockHash> prefix, std::vector<int32_t>& blocks) const {
  blocks.assign(owners_.size(), 0);
  if (heads_.empty() || prefix.empty()) return;
  const Probe first{0, NoteOwners(prefix, 0, blocks)};
  if (first.owners > 0) {
    const Probe last{prefix.size() - 1, NoteOwners(prefix, prefix.size() - 1, blocks)};
    NoteBetween(prefix, first, last, blocks);
  }
}

void PrefixIndex::SetCapacity(uint32_t instance, int64_t blocks) {
  Owner& owner = owners_[instance];
  owner.capacity = std::max<int64_t>(0, blocks);
  while (owner.held > owner.capacity) Evict(owner);
}

void PrefixIndex::Clear(uint32_t instance) {
  while (owners_[instance].held > 0) Evict(owners_[instance]);
}

size_t PrefixIndex::memory_bytes() const {
  return entries_.capacity() * sizeof(Entry) + heads_.capacity() * sizeof(uint32_t) + owners_.capacity() * sizeof(Owner) +
         crowds_.capacity() * sizeof(Crowd) + (crowds_.size() - free_crowds_.size()) * owners_.size() * sizeof(uint32_t);
}

}  // namespace foretoken
