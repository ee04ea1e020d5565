// HashIndex: block hash -> the blocks that hold it, oldest registration first. Open addressing with linear probing; blocks of
// one hash are chained through arrays indexed by block. Erasing keeps the probe sequences tight, so it never degrades.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/ids.h"

namespace foretoken {

class HashIndex {
 public:
  // Oldest block with `hash`, 0 if none.
  uint32_t Head(BlockHash hash) const {
    if (size_ == 0) return 0;
    const Entry& e = entries_[Locate(hash.value())];
    return e.head;
  }
  // `block` (> 0, not in the index) gets `hash`, behind the blocks that have it already.
  void Insert(BlockHash hash, uint32_t block);
  void Erase(uint32_t block);
  BlockHash HashOf(uint32_t block) const { return links_[block].hash; }
  // The next block with the same hash, 0 at the end.
  uint32_t Next(uint32_t block) const { return links_[block].next; }

 private:
  struct Entry {
    uint64_t hash = 0;
    uint32_t head = 0;  // 0: the entry is empty
    uint32_t tail = 0;
  };
  struct Link {
    BlockHash hash;
    uint32_t next = 0;
    uint32_t prev = 0;
  };

  size_t Home(uint64_t hash) const { return static_cast<size_t>((hash * 0x9E3779B97F4A7C15ull) >> shift_); }
  // The entry of `hash`, or the empty one where it would go.
  size_t Locate(uint64_t hash) const {
    const size_t mask = entries_.size() - 1;
    size_t i = Home(hash);
    while (entries_[i].head != 0 && entries_[i].hash != hash) i = (i + 1) & mask;
    return i;
  }
  void Grow();
  void RemoveEntry(size_t i);

  std::vector<Entry> entries_;  // a power of two, at most half full
  std::vector<Link> links_;     // by block
  size_t size_ = 0;
  int shift_ = 64;
};

}  // namespace foretoken
