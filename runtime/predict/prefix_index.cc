#include "runtime/predict/prefix_index.h"

#include <algorithm>

#include "runtime/base/check.h"
#include "runtime/base/prng.h"

namespace foretoken {

PrefixIndex::PrefixIndex(uint32_t instances, int64_t blocks_per_instance) : entries_(1), owners_(instances) {
  FT_CHECK(instances >= 1 && instances <= 65536);
  for (Owner& o : owners_) o.capacity = std::max<int64_t>(0, blocks_per_instance);
}

uint64_t PrefixIndex::KeyOf(uint32_t instance, BlockHash hash) { return (Mix64(hash.value()) & ~uint64_t{0xFFFF}) | instance; }

// All instances' copies of one block share a bucket.
size_t PrefixIndex::BucketOf(uint64_t key) const { return static_cast<size_t>(((key >> 32) * heads_.size()) >> 32); }

uint32_t PrefixIndex::Find(uint64_t key) const {
  if (heads_.empty()) return 0;
  uint32_t e = heads_[BucketOf(key)];
  while (e != 0 && entries_[e].key() != key) e = entries_[e].chain;
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

void PrefixIndex::Add(Owner& owner, uint64_t key) {
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
  uint32_t& head = heads_[BucketOf(key)];
  x.chain = head;
  head = e;
  x.newer = 0;
  x.older = owner.newest;
  if (owner.newest != 0) entries_[owner.newest].newer = e;
  owner.newest = e;
  if (owner.oldest == 0) owner.oldest = e;
  ++owner.held;
  ++used_;
}

void PrefixIndex::Evict(Owner& owner) {
  const uint32_t e = owner.oldest;
  Unlink(owner, e);
  uint32_t* link = &heads_[BucketOf(entries_[e].key())];
  while (*link != e) link = &entries_[*link].chain;
  *link = entries_[e].chain;
  entries_[e].chain = free_;
  free_ = e;
  --owner.held;
  --used_;
}

void PrefixIndex::Grow() {
  // By an eighth, and four entries a bucket: (20 + 1) * 9 / 8 bytes per block stay below 24.
  const size_t room = std::max<size_t>(64, entries_.size() + entries_.size() / 8);
  entries_.reserve(room);
  heads_.assign(room / 4, 0);
  heads_.shrink_to_fit();
  for (const Owner& o : owners_) {
    for (uint32_t e = o.newest; e != 0; e = entries_[e].older) {
      uint32_t& head = heads_[BucketOf(entries_[e].key())];
      entries_[e].chain = head;
      head = e;
    }
  }
}

void PrefixIndex::Insert(uint32_t instance, std::span<const BlockHash> prefix) {
  Owner& owner = owners_[instance];
  const auto most = std::min<size_t>(prefix.size(), static_cast<size_t>(owner.capacity));
  // Last block first: a prefix is evicted from its end, as the engine frees it.
  for (size_t i = most; i-- > 0;) {
    const uint64_t key = KeyOf(instance, prefix[i]);
    if (const uint32_t e = Find(key); e != 0) {
      Touch(owner, e);
      continue;
    }
    if (owner.held >= owner.capacity) Evict(owner);
    Add(owner, key);
  }
}

int64_t PrefixIndex::Match(uint32_t instance, std::span<const BlockHash> prefix) const {
  int64_t n = 0;
  while (n < static_cast<int64_t>(prefix.size()) && Find(KeyOf(instance, prefix[static_cast<size_t>(n)])) != 0) ++n;
  return n;
}

void PrefixIndex::MatchAll(std::span<const BlockHash> prefix, std::vector<int32_t>& blocks) const {
  blocks.assign(owners_.size(), 0);
  if (heads_.empty()) return;
  for (size_t k = 0; k < prefix.size(); ++k) {
    const uint64_t block = KeyOf(0, prefix[k]) >> 16;
    bool any = false;
    for (uint32_t e = heads_[BucketOf(block << 16)]; e != 0; e = entries_[e].chain) {
      const uint64_t key = entries_[e].key();
      if (key >> 16 != block) continue;
      // Only those that hold everything before it go on.
      int32_t& held = blocks[key & 0xFFFF];
      if (held != static_cast<int32_t>(k)) continue;
      ++held;
      any = true;
    }
    if (!any) return;
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
  return entries_.capacity() * sizeof(Entry) + heads_.capacity() * sizeof(uint32_t) + owners_.capacity() * sizeof(Owner);
}

}  // namespace foretoken
