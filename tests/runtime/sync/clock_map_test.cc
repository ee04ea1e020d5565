#include "runtime/sync/clock_map.h"

#include <gtest/gtest.h>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

Instant At(double seconds) { return Instant() + Duration::FromSeconds(seconds); }

TEST(ClockMapTest, WithoutAMessageItKnowsNothing) {
  ClockMap map;
  EXPECT_EQ(map.Uncertainty(At(1)), Duration::Max());
  EXPECT_FALSE(map.bounded(At(1)));
}

TEST(ClockMapTest, OffsetOfHoursDriftAndAsymmetricDelayStayWithinTheStatedBound) {
  for (const uint64_t seed : testing::Seeds(200)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Prng prng(seed);
    const double offset = prng.Between(-36'000, 36'000) + prng.Unit();
    const double ppm = prng.Between(-200, 200);
    const double forward = prng.Unit() * 0.1, backward = prng.Unit() * 0.1;
    const auto engine = [&](double t) { return At(100'000 + offset + t * (1 + ppm * 1e-6)); };
    ClockMap map;
    double narrowest = 1e9;
    for (double t = 1; t < 120; t += 0.25) {
      const double there = backward * prng.Unit(), back = forward * prng.Unit();
      map.OnEcho(At(t - 0.1), engine(t - 0.1 + there), At(t));
      map.OnReceived(engine(t), At(t + back));
      const Instant now = At(t + 0.1);
      const Duration error = map.ToRouter(engine(t), now) - At(t);
      const Duration bound = map.Uncertainty(now);
      ASSERT_LE(std::abs(error.nanos()), bound.nanos()) << "t " << t;
      narrowest = std::min(narrowest, bound.seconds());
    }
    EXPECT_LT(narrowest, 0.055) << "the bound is no excuse: half of the fastest round trips, plus drift";
  }
}

TEST(ClockMapTest, BoundsAreForgottenBeforeDriftMakesThemWrong) {
  ClockMap map;
  map.OnReceived(At(0), At(0));
  map.OnEcho(At(0), At(0), At(0));
  EXPECT_TRUE(map.bounded(At(1)));
  EXPECT_FALSE(map.bounded(At(100)));
}

}  // namespace
}  // namespace foretoken
