// Users of a closed loop: one request out per user, turns in order, thinking in between.
#include "runtime/eval/closed_loop.h"

#include <gtest/gtest.h>

#include <map>

namespace foretoken {
namespace {

Trace Sessions(const std::vector<uint64_t>& sessions, ClosedLoop loop) {
  Trace t;
  t.closed_loop = loop;
  for (const uint64_t s : sessions) {
    TraceRequest r;
    r.meta.id = RequestId(t.requests.size() + 1);
    r.meta.session = s;
    t.requests.push_back(r);
  }
  return t;
}

TEST(ClosedLoopUsersTest, NoMoreRequestsAreOutThanThereAreUsers) {
  const Trace t = Sessions({0, 0, 0, 0, 0}, {2, Duration()});
  ClosedLoopUsers users(t, 1);
  EXPECT_EQ(users.Take(), 0u);
  EXPECT_EQ(users.Take(), 1u);
  EXPECT_EQ(users.NextAt(), Instant::Max()) << "both wait for their answers";
  users.OnEnded(1, Instant() + Duration::Seconds(3));
  EXPECT_EQ(users.NextAt(), Instant() + Duration::Seconds(3));
  EXPECT_EQ(users.Take(), 2u);
}

TEST(ClosedLoopUsersTest, TurnsOfAConversationComeInOrderEachAfterItsAnswer) {
  const Trace t = Sessions({5, 6, 5, 6, 5, 0}, {2, Duration::Seconds(1)});
  ClosedLoopUsers users(t, 1);
  std::map<size_t, Instant> ended;
  Instant now;
  for (int k = 0; k < 6; ++k) {
    ASSERT_GE(users.NextAt(), now);
    now = users.NextAt();
    const size_t request = users.Take();
    if (request >= 2 && request < 5) {
      ASSERT_TRUE(ended.contains(request - 2)) << "before the turn ahead of it was answered";
      EXPECT_GT(now, ended[request - 2]) << "users think";
    }
    ended[request] = now + Duration::Seconds(2);
    users.OnEnded(request, ended[request]);
  }
  EXPECT_EQ(ended.size(), 6u);
  EXPECT_EQ(users.NextAt(), Instant::Max());
}

}  // namespace
}  // namespace foretoken
