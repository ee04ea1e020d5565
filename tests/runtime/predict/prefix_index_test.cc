#include "runtime/predict/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

std::vector<BlockHash> Apart(uint64_t conversation, int64_t blocks) {
  std::vector<BlockHash> out;
  for (int64_t k = 0; k < blocks; ++k) out.emplace_back(Mix64(conversation, static_cast<uint64_t>(k)));
  return out;
}

// Conversations part at their 5th, 15th and 30th block, by the bits of their number.
std::vector<BlockHash> Prefix(uint64_t conversation, int64_t blocks) {
  std::vector<BlockHash> out;
  for (int64_t k = 0; k < blocks; ++k) {
    const uint64_t branch = k < 5 ? 0 : k < 15 ? conversation % 2 : k < 30 ? conversation % 4 : conversation;
    out.emplace_back(Mix64(branch, static_cast<uint64_t>(k)));
  }
  return out;
}

// The same by hand: per instance a list, most recent first.
struct Naive {
  explicit Naive(size_t instances, size_t most) : lists(instances), capacity(most) {}
  void Insert(size_t i, const std::vector<BlockHash>& prefix) {
    for (size_t k = std::min(prefix.size(), capacity); k-- > 0;) {
      const auto it = std::find(lists[i].begin(), lists[i].end(), prefix[k]);
      if (it != lists[i].end()) lists[i].erase(it);
      if (lists[i].size() >= capacity) lists[i].pop_back();
      lists[i].push_front(prefix[k]);
    }
  }
  int64_t Match(size_t i, const std::vector<BlockHash>& prefix) const {
    int64_t n = 0;
    for (BlockHash h : prefix) {
      if (std::find(lists[i].begin(), lists[i].end(), h) == lists[i].end()) break;
      ++n;
    }
    return n;
  }
  std::vector<std::deque<BlockHash>> lists;
  size_t capacity;
};

// With 40 instances many hold the same block, and let go of it one by one.
TEST(PrefixIndexTest, EqualsAnLruListPerInstance) {
  for (uint64_t seed : testing::Seeds(12)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    Prng g(seed);
    const uint32_t instances = seed % 2 == 0 ? 4 : 40;
    PrefixIndex index(instances, 60);
    Naive naive(instances, 60);
    std::vector<int32_t> all;
    for (int i = 0; i < 600; ++i) {
      const auto instance = static_cast<uint32_t>(g.Below(instances));
      const auto prefix = Prefix(g.Below(12), g.Between(0, 70));
      index.Insert(instance, prefix);
      naive.Insert(instance, prefix);
      if (g.Chance(0.02)) {
        const auto gone = static_cast<uint32_t>(g.Below(instances));
        index.Clear(gone);
        naive.lists[gone].clear();
      }
      const auto asked = Prefix(g.Below(12), g.Between(0, 70));
      index.MatchAll(asked, all);
      for (uint32_t k = 0; k < instances; ++k) {
        ASSERT_EQ(all[k], naive.Match(k, asked));
        ASSERT_EQ(index.size(k), static_cast<int64_t>(naive.lists[k].size()));
      }
      ASSERT_EQ(index.Match(instance, asked), naive.Match(instance, asked));
    }
    index.SetCapacity(1, 5);
    EXPECT_EQ(index.size(1), std::min<int64_t>(5, static_cast<int64_t>(naive.lists[1].size())));
    for (uint32_t k = 0; k < instances; ++k) index.Clear(k);
    EXPECT_EQ(index.Match(2, Prefix(1, 10)), 0);
    EXPECT_EQ(index.size(), 0U);
  }
}

TEST(PrefixIndexTest, ABlockCostsAtMost24Bytes) {
  PrefixIndex index(100, 2000);
  for (uint32_t i = 0; i < 100; ++i) {
    for (uint64_t c = 0; c < 4; ++c) index.Insert(i, Apart(i * 4 + c, 500));
    if (i < 10) continue;  // what every instance costs by itself weighs more at first
    const auto blocks = static_cast<double>(index.size());
    EXPECT_LE(static_cast<double>(index.memory_bytes()), 24 * blocks + 32 * 100);
  }
}

}  // namespace
}  // namespace foretoken
