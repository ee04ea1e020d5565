// RecentIds: the newest ids that were put in, as many as a delay can make matter; older ones fall out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/base/ids.h"

namespace foretoken {

class RecentIds {
 public:
  void Put(RequestId id) {
    if (!known_.Insert(id.value(), true)) return;
    ring_.resize(kMost);
    uint64_t& oldest = ring_[next_++ % kMost];
    if (next_ > kMost) known_.Erase(oldest);
    oldest = id.value();
  }
  bool Has(RequestId id) const { return known_.Find(id.value()) != nullptr; }
  void Clear() {
    known_.Clear();
    next_ = 0;
  }

 private:
  static constexpr size_t kMost = 1024;  // a second's worth at a rate that no engine reaches
  std::vector<uint64_t> ring_;           // allocated when first used
  size_t next_ = 0;
  IdMap<bool> known_;
};

}  // namespace foretoken
