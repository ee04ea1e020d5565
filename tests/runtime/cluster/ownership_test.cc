#include "runtime/cluster/ownership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

Instant At(int64_t ms) { return Instant() + Duration::Seconds(10) + Duration::Millis(ms); }

constexpr NodeId kEngineNode{1}, kHome{2};

OwnershipArbiter MakeArbiter() {
  return OwnershipArbiter({kEngineNode, 4, Duration::Seconds(2), Duration::Seconds(2)}, {{InstanceId(0), kHome}}, At(0));
}

TEST(OwnershipArbiterTest, HomeKeepsTheSimulatorWhileItLives) {
  OwnershipArbiter a = MakeArbiter();
  EXPECT_TRUE(a.Decide(At(0)).empty());
  a.OnPeerUp(kHome, At(100));
  EXPECT_TRUE(a.Decide(At(100'000)).empty());
  EXPECT_EQ(a.Next(), Instant::Max());
}

TEST(OwnershipArbiterTest, ADeadHomeLosesItAtOnceUnderAHigherTerm) {
  OwnershipArbiter a = MakeArbiter();
  a.OnPeerUp(kHome, At(100));
  a.OnPeerDown(kHome, At(500));
  const auto told = a.Decide(At(500));
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0], (Ownership{InstanceId(0), kEngineNode, 2}));
}

TEST(OwnershipArbiterTest, OneThatJoinsIsDecidedAsTheOthersUntilItLeaves) {
  OwnershipArbiter a = MakeArbiter();
  a.OnPeerUp(kHome, At(100));
  a.Add({InstanceId(5), kHome});
  a.OnHeard(InstanceId(5), 3);  // from before our restart
  EXPECT_EQ(a.Decide(At(100)), (std::vector<Ownership>{{InstanceId(5), kHome, 4}}));
  a.Remove(InstanceId(0));
  a.OnPeerDown(kHome, At(500));
  EXPECT_EQ(a.Decide(At(500)), (std::vector<Ownership>{{InstanceId(5), kEngineNode, 5}}));
  a.Remove(InstanceId(5));
  EXPECT_TRUE(a.Standing().empty());
}

TEST(OwnershipViewTest, OneThatJoinsIsOwnedByItsHomeAndAsOneHasHeard) {
  OwnershipView view({kHome});
  view.Add(InstanceId(3), kEngineNode);
  EXPECT_EQ(view.Of(InstanceId(3)), (Ownership{InstanceId(3), kEngineNode, 1}));
  EXPECT_TRUE(view.Learn({InstanceId(3), kHome, 2}));
  view.Add(InstanceId(3), kEngineNode);  // said twice
  EXPECT_EQ(view.Of(InstanceId(3)).owner, kHome);
  view.Add(InstanceId(2), kHome);  // a number between
  EXPECT_EQ(view.Of(InstanceId(2)), (Ownership{InstanceId(2), kHome, 1}));
}

TEST(OwnershipArbiterTest, AHomeThatNeverCameIsWaitedForFirst) {
  OwnershipArbiter a = MakeArbiter();
  EXPECT_EQ(a.Next(), At(2'000));
  EXPECT_TRUE(a.Decide(At(1'999)).empty());
  EXPECT_EQ(a.Decide(At(2'000)).size(), 1u);
}

TEST(OwnershipArbiterTest, AHomeThatIsBackOwnsAgainOnlyWhenItStays) {
  OwnershipArbiter a = MakeArbiter();
  a.OnPeerUp(kHome, At(0));
  a.OnPeerDown(kHome, At(10));
  ASSERT_EQ(a.Decide(At(10)).size(), 1u);
  for (int64_t t = 20; t < 4'000; t += 1'000) {  // restarts in a loop, up for half a second at a time
    a.OnPeerUp(kHome, At(t));
    EXPECT_TRUE(a.Decide(At(t + 500)).empty());
    a.OnPeerDown(kHome, At(t + 500));
    EXPECT_TRUE(a.Decide(At(t + 500)).empty());
  }
  a.OnPeerUp(kHome, At(5'000));
  EXPECT_EQ(a.Next(), At(7'000));
  const auto told = a.Decide(At(7'000));
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0], (Ownership{InstanceId(0), kHome, 3}));
}

TEST(OwnershipArbiterTest, AfterARestartItSpeaksAboveTheTermsThatPeersRemember) {
  OwnershipArbiter a = MakeArbiter();
  a.OnPeerUp(kHome, At(0));
  a.OnHeard(InstanceId(0), 7);
  const auto told = a.Decide(At(0));
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0], (Ownership{InstanceId(0), kHome, 8}));
  EXPECT_TRUE(a.Decide(At(1)).empty());
}

TEST(OwnershipViewTest, RepliesOfAStaleOwnerAreRefusedByTerm) {
  OwnershipView v({kHome});
  EXPECT_TRUE(v.Accepts(InstanceId(0), kHome, 1));
  EXPECT_TRUE(v.Learn({InstanceId(0), kEngineNode, 2}));
  EXPECT_FALSE(v.Accepts(InstanceId(0), kHome, 1));
  EXPECT_TRUE(v.Learn({InstanceId(0), kHome, 3}));
  EXPECT_FALSE(v.Accepts(InstanceId(0), kHome, 1));  // the same node, but what it knew then
  EXPECT_FALSE(v.Learn({InstanceId(0), kEngineNode, 2}));
  EXPECT_EQ(v.refused_by_term(), 3u);
}

// Whatever goes up and down, and in whatever order the news reach an onlooker: a term has one owner, and all news once heard, the
// onlooker believes what the arbiter last said.
TEST(OwnershipTest, ATermHasOneOwnerUnderRandomFailures) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    OwnershipArbiter a = MakeArbiter();
    std::map<uint64_t, NodeId> owner_of_term = {{1, kHome}};
    std::vector<Ownership> news;
    for (int64_t t = 0, step = 0; step < 200; ++step) {
      t += static_cast<int64_t>(prng.Below(1'500));
      if (prng.Below(2) == 0) {
        a.OnPeerUp(kHome, At(t));
      } else {
        a.OnPeerDown(kHome, At(t));
      }
      for (const Ownership& o : a.Decide(At(t))) {
        EXPECT_TRUE(owner_of_term.emplace(o.term, o.owner).second) << "term " << o.term << " has two owners";
        news.push_back(o);
      }
    }
    OwnershipView onlooker({kHome});
    for (size_t i = news.size(); i > 1; --i) std::swap(news[i - 1], news[prng.Below(i)]);
    for (const Ownership& o : news) onlooker.Learn(o);
    EXPECT_EQ(onlooker.Of(InstanceId(0)), a.Standing().front());
  }
}

}  // namespace
}  // namespace foretoken
