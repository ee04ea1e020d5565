// The generator's numbers are part of the product: a recorded run must replay on another machine and another standard
// library. Moments are checked against their known values within 6 standard errors (a fixed seed set: no flakes).
#include "runtime/base/prng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

TEST(PrngTest, TheSameSeedGivesTheSameNumbersInEveryDraw) {
  Prng a(42), b(42);
  for (int i = 0; i < 1'000; ++i) {
    ASSERT_EQ(a.Next(), b.Next());
    ASSERT_EQ(a.Below(1 + i), b.Below(1 + i));
    ASSERT_EQ(a.Normal(), b.Normal());
    ASSERT_EQ(a.Gamma(0.4, 2), b.Gamma(0.4, 2));
  }
  EXPECT_EQ(a.Next(), b.Next());
}

TEST(PrngTest, SeedsAndStreamsGiveDifferentNumbers) {
  std::set<uint64_t> first;
  for (uint64_t seed = 0; seed < 1'000; ++seed) first.insert(Prng(seed).Next());
  for (uint64_t stream = 0; stream < 1'000; ++stream) first.insert(Prng::ForStream(0, stream).Next());
  EXPECT_EQ(first.size(), 2'000u);
}

// xoshiro256++ written again from its definition (prng.di.unimi.it/xoshiro256plusplus.c), seeded by SplitMix64: guards the
// golden below against having frozen a bug.
TEST(PrngTest, FollowsTheDefinitionOfXoshiro256PlusPlusSeededBySplitMix64) {
  for (uint64_t seed : {0ull, 1ull, 0xDEADBEEFull, ~0ull}) {
    uint64_t state[4], x = seed;
    for (uint64_t& s : state) {
      uint64_t z = (x += 0x9e3779b97f4a7c15);
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
      z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
      s = z ^ (z >> 31);
    }
    const auto rotl = [](uint64_t v, int k) { return (v << k) | (v >> (64 - k)); };
    Prng prng(seed);
    for (int i = 0; i < 100; ++i) {
      const uint64_t expected = rotl(state[0] + state[3], 23) + state[0];
      const uint64_t t = state[1] << 17;
      state[2] ^= state[0];
      state[3] ^= state[1];
      state[1] ^= state[2];
      state[0] ^= state[3];
      state[2] ^= t;
      state[3] = rotl(state[3], 45);
      ASSERT_EQ(prng.Next(), expected) << "seed " << seed << ", draw " << i;
    }
  }
}

TEST(PrngTest, GoldenFirstNumbers) {
  Prng prng(1);
  EXPECT_EQ(prng.Next(), 0xCFC5D07F6F03C29Bull);
  EXPECT_EQ(prng.Next(), 0xBF424132963FE08Dull);
  EXPECT_EQ(prng.Below(1'000), 744u);
  EXPECT_DOUBLE_EQ(prng.Unit(), 0.74621687061681041);
  EXPECT_DOUBLE_EQ(prng.Normal(), -0.53850916045685604);
  EXPECT_DOUBLE_EQ(prng.Gamma(2.5, 1.0), 2.9369596382431835);
  EXPECT_DOUBLE_EQ(NormalAt(1, 2), 1.2938302163786066);
  EXPECT_EQ(Mix64(1, 2), 0xE06DD043328BD285ull);
}

TEST(PrngTest, UnitStaysBelowOneForEveryBitPattern) {
  EXPECT_EQ(UnitFrom(0), 0.0);
  EXPECT_LT(UnitFrom(~0ull), 1.0);
}

TEST(PrngTest, BelowAndBetweenStayInRangeAndReachBothEnds) {
  for (const uint64_t seed : testing::Seeds(5)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    std::set<uint64_t> below;
    std::set<int64_t> between;
    for (int i = 0; i < 2'000; ++i) {
      below.insert(prng.Below(7));
      between.insert(prng.Between(-3, 3));
    }
    EXPECT_EQ(below.size(), 7u);
    EXPECT_EQ(*below.rbegin(), 6u);
    EXPECT_EQ(*between.begin(), -3);
    EXPECT_EQ(*between.rbegin(), 3);
    EXPECT_EQ(prng.Below(1), 0u);
    EXPECT_EQ(prng.Between(5, 5), 5);
    int negative = 0;
    for (int i = 0; i < 100; ++i) negative += prng.Between(INT64_MIN, INT64_MAX) < 0;
    EXPECT_GT(negative, 20) << "the widest range";
    EXPECT_LT(negative, 80) << "the widest range";
    EXPECT_LE(prng.Between(INT64_MIN, INT64_MIN + 1), INT64_MIN + 1);
  }
}

TEST(PrngTest, BelowIsUnbiasedWhereTheModuloOfAPlainDrawIsNot) {
  // n = 3/4 of 2^64: x % n would give the lower third twice as often as the rest.
  const uint64_t n = 3ull << 62;
  Prng prng(9);
  int low = 0;
  const int draws = 30'000;
  for (int i = 0; i < draws; ++i) low += prng.Below(n) < n / 3;
  EXPECT_NEAR(low / static_cast<double>(draws), 1 / 3.0, 6 * std::sqrt(2.0 / 9 / draws));
}

struct Law {
  std::string name;
  double mean, variance, fourth;  // fourth: central moment, for the variance's own standard error; 0: not checked
  std::function<double(Prng&)> draw;
};

std::vector<Law> Laws() {
  const auto gamma4 = [](double k, double s) { return s * s * s * s * k * (3 * k + 6); };
  return {
      {"Unit", 0.5, 1 / 12.0, 1 / 80.0, [](Prng& p) { return p.Unit(); }},
      {"Below(10)", 4.5, 8.25, 120.8625, [](Prng& p) { return static_cast<double>(p.Below(10)); }},
      {"Between(-2, 2)", 0, 2, 6.8, [](Prng& p) { return static_cast<double>(p.Between(-2, 2)); }},
      {"Chance(0.3)", 0.3, 0.21, 0.0777, [](Prng& p) { return p.Chance(0.3) ? 1.0 : 0.0; }},
      {"Exponential(3)", 3, 9, 9 * 81, [](Prng& p) { return p.Exponential(3); }},
      {"Normal", 0, 1, 3, [](Prng& p) { return p.Normal(); }},
      {"log of LogNormal(1, 0.5)", 1, 0.25, 3 / 16.0, [](Prng& p) { return std::log(p.LogNormal(1, 0.5)); }},
      // scale^-shape law: shape 5 keeps its variance finite, mean = a/(a-1), variance = a/((a-1)^2 (a-2))
      {"Pareto(1, 5)", 1.25, 5 / 48.0, 0, [](Prng& p) { return p.Pareto(1, 5); }},
      {"Gamma(2.5, 2)", 5, 10, gamma4(2.5, 2), [](Prng& p) { return p.Gamma(2.5, 2); }},
      {"Gamma(0.4, 2)", 0.8, 1.6, gamma4(0.4, 2), [](Prng& p) { return p.Gamma(0.4, 2); }},
      {"Gamma(1, 1)", 1, 1, gamma4(1, 1), [](Prng& p) { return p.Gamma(1, 1); }},
  };
}

TEST(PrngTest, EveryDistributionHasItsKnownMeanAndVariance) {
  const int n = 50'000;
  for (const uint64_t seed : testing::Seeds(3)) {
    for (const Law& law : Laws()) {
      SCOPED_TRACE(law.name + ", seed " + std::to_string(seed));
      Prng prng(seed);
      std::vector<double> xs(n);
      std::generate(xs.begin(), xs.end(), [&] { return law.draw(prng); });
      const double mean = std::accumulate(xs.begin(), xs.end(), 0.0) / n;
      double squares = 0;
      for (double x : xs) squares += (x - law.mean) * (x - law.mean);
      EXPECT_NEAR(mean, law.mean, 6 * std::sqrt(law.variance / n));
      if (law.fourth > 0) {
        EXPECT_NEAR(squares / n, law.variance, 6 * std::sqrt((law.fourth - law.variance * law.variance) / n));
      }
    }
  }
}

TEST(PrngTest, NormalAtDependsOnItsPositionOnlyAndIsNormal) {
  const int n = 50'000;
  double sum = 0, squares = 0, neighbours = 0, before = 0;
  for (int i = 0; i < n; ++i) {
    const double x = NormalAt(7, i);
    ASSERT_EQ(x, NormalAt(7, i));
    sum += x;
    squares += x * x;
    neighbours += x * before;
    before = x;
  }
  EXPECT_NEAR(sum / n, 0, 6 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 6 * std::sqrt(2.0 / n));
  EXPECT_NEAR(neighbours / n, 0, 6 / std::sqrt(n)) << "neighbouring positions are correlated";
}

TEST(PrngTest, ShuffleKeepsTheItemsAndReachesEveryOrderEquallyOften) {
  Prng prng(3);
  std::vector<int> orders(6);
  const int n = 12'000;
  for (int i = 0; i < n; ++i) {
    std::vector<int> v = {0, 1, 2};
    prng.Shuffle(v);
    ASSERT_EQ(std::set<int>(v.begin(), v.end()).size(), 3u);
    ++orders[v[0] * 2 + (v[1] > v[2])];
  }
  for (int count : orders) EXPECT_NEAR(count, n / 6.0, 6 * std::sqrt(n / 6.0));
}

TEST(PrngDeathTest, AskingForANumberBelowZeroIsABug) {
  Prng prng(1);
  EXPECT_DEATH(prng.Below(0), "n > 0");
  EXPECT_DEATH(prng.Between(2, 1), "lo <= hi");
}

}  // namespace
}  // namespace foretoken
