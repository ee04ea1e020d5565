// What nodes know of who belongs to the cluster: the same at all that have heard the same, in whatever order and however often.
#include "runtime/cluster/roster.h"

#include <gtest/gtest.h>

#include <set>
#include <variant>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

constexpr size_t kNodes = 3;

Roster Two() {
  return Roster({{InstanceId(0), "a-0", InstanceId(0), NodeId(1), NodeId(1), 7},
                 {InstanceId(1), "a-1", InstanceId(1), NodeId(2), NodeId(0), 7}},
                kNodes);
}

RosterMember Like(InstanceId number, const std::string& name, NodeId engine) {
  return {number, name, InstanceId(0), engine, engine, 7};
}

TEST(RosterTest, NoTwoNodesGiveTheSameNumber) {
  Roster r = Two();
  std::set<InstanceId> given{InstanceId(0), InstanceId(1)};
  Prng prng(1);
  for (int k = 0; k < 100; ++k) {
    const NodeId node(static_cast<uint32_t>(prng.Below(kNodes)));
    const auto number = r.Fresh(node);
    ASSERT_TRUE(number.ok());
    EXPECT_TRUE(given.insert(*number).second) << number->value();
    // Half of them another node has given without our hearing of it: the next of that node must differ from what it gave.
    const auto joined = r.Join(Like(*number, "b-" + std::to_string(k), node));
    ASSERT_TRUE(joined.ok()) << joined.error().message;
    EXPECT_TRUE(*joined);
    if (prng.Below(2) == 0) r.Leave(*number);
  }
}

TEST(RosterTest, ANumberIsNeverAnothers) {
  Roster r = Two();
  const InstanceId number = *r.Fresh(NodeId(1));
  ASSERT_TRUE(*r.Join(Like(number, "b", NodeId(1))));
  EXPECT_FALSE(*r.Join(Like(number, "b", NodeId(1))));             // said twice
  EXPECT_FALSE(r.Join(Like(number, "c", NodeId(1))).ok());         // another
  EXPECT_FALSE(r.Join(Like(number, "b", NodeId(2))).ok());         // that node cannot give it
  EXPECT_FALSE(r.Join(Like(InstanceId(0), "b", NodeId(1))).ok());  // the topology's
  EXPECT_EQ(r.Find(number)->name, "b");
  EXPECT_TRUE(r.Leave(number));
  EXPECT_FALSE(r.Leave(number));
  EXPECT_FALSE(*r.Join(Like(number, "b", NodeId(1))));  // old news
  EXPECT_EQ(r.Find(number), nullptr);
  EXPECT_TRUE(r.IsGone(number));
  EXPECT_GT(*r.Fresh(NodeId(1)), number);
}

TEST(RosterTest, OneIsFoundByNameOrNumberUntilItHasLeft) {
  Roster r = Two();
  EXPECT_EQ(r.Named("a-1")->instance, InstanceId(1));
  EXPECT_EQ(r.Named("1")->instance, InstanceId(1));
  EXPECT_EQ(r.Named("7"), nullptr);
  r.Leave(InstanceId(1));
  EXPECT_EQ(r.Named("a-1"), nullptr);
}

TEST(RosterTest, ImpossibleMembersAreRefused) {
  Roster r = Two();
  const InstanceId number = *r.Fresh(NodeId(1));
  for (RosterMember m :
       {Like(InstanceId(r.limit() + 1), "b", NodeId(1)), Like(number, "", NodeId(1)),
        Like(number, std::string(500, 'x'), NodeId(1)), RosterMember{number, "b", InstanceId(9), NodeId(1), NodeId(1), 7},
        RosterMember{number, "b", InstanceId(0), NodeId(1), NodeId(9), 7}})
    EXPECT_FALSE(r.Join(m).ok());
  EXPECT_FALSE(r.Leave(InstanceId(r.limit())));
  EXPECT_EQ(r.size(), 2u);
}

// All notices in two orders, some twice: the two know the same.
TEST(RosterTest, WhoHasHeardTheSameKnowsTheSame) {
  for (const uint64_t seed : testing::Seeds(40)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    Roster source = Two();
    std::vector<std::variant<RosterMember, InstanceId>> notices;
    for (uint32_t k = 0; k < 20; ++k) {
      const NodeId node(static_cast<uint32_t>(prng.Below(kNodes)));
      const RosterMember m = Like(*source.Fresh(node), "b-" + std::to_string(k), node);
      ASSERT_TRUE(*source.Join(m));
      notices.emplace_back(m);
      if (prng.Below(3) == 0) notices.emplace_back(m);
      if (prng.Below(2) == 0) notices.emplace_back(m.instance);
    }
    std::vector<std::string> known;
    for (int order = 0; order < 2; ++order) {
      for (size_t k = notices.size(); k > 1; --k) std::swap(notices[k - 1], notices[prng.Below(k)]);
      Roster r = Two();
      for (const auto& n : notices) {
        if (const auto* m = std::get_if<RosterMember>(&n)) {
          EXPECT_TRUE(r.Join(*m).ok());
        } else {
          r.Leave(std::get<InstanceId>(n));
        }
      }
      std::string all;
      for (uint32_t i = 0; i < r.size(); ++i)
        all += r.Find(InstanceId(i)) != nullptr ? r.Find(InstanceId(i))->name + " " : r.IsGone(InstanceId(i)) ? "gone " : "? ";
      known.push_back(all);
    }
    EXPECT_EQ(known[0], known[1]);
  }
}

}  // namespace
}  // namespace foretoken
