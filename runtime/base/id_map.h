// IdMap: from a 64-bit id to a value, by open addressing with linear probing and backward-shift deletion (no tombstones: the cost
// of a look-up does not grow with history). Pointers and references are invalidated by Insert and Erase. It offers no
// iteration, so no output can depend on its order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/base/prng.h"

namespace foretoken {

template <class V>
class IdMap {
 public:
  size_t size() const { return size_; }

  V* Find(uint64_t key) {
    if (size_ == 0) return nullptr;
    for (size_t i = Home(key);; i = (i + 1) & mask_) {
      if (!slots_[i].used) return nullptr;
      if (slots_[i].key == key) return &slots_[i].value;
    }
  }
  const V* Find(uint64_t key) const { return const_cast<IdMap*>(this)->Find(key); }

  // False (and no change) when the key is there already.
  bool Insert(uint64_t key, V value) {
    if (Find(key) != nullptr) return false;
    if ((size_ + 1) * 3 > slots_.size() * 2) Grow();
    Place(key, std::move(value));
    ++size_;
    return true;
  }

  bool Erase(uint64_t key) {
    if (size_ == 0) return false;
    size_t i = Home(key);
    while (slots_[i].used && slots_[i].key != key) i = (i + 1) & mask_;
    if (!slots_[i].used) return false;
    for (size_t j = (i + 1) & mask_; slots_[j].used; j = (j + 1) & mask_) {
      const size_t home = Home(slots_[j].key);
      if (((j - home) & mask_) >= ((j - i) & mask_)) {
        slots_[i] = std::move(slots_[j]);
        i = j;
      }
    }
    slots_[i] = Slot{};
    --size_;
    return true;
  }

  void Clear() {
    slots_.clear();
    mask_ = size_ = 0;
  }

  size_t memory_bytes() const { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    uint64_t key = 0;
    bool used = false;
    V value{};
  };

  size_t Home(uint64_t key) const { return static_cast<size_t>(Mix64(key)) & mask_; }

  void Place(uint64_t key, V value) {
    size_t i = Home(key);
    while (slots_[i].used) i = (i + 1) & mask_;
    slots_[i] = Slot{key, true, std::move(value)};
  }

  void Grow() {
    std::vector<Slot> old = std::move(slots_);
    slots_ = std::vector<Slot>(old.empty() ? 16 : old.size() * 2);
    mask_ = slots_.size() - 1;
    for (Slot& s : old)
      if (s.used) Place(s.key, std::move(s.value));
  }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
  size_t size_ = 0;
};

}  // namespace foretoken
