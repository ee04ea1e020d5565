// MirrorIndex: from a request's id to its place in the table of mirrored requests. Open addressing over places alone (the table
// holds the ids): 4 bytes a slot where an IdMap takes 16. Backward-shift deletion, no iteration.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/predict/mirror_request.h"

namespace foretoken {

class MirrorIndex {
 public:
  // `table` is not owned and outlives the index; its element 0 is never indexed.
  explicit MirrorIndex(const std::vector<MirrorRequest>& table) : table_(table) {}

  size_t size() const { return size_; }
  const uint32_t* Find(uint64_t id) const {
    if (size_ == 0) return nullptr;
    for (size_t i = Home(id); places_[i] != 0; i = (i + 1) & mask_) {
      if (table_[places_[i]].id == id) return &places_[i];
    }
    return nullptr;
  }
  // The table's element `place` has `id` already. False (and no change): the id is there.
  bool Insert(uint64_t id, uint32_t place) {
    if (Find(id) != nullptr) return false;
    if ((size_ + 1) * 3 > places_.size() * 2) Grow();
    Put(place);
    ++size_;
    return true;
  }
  // While the table's element still has the id.
  bool Erase(uint64_t id) {
    const uint32_t* found = Find(id);
    if (found == nullptr) return false;
    auto i = static_cast<size_t>(found - places_.data());
    for (size_t j = (i + 1) & mask_; places_[j] != 0; j = (j + 1) & mask_) {
      const size_t home = Home(table_[places_[j]].id);
      if (((j - home) & mask_) >= ((j - i) & mask_)) {
        places_[i] = places_[j];
        i = j;
      }
    }
    places_[i] = 0;
    --size_;
    return true;
  }
  void Clear() {
    places_.clear();
    mask_ = size_ = 0;
  }
  size_t memory_bytes() const { return places_.capacity() * sizeof(uint32_t); }

 private:
  size_t Home(uint64_t id) const { return static_cast<size_t>(Mix64(id)) & mask_; }
  void Put(uint32_t place) {
    size_t i = Home(table_[place].id);
    while (places_[i] != 0) i = (i + 1) & mask_;
    places_[i] = place;
  }
  void Grow() {
    std::vector<uint32_t> old = std::move(places_);
    places_ = std::vector<uint32_t>(old.empty() ? 16 : old.size() * 2, 0);
    mask_ = places_.size() - 1;
    for (uint32_t place : old) {
      if (place != 0) Put(place);
    }
  }

  const std::vector<MirrorRequest>& table_;
  std::vector<uint32_t> places_;  // 0: empty
  size_t mask_ = 0;
  size_t size_ = 0;
};

}  // namespace foretoken
