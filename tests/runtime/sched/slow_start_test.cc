// How far an instance that joins is trusted: its window, the probes it gets, and when it has joined.
#include "runtime/sched/slow_start.h"

#include <gtest/gtest.h>

#include <string>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

constexpr InstanceId kOld{0}, kNew{1};

Instant At(double s) { return Instant() + Duration::Seconds(100) + Duration::FromSeconds(s); }

Prediction Predicted(double ttft_s, double tpot_s) {
  Prediction p;
  p.ttft = Duration::FromSeconds(ttft_s);
  p.tpot = Duration::FromSeconds(tpot_s);
  return p;
}

// One request at `instance` from `at` on, predicted `ratio` times what it then takes (TTFT 1 s, 100 tokens, 20 ms a token).
void RunOne(SlowStart& s, uint64_t id, InstanceId instance, double ratio, double at) {
  const Prediction p = Predicted(ratio, ratio * 0.02);
  s.OnAssigned(RequestId(id), instance, &p, false, At(at));
  s.OnFirstToken(RequestId(id), At(at + 1));
  s.OnFinished(RequestId(id), 101, At(at + 3));
}

TEST(SlowStartTest, TheWindowGrowsWithPredictionsThatComeTrueUntilItHasJoined) {
  SlowStart s;
  s.Begin(kNew, At(0));
  EXPECT_TRUE(s.Open(kNew, 1));
  EXPECT_FALSE(s.Open(kNew, 2));
  EXPECT_TRUE(s.Open(kOld, 1'000));
  RunOne(s, 1, kNew, 1.05, 0);
  EXPECT_TRUE(s.Open(kNew, 5));
  EXPECT_FALSE(s.Open(kNew, 6));
  for (uint64_t id = 2; id <= 4; ++id) RunOne(s, id, kNew, 0.95, static_cast<double>(id));
  EXPECT_FALSE(s.active());
  EXPECT_EQ(s.counters().confirmed, 1u);
  EXPECT_TRUE(s.Open(kNew, 1'000));
}

TEST(SlowStartTest, OneThatIsPredictedWrongIsHeldBackUntilPatienceEnds) {
  SlowStart s;
  s.Begin(kNew, At(0));
  for (uint64_t id = 1; id <= 10; ++id) RunOne(s, id, kNew, 3, static_cast<double>(id));
  EXPECT_TRUE(s.active());
  EXPECT_FALSE(s.Open(kNew, 8));
  RunOne(s, 11, kNew, 3, 60);
  EXPECT_FALSE(s.active());
  EXPECT_EQ(s.counters().unconfirmed, 1u);
}

TEST(SlowStartTest, NoBetterThanTheOthersIsGoodEnough) {
  SlowStart s;
  s.Begin(kNew, At(0));
  for (uint64_t id = 1; id <= 20; ++id) RunOne(s, id, kOld, 1.8, static_cast<double>(id));
  for (uint64_t id = 21; id <= 24; ++id) RunOne(s, id, kNew, 1.8, static_cast<double>(id));
  EXPECT_EQ(s.counters().confirmed, 1u);
}

TEST(SlowStartTest, ItIsProbedFromTimeToTimeAndNotByEveryRequest) {
  SlowStart s;
  s.Begin(kNew, At(0));
  const Prediction p = Predicted(1, 0.02);
  int probes = 0;
  // Requests one after the other, 50 ms apart, which the policy gives to the other one.
  for (uint64_t id = 1; id <= 200; ++id) {
    const Instant now = At(0.05 * static_cast<double>(id));
    const bool probe = s.ProbeDue(kNew, 0, now).has_value();
    probes += probe;
    s.OnAssigned(RequestId(id), probe ? kNew : kOld, &p, probe, now);
  }
  EXPECT_GE(probes, 30);
  EXPECT_LE(probes, 50);  // a quarter of the requests at most
}

TEST(SlowStartTest, WhatEndsOtherwiseTeachesNothing) {
  SlowStart s;
  s.Begin(kNew, At(0));
  const Prediction p = Predicted(1, 0.02);
  for (uint64_t id = 1; id <= 50; ++id) {
    s.OnAssigned(RequestId(id), kNew, id % 2 == 0 ? &p : nullptr, false, At(1));
    s.OnGone(RequestId(id));
    s.OnFirstToken(RequestId(id), At(2));
    s.OnFinished(RequestId(id), 100, At(3));
  }
  EXPECT_EQ(s.window(kNew), 2.0);
}

// Over random histories: a window is never below the first, the number of joining instances is what was begun and has not ended, and
// everything that goes on being tried joins in the end.
TEST(SlowStartTest, EveryInstanceThatIsTriedJoinsInTheEnd) {
  for (const uint64_t seed : testing::Seeds(200)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng = Prng::ForStream(seed, 1);
    SlowStart s;
    const double bias = std::exp2(prng.Between(-20, 20) / 10.0);
    for (uint32_t i = 0; i < 4; ++i) s.Begin(InstanceId(i), At(0));
    uint64_t id = 0;
    for (double at = 0; at < 200; at += 1) {
      for (uint32_t i = 0; i < 4; ++i) RunOne(s, ++id, InstanceId(i), bias * (0.7 + 0.6 * prng.Unit()), at);
      for (uint32_t i = 0; i < 4; ++i) EXPECT_GE(s.window(InstanceId(i)).value_or(2), 2.0);
      if (at < 40 && prng.Chance(0.05)) s.Begin(InstanceId(static_cast<uint32_t>(prng.Below(4))), At(at));  // restarted
    }
    EXPECT_FALSE(s.active());
  }
}

}  // namespace
}  // namespace foretoken
