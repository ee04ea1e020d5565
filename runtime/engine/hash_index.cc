#include "runtime/engine/hash_index.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace foretoken {

void HashIndex::Grow() {
  std::vector<Entry> old = std::exchange(entries_, {});
  entries_.resize(std::max<size_t>(64, old.size() * 2));
  shift_ = 64 - std::countr_zero(entries_.size());
  for (const Entry& e : old)
    if (e.head != 0) entries_[Locate(e.hash)] = e;
}

void HashIndex::Insert(BlockHash hash, uint32_t block) {
  if ((size_ + 1) * 2 > entries_.size()) Grow();
  if (block >= links_.size()) links_.resize(std::max<size_t>(block + 1, links_.size() * 2));
  Entry& e = entries_[Locate(hash.value())];
  links_[block] = {hash, 0, e.head == 0 ? 0 : e.tail};
  if (e.head == 0) {
    e = {hash.value(), block, block};
    ++size_;
  } else {
    links_[e.tail].next = block;
    e.tail = block;
  }
}

void HashIndex::Erase(uint32_t block) {
  const Link l = links_[block];
  const size_t i = Locate(l.hash.value());
  Entry& e = entries_[i];
  if (l.prev != 0) links_[l.prev].next = l.next;
  if (l.next != 0) links_[l.next].prev = l.prev;
  if (e.head == block) e.head = l.next;
  if (e.tail == block) e.tail = l.prev;
  if (e.head == 0) RemoveEntry(i);
}

// Backward shift: entries behind the hole move up unless that would put them before their home.
void HashIndex::RemoveEntry(size_t hole) {
  const size_t mask = entries_.size() - 1;
  entries_[hole] = {};
  --size_;
  for (size_t i = (hole + 1) & mask; entries_[i].head != 0; i = (i + 1) & mask) {
    const size_t home = Home(entries_[i].hash);
    if (((i - home) & mask) < ((i - hole) & mask)) continue;
    entries_[hole] = entries_[i];
    entries_[i] = {};
    hole = i;
  }
}

}  // namespace foretoken
