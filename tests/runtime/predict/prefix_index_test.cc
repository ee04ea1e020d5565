#include "runtime/predict/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

std::vector<BlockHash> Prefix(uint64_t conversation, int64_t blocks) {
  std::vector<BlockHash> out;
  for (int64_t k = 0; k < blocks; ++k) out.emplace_back(Mix64(conversation, static_cast<uint64_t>(k)));
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

TEST(PrefixIndexTest, EqualsAnLruListPerInstance) {
  for (uint64_t seed : testing::Seeds(10)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    Prng g(seed);
    PrefixIndex index(4, 60);
    Naive naive(4, 60);
    std::vector<int32_t> all;
    for (int i = 0; i < 600; ++i) {
      const auto instance = static_cast<uint32_t>(g.Below(4));
      const auto prefix = Prefix(g.Below(12), g.Between(0, 70));
      index.Insert(instance, prefix);
      naive.Insert(instance, prefix);
      const auto asked = Prefix(g.Below(12), g.Between(0, 70));
      index.MatchAll(asked, all);
      for (uint32_t k = 0; k < 4; ++k) {
        ASSERT_EQ(index.Match(k, asked), naive.Match(k, asked));
        ASSERT_EQ(all[k], naive.Match(k, asked));
        ASSERT_EQ(index.size(k), static_cast<int64_t>(naive.lists[k].size()));
      }
    }
    index.SetCapacity(1, 5);
    EXPECT_EQ(index.size(1), std::min<int64_t>(5, static_cast<int64_t>(naive.lists[1].size())));
    index.Clear(2);
    EXPECT_EQ(index.Match(2, Prefix(1, 10)), 0);
  }
}

TEST(PrefixIndexTest, ABlockCostsAtMost24Bytes) {
  PrefixIndex index(100, 2000);
  for (uint32_t i = 0; i < 100; ++i) {
    for (uint64_t c = 0; c < 4; ++c) index.Insert(i, Prefix(i * 4 + c, 500));
    if (i < 10) continue;  // what every instance costs by itself weighs more at first
    const auto blocks = static_cast<double>(index.size());
    EXPECT_LE(static_cast<double>(index.memory_bytes()), 24 * blocks + 32 * 100);
  }
}

}  // namespace
}  // namespace foretoken
