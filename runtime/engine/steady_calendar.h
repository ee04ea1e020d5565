// SteadyCalendar: what falls due at the next few steady batches of a VllmCore, per batch in running order. A ring over batch
// indices: only indices within `span` of the present may be held.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "runtime/engine/scheduled_request.h"

namespace foretoken {

class SteadyCalendar {
 public:
  struct Entry {
    uint64_t rank = 0;
    Slot slot = kNoSlot;
  };
  using Due = std::vector<Entry>;

  explicit SteadyCalendar(int64_t span) : ring_(std::bit_ceil(static_cast<size_t>(span))) {}

  Due& At(int64_t batch) { return ring_[static_cast<size_t>(batch) & (ring_.size() - 1)]; }
  void Add(int64_t batch, Entry e) {
    Due& due = At(batch);
    size_t i = due.size();
    due.push_back(e);
    for (; i > 0 && due[i - 1].rank > e.rank; --i) due[i] = due[i - 1];
    due[i] = e;
  }
  // Nothing happens if it is not there.
  void Remove(int64_t batch, Slot slot) {
    Due& due = At(batch);
    for (size_t i = 0; i < due.size(); ++i) {
      if (due[i].slot != slot) continue;
      due.erase(due.begin() + static_cast<std::ptrdiff_t>(i));
      return;
    }
  }
  void Clear() {
    for (Due& due : ring_) due.clear();
  }

 private:
  std::vector<Due> ring_;
};

}  // namespace foretoken
