// Properties of one faulty link: the same seed repeats, rates are what was asked for, partitions lose exactly what is sent
// while they last, and what has no reason to be reordered is not.
#include "runtime/fault/link.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

constexpr Instant kStart = Instant::FromNanos(1'000'000'000);
constexpr Duration kGap = Duration::Millis(7);  // one message per step, about

struct Arrival {
  int message = 0;
  Instant at;
};

Link MakeLink(const LinkFaults& faults, uint64_t seed) {
  Result<Link> link = Link::Make(faults, seed);
  EXPECT_TRUE(link.ok()) << (link.ok() ? "" : link.error().message);
  return std::move(link).value();
}

// Every copy of `count` messages, in the order of sending.
std::vector<Arrival> SendAll(Link& link, int count) {
  std::vector<Arrival> arrivals;
  for (int i = 0; i < count; ++i)
    for (const Instant at : link.OnMessage(kStart + kGap * i, 500)) arrivals.push_back({i, at});
  return arrivals;
}

// In the order in which a host delivers them: by time, then by sending.
std::vector<int> Delivered(std::vector<Arrival> arrivals) {
  std::stable_sort(arrivals.begin(), arrivals.end(), [](const Arrival& a, const Arrival& b) { return a.at < b.at; });
  std::vector<int> order;
  for (const Arrival& a : arrivals) order.push_back(a.message);
  return order;
}

// Five standard deviations of a binomial count: one false alarm in 1.7 million.
double Bound(int n, double p) { return 5 * std::sqrt(n * p * (1 - p)) + 1; }

// A plan with everything in it, drawn at random.
LinkFaults AnyFaults(Prng& prng) {
  LinkFaults f;
  const auto law = [&prng] {
    DelayLaw d;
    d.kind = static_cast<DelayLaw::Kind>(prng.Below(5));
    d.value = Duration::Micros(prng.Between(1, 50'000));
    d.min = Duration::Micros(prng.Between(0, 1'000));
    d.max = d.min + Duration::Micros(prng.Between(0, 90'000));
    d.deviation = Duration::Micros(prng.Between(0, 30'000));
    d.sigma = prng.Unit() * 2;
    d.shape = 0.5 + prng.Unit() * 3;
    if (d.kind == DelayLaw::Kind::kPareto || prng.Chance(0.3)) d.cap = d.value + Duration::Millis(prng.Between(0, 500));
    return d;
  };
  f.delay = law();
  f.reorder_delay = law();
  f.duplicate_delay = law();
  f.reorder_probability = prng.Chance(0.5) ? prng.Unit() : 0;
  f.duplicate_probability = prng.Chance(0.5) ? prng.Unit() : 0;
  f.drop_probability = prng.Chance(0.5) ? prng.Unit() : 0;
  if (prng.Chance(0.5)) f.burst_loss = BurstLoss{prng.Unit(), prng.Unit(), prng.Unit(), prng.Unit()};
  if (prng.Chance(0.5))
    f.partitions.push_back({kStart + Duration::Millis(prng.Between(0, 3'000)), Duration::Millis(500), Duration::Seconds(2)});
  if (prng.Chance(0.3)) f.bytes_per_second = prng.Between(1'000, 1'000'000);
  f.in_order = prng.Chance(0.3);
  return f;
}

TEST(LinkPropertyTest, AnyPlanRepeatsAndNothingArrivesBeforeItIsSent) {
  for (const uint64_t seed : testing::Seeds(200)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    Prng prng(seed);
    const LinkFaults faults = AnyFaults(prng);
    Link a = MakeLink(faults, seed), b = MakeLink(faults, seed);
    const std::vector<Arrival> first = SendAll(a, 500), second = SendAll(b, 500);
    ASSERT_EQ(first.size(), second.size());
    for (size_t i = 0; i < first.size(); ++i) {
      ASSERT_EQ(first[i].message, second[i].message);
      ASSERT_EQ(first[i].at, second[i].at);
      ASSERT_GE(first[i].at, kStart + kGap * first[i].message);
    }
    EXPECT_EQ(a.Unseed(), b.Unseed());
    const LinkCounters& c = a.counters();
    EXPECT_EQ(c.sent, 500u);
    EXPECT_EQ(first.size(), c.sent - c.dropped - c.burst_lost - c.partitioned + c.duplicated) << "every copy is accounted for";
    const bool sorted = std::is_sorted(first.begin(), first.end(), [](auto& x, auto& y) { return x.at < y.at; });
    EXPECT_TRUE(sorted || !faults.in_order);
  }
}

TEST(LinkPropertyTest, OrderHoldsWhereNothingReorders) {
  for (const uint64_t seed : testing::Seeds(20)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    LinkFaults f;
    f.delay.value = Duration::Millis(500);
    f.drop_probability = 0.2;
    Link link = MakeLink(f, seed);
    const std::vector<Arrival> arrivals = SendAll(link, 2'000);
    const std::vector<int> order = Delivered(arrivals);
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
    for (const Arrival& a : arrivals) EXPECT_EQ(a.at, kStart + kGap * a.message + Duration::Millis(500));
  }
}

TEST(LinkTest, FaultsHappenWithinTheirWindowOnly) {
  LinkFaults f;
  f.drop_probability = 1;
  f.active = {Instant() + Duration::Seconds(1), Duration::Seconds(2), std::nullopt};
  auto link = Link::Make(f, 1);
  for (const int64_t ms : {0, 999, 1000, 2999, 3000, 9000}) {
    const Instant at = Instant() + Duration::Millis(ms);
    const Deliveries d = link->OnMessage(at, 100);
    const bool inside = ms >= 1000 && ms < 3000;
    EXPECT_EQ(d.size(), inside ? 0u : 1u) << ms;
    if (!inside) {
      EXPECT_EQ(d[0], at) << ms;
    }
  }
}

TEST(LinkTest, WithoutFaultsEveryMessageArrivesAtOnce) {
  Link link = MakeLink({}, 1);
  for (int i = 0; i < 100; ++i) {
    const Deliveries d = link.OnMessage(kStart + kGap * i, 1'000'000);
    ASSERT_EQ(d.size(), 1u);
    EXPECT_EQ(d[0], kStart + kGap * i);
  }
}

TEST(LinkTest, OtherSeedsGiveOtherFaults) {
  LinkFaults f;
  f.drop_probability = 0.5;
  Link a = MakeLink(f, 1), b = MakeLink(f, 2);
  EXPECT_NE(Delivered(SendAll(a, 200)), Delivered(SendAll(b, 200)));
}

TEST(LinkTest, EachLinkOfARunHasASeedOfItsOwn) {
  const LinkEnd a{LinkRole::kInstance, "h100-0"}, b{LinkRole::kInstance, "h100-1"}, sim{LinkRole::kSimulator, "h100-0"};
  EXPECT_EQ(LinkSeed(5, a, sim), LinkSeed(5, a, sim));
  EXPECT_NE(LinkSeed(5, a, sim), LinkSeed(6, a, sim));
  EXPECT_NE(LinkSeed(5, a, sim), LinkSeed(5, b, sim));
  EXPECT_NE(LinkSeed(5, a, sim), LinkSeed(5, sim, a)) << "the two directions differ";
}

TEST(LinkPropertyTest, RatesAreWhatWasAskedFor) {
  constexpr int kMessages = 20'000;
  for (const uint64_t seed : testing::Seeds(10)) {
    for (const double p : {0.01, 0.1, 0.5}) {
      SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed) + " p=" + std::to_string(p));
      LinkFaults drop, twice, late;
      drop.drop_probability = twice.duplicate_probability = late.reorder_probability = p;
      late.reorder_delay.value = kGap * 3;
      Link dropping = MakeLink(drop, seed), doubling = MakeLink(twice, seed), holding = MakeLink(late, seed);
      const double lost = kMessages - static_cast<double>(SendAll(dropping, kMessages).size());
      EXPECT_NEAR(lost, kMessages * p, Bound(kMessages, p));
      const double extra = static_cast<double>(SendAll(doubling, kMessages).size()) - kMessages;
      EXPECT_NEAR(extra, kMessages * p, Bound(kMessages, p));
      const std::vector<Arrival> arrivals = SendAll(holding, kMessages);
      const auto held =
          std::count_if(arrivals.begin(), arrivals.end(), [](const Arrival& a) { return a.at > kStart + kGap * a.message; });
      EXPECT_NEAR(static_cast<double>(held), kMessages * p, Bound(kMessages, p));
      const std::vector<int> order = Delivered(arrivals);
      EXPECT_FALSE(std::is_sorted(order.begin(), order.end())) << "what is held back is overtaken";
    }
  }
}

TEST(LinkPropertyTest, LossInBurstsHasTheLengthAndTheShareOfItsChain) {
  constexpr int kMessages = 200'000;
  LinkFaults f;
  f.burst_loss = BurstLoss{.enter = 0.01, .leave = 0.2, .loss_good = 0, .loss_bad = 1};
  for (const uint64_t seed : testing::Seeds(5)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    Link link = MakeLink(f, seed);
    int lost = 0, bursts = 0;
    bool before = false;
    for (int i = 0; i < kMessages; ++i) {
      const bool now_lost = link.OnMessage(kStart + kGap * i, 1).empty();
      lost += now_lost;
      bursts += now_lost && !before;
      before = now_lost;
    }
    // The chain is bad for enter / (enter + leave) of the time, and 1 / leave messages at a stretch.
    EXPECT_NEAR(static_cast<double>(lost) / kMessages, 0.01 / 0.21, 0.006);
    EXPECT_NEAR(static_cast<double>(lost) / bursts, 5, 0.6);
  }
}

TEST(LinkTest, APartitionLosesExactlyWhatIsSentWhileItLasts) {
  LinkFaults f;
  f.delay.value = Duration::Seconds(3);  // longer than the partition: what counts is the time of sending
  f.partitions.push_back({Instant::FromNanos(10'000'000'000), Duration::Seconds(1), std::nullopt});
  Link link = MakeLink(f, 1);
  const auto arrives = [&link](double seconds) {
    return !link.OnMessage(Instant() + Duration::FromSeconds(seconds), 1).empty();
  };
  EXPECT_TRUE(arrives(9.999999999));
  EXPECT_FALSE(arrives(10));
  EXPECT_FALSE(arrives(10.999999999));
  EXPECT_TRUE(arrives(11));
  EXPECT_TRUE(arrives(100));
  EXPECT_EQ(link.counters().partitioned, 2u);
}

TEST(LinkTest, APeriodicPartitionComesBack) {
  LinkFaults f;
  f.partitions.push_back({Instant() + Duration::Seconds(10), Duration::Seconds(1), Duration::Seconds(5)});
  Link link = MakeLink(f, 1);
  for (int ms = 0; ms < 60'000; ms += 100) {
    const bool inside = ms >= 10'000 && (ms - 10'000) % 5'000 < 1'000;
    EXPECT_EQ(link.OnMessage(Instant() + Duration::Millis(ms), 1).empty(), inside) << ms << " ms";
  }
}

TEST(LinkTest, APartitionDoesNotChangeWhatElseIsLost) {
  LinkFaults lossy;
  lossy.drop_probability = 0.3;
  lossy.delay = {.kind = DelayLaw::Kind::kUniform, .min = Duration(), .max = kGap};
  LinkFaults both = lossy;
  both.partitions.push_back({kStart + kGap * 1'000, kGap * 1'000, std::nullopt});
  Link a = MakeLink(lossy, 9), b = MakeLink(both, 9);
  for (int i = 0; i < 5'000; ++i) {
    const bool alone = a.OnMessage(kStart + kGap * i, 1).empty();
    const bool partitioned = b.OnMessage(kStart + kGap * i, 1).empty();
    EXPECT_EQ(partitioned, alone || (i >= 1'000 && i < 2'000)) << i;
  }
}

TEST(LinkTest, ANarrowWireMakesMessagesQueue) {
  LinkFaults f;
  f.bytes_per_second = 1'000;
  Link link = MakeLink(f, 1);
  EXPECT_EQ(link.OnMessage(kStart, 500)[0], kStart + Duration::Millis(500));
  EXPECT_EQ(link.OnMessage(kStart, 500)[0], kStart + Duration::Millis(1'000)) << "waits for the one before";
  EXPECT_EQ(link.OnMessage(kStart + Duration::Seconds(9), 500)[0], kStart + Duration::Millis(9'500))
      << "the wire is free again";
}

TEST(LinkTest, TheSkewedClockIsOffAndDrifts) {
  const ClockSkew skew{Duration::Millis(-20), 100};  // 100 ppm: 100 us per second
  EXPECT_EQ(skew.At(Instant()), Instant() - Duration::Millis(20));
  EXPECT_EQ(skew.At(Instant() + Duration::Seconds(10)),
            Instant() + Duration::Seconds(10) - Duration::Millis(20) + Duration::Millis(1));
}

TEST(DelayLawTest, DrawsHaveTheirLawsShapeAndNeverAreNegative) {
  struct Case {
    const char* name;
    DelayLaw law;
    double median_ms;
    double tolerance_ms;
  };
  using Kind = DelayLaw::Kind;
  const auto ms = [](int64_t n) { return Duration::Millis(n); };
  const Case cases[] = {
      {"constant", {.value = ms(7)}, 7, 1e-9},
      {"uniform", {.kind = Kind::kUniform, .min = ms(10), .max = ms(30)}, 20, 0.5},
      {"normal", {.kind = Kind::kNormal, .value = ms(50), .deviation = ms(10)}, 50, 0.5},
      {"lognormal", {.kind = Kind::kLogNormal, .value = ms(5), .sigma = 1.5}, 5, 0.3},
      // Median of a Pareto: scale * 2^(1/shape).
      {"pareto", {.kind = Kind::kPareto, .value = ms(4), .shape = 2, .cap = ms(100)}, 4 * std::sqrt(2.0), 0.15},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Prng prng(11);
    std::vector<double> draws;
    for (int i = 0; i < 20'001; ++i) draws.push_back(Draw(c.law, prng).seconds() * 1e3);
    std::sort(draws.begin(), draws.end());
    EXPECT_GE(draws.front(), 0);
    EXPECT_NEAR(draws[10'000], c.median_ms, c.tolerance_ms);
    EXPECT_LE(draws.back(), c.law.cap.value_or(Duration::Seconds(1'000)).seconds() * 1e3 + 1e-9);
  }
  Prng prng(3);
  const DelayLaw wild{.kind = Kind::kNormal, .value = ms(1), .deviation = ms(100)};
  for (int i = 0; i < 1'000; ++i) EXPECT_GE(Draw(wild, prng), Duration());
}

}  // namespace
}  // namespace foretoken
