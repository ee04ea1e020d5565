#include "runtime/base/units.h"

#include <gtest/gtest.h>

#include <concepts>
#include <cstdint>

namespace foretoken {
namespace {

// What must not compile is as much a part of a unit type as what must.
template <class A, class B>
concept Addable = requires(A a, B b) {
  a + b;
};
template <class A, class B>
concept Subtractable = requires(A a, B b) {
  a - b;
};
template <class A, class B>
concept Comparable = requires(A a, B b) {
  a < b;
};

TEST(UnitsTest, OnlyMeaningfulArithmeticCompiles) {
  static_assert(std::same_as<decltype(Instant() - Instant()), Duration>);
  static_assert(std::same_as<decltype(Instant() + Duration()), Instant>);
  static_assert(!Addable<Instant, Instant>);
  static_assert(!Addable<Duration, Instant>);
  static_assert(!Addable<Duration, int64_t>);
  static_assert(!Addable<TokenCount, BlockCount>);
  static_assert(!Subtractable<TokenCount, BlockCount>);
  static_assert(!Comparable<TokenCount, BlockCount>);
  static_assert(!Comparable<Instant, Duration>);
  static_assert(!std::convertible_to<int64_t, Duration>);
  static_assert(!std::convertible_to<int64_t, Instant>);
  static_assert(!std::convertible_to<int64_t, TokenCount>);
}

TEST(UnitsTest, EachScaleIsAThousandOfTheOneBelow) {
  EXPECT_EQ(Duration::Micros(3).nanos(), 3'000);
  EXPECT_EQ(Duration::Millis(3), Duration::Micros(3'000));
  EXPECT_EQ(Duration::Seconds(3), Duration::Millis(3'000));
  EXPECT_DOUBLE_EQ(Duration::Millis(1'500).seconds(), 1.5);
}

TEST(UnitsTest, SecondsRoundToTheNearestNanosecondAwayFromZeroAtHalves) {
  EXPECT_EQ(Duration::FromNanos(0.49).nanos(), 0);
  EXPECT_EQ(Duration::FromNanos(0.5).nanos(), 1);
  EXPECT_EQ(Duration::FromNanos(1.49).nanos(), 1);
  EXPECT_EQ(Duration::FromNanos(-0.49).nanos(), 0);
  EXPECT_EQ(Duration::FromNanos(-0.5).nanos(), -1);
  EXPECT_EQ(Duration::FromNanos(-1.49).nanos(), -1);
  EXPECT_EQ(Duration::FromSeconds(0.1).nanos(), 100'000'000);  // 0.1 is not a binary fraction
  EXPECT_EQ(Duration::FromSeconds(1e-9).nanos(), 1);
  EXPECT_EQ(Duration::FromSeconds(86'400.000'000'001).nanos(), 86'400'000'000'001);
}

TEST(UnitsTest, WholeNanosecondsSurviveTheRoundTripThroughSeconds) {
  for (int64_t ns : {0LL, 1LL, 999LL, 123'456'789LL, 86'400'000'000'123LL, -5LL}) {
    EXPECT_EQ(Duration::FromSeconds(Duration::Nanos(ns).seconds()).nanos(), ns);
  }
}

TEST(UnitsTest, AnInstantMovesByADurationAndBack) {
  Instant t = Instant::FromNanos(5);
  const Instant later = t + Duration::Micros(1);
  EXPECT_EQ(later - t, Duration::Nanos(1'000));
  EXPECT_EQ(later - Duration::Micros(1), t);
  t += Duration::Micros(1);
  EXPECT_EQ(t, later);
  EXPECT_LT(t, Instant::Max());
  EXPECT_EQ(-(later - t), Duration());
}

TEST(UnitsTest, BlocksForRoundsUpAndNeverBelowTheTokens) {
  const TokenCount block_tokens(16);
  EXPECT_EQ(BlocksFor(TokenCount(0), block_tokens), BlockCount(0));
  EXPECT_EQ(BlocksFor(TokenCount(1), block_tokens), BlockCount(1));
  EXPECT_EQ(BlocksFor(TokenCount(16), block_tokens), BlockCount(1));
  EXPECT_EQ(BlocksFor(TokenCount(17), block_tokens), BlockCount(2));
  for (int64_t tokens = 0; tokens < 1'000; ++tokens) {
    for (int64_t size : {1, 3, 16}) {
      const int64_t blocks = BlocksFor(TokenCount(tokens), TokenCount(size)).value();
      EXPECT_GE(blocks * size, tokens);
      EXPECT_LT((blocks - 1) * size, tokens) << "one block fewer would do for " << tokens << " tokens of " << size;
    }
  }
}

TEST(UnitsTest, CountsAddUp) {
  TokenCount n(3);
  n += TokenCount(4);
  n -= TokenCount(2);
  EXPECT_EQ(n, TokenCount(5));
  EXPECT_EQ(TokenCount(7) - TokenCount(9), TokenCount(-2));
}

}  // namespace
}  // namespace foretoken
