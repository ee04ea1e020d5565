#include "runtime/engine/sglang_radix_cache.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

TokenRuns Key(const std::vector<TokenRun>& runs) {
  TokenRuns key;
  for (const TokenRun& run : runs) key.Append(run);
  return key;
}

TEST(SglangRadixCacheTest, RunsThatContinueOneAnotherAreOne) {
  const TokenRuns key = Key({{7, 0, 3}, {7, 3, 2}, {9, 0, 4}});
  EXPECT_EQ(key.length(), 9);
  EXPECT_EQ(TokenRuns::CommonPrefix(key, Key({{7, 0, 5}, {9, 0, 2}})), 7);
  EXPECT_EQ(TokenRuns::CommonPrefix(key.Slice(4, 9), Key({{7, 4, 1}, {9, 0, 9}})), 5);
}

TEST(SglangRadixCacheTest, APrefixIsFoundToTheToken) {
  SglangRadixCache cache;
  EXPECT_EQ(cache.Insert(Key({{1, 0, 10}})), 0);
  EXPECT_EQ(cache.MatchPrefix(Key({{1, 0, 7}, {2, 0, 5}})).tokens, 7);
  EXPECT_EQ(cache.Insert(Key({{1, 0, 7}, {2, 0, 5}})), 7);
  EXPECT_EQ(cache.tokens(), 15);  // the first seven are held once
  EXPECT_EQ(cache.MatchPrefix(Key({{2, 0, 5}})).tokens, 0);
}

TEST(SglangRadixCacheTest, TheLeastRecentlyUsedLeafGoesFirstThenItsParent) {
  SglangRadixCache cache;
  cache.Insert(Key({{1, 0, 4}, {2, 0, 3}}));
  cache.Insert(Key({{1, 0, 4}, {3, 0, 5}}));
  cache.MatchPrefix(Key({{1, 0, 4}, {2, 0, 3}}));  // {3} is now the older leaf
  EXPECT_EQ(cache.Evict(1), 5);                    // whole leaves
  EXPECT_EQ(cache.MatchPrefix(Key({{1, 0, 4}, {3, 0, 5}})).tokens, 4);
  EXPECT_EQ(cache.Evict(4), 7);  // {2}, then the shared part that became a leaf
  EXPECT_EQ(cache.tokens(), 0);
}

TEST(SglangRadixCacheTest, WhatALockProtectsStays) {
  SglangRadixCache cache;
  cache.Insert(Key({{1, 0, 4}, {2, 0, 3}}));
  const auto match = cache.MatchPrefix(Key({{1, 0, 4}}));
  cache.Lock(match.node);
  EXPECT_EQ(cache.evictable(), 3);
  EXPECT_EQ(cache.Evict(100), 3);
  EXPECT_EQ(cache.MatchPrefix(Key({{1, 0, 4}, {2, 0, 3}})).tokens, 4);
  cache.Unlock(match.node);
  EXPECT_EQ(cache.Evict(100), 4);
}

TEST(SglangRadixCacheTest, ALockSurvivesASplitOfItsEdge) {
  SglangRadixCache cache;
  cache.Insert(Key({{1, 0, 10}}));
  const auto match = cache.MatchPrefix(Key({{1, 0, 10}}));
  cache.Lock(match.node);
  cache.MatchPrefix(Key({{1, 0, 3}, {5, 0, 1}}));  // splits at 3
  EXPECT_EQ(cache.Evict(100), 0);
  cache.Unlock(match.node);
  EXPECT_EQ(cache.evictable(), 10);
  EXPECT_TRUE(cache.CheckInvariants().ok());
}

std::vector<TokenRun> RandomKey(Prng& prng) {
  std::vector<TokenRun> runs;
  for (int64_t i = prng.Between(1, 4); i > 0; --i) runs.push_back({prng.Below(3), 0, prng.Between(1, 6)});
  return runs;
}

std::vector<std::vector<uint64_t>> Prefixes(const std::vector<TokenRun>& runs) {
  std::vector<std::vector<uint64_t>> all;
  std::vector<uint64_t> so_far;
  for (const TokenRun& run : runs) {
    for (int64_t k = 0; k < run.length; ++k) {
      so_far.push_back(run.content * 100 + static_cast<uint64_t>(run.from + k));
      all.push_back(so_far);
    }
  }
  return all;
}

// Against a plain set of every cached prefix.
TEST(SglangRadixCacheTest, HoldsExactlyThePrefixesThatWereInsertedAndNotEvicted) {
  for (const uint64_t seed : testing::Seeds(100)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    SglangRadixCache cache;
    std::set<std::vector<uint64_t>> model;
    std::vector<std::pair<SglangRadixCache::Node, std::vector<std::vector<uint64_t>>>> locks;
    for (int op = 0; op < 120; ++op) {
      const auto runs = RandomKey(prng);
      const auto prefixes = Prefixes(runs);
      int64_t known = 0;
      while (known < static_cast<int64_t>(prefixes.size()) && model.count(prefixes[static_cast<size_t>(known)])) ++known;
      switch (prng.Below(5)) {
        case 0:
        case 1:
          ASSERT_EQ(cache.Insert(Key(runs)), known);
          model.insert(prefixes.begin(), prefixes.end());
          break;
        case 2: {
          const auto match = cache.MatchPrefix(Key(runs));
          ASSERT_EQ(match.tokens, known);
          cache.Lock(match.node);
          locks.push_back({match.node, {prefixes.begin(), prefixes.begin() + known}});
          break;
        }
        case 3:
          if (locks.empty()) break;
          cache.Unlock(locks.back().first);
          locks.pop_back();
          break;
        default: {
          const int64_t wanted = prng.Between(0, 10), could = cache.evictable(), before = cache.tokens();
          const int64_t gone = cache.Evict(wanted);
          ASSERT_GE(gone, std::min(wanted, could));
          ASSERT_EQ(cache.tokens(), before - gone);
          if (gone == 0) break;
          SglangRadixCache probe = cache;
          std::set<std::vector<uint64_t>> left;  // what is still found of each inserted sequence
          for (const auto& sequence : model) {
            TokenRuns key;
            for (const uint64_t t : sequence) key.Append({t / 100, static_cast<int64_t>(t % 100), 1});
            if (probe.MatchPrefix(key).tokens == key.length()) left.insert(sequence);
          }
          model = left;
          for (const auto& [node, held] : locks)
            for (const auto& prefix : held) ASSERT_TRUE(model.count(prefix)) << "a locked prefix was evicted";
        }
      }
      ASSERT_EQ(cache.tokens(), static_cast<int64_t>(model.size()));
      const Status ok = cache.CheckInvariants();
      ASSERT_TRUE(ok.ok()) << ok.error().message;
    }
  }
}

}  // namespace
}  // namespace foretoken
