#include "runtime/sched/slo_headroom.h"

#include <gtest/gtest.h>

#include <cmath>

namespace foretoken {
namespace {

// A step takes 10 ms and what requests bring: 20 us a prompt token, 10 us a sequence.
FleetLoad Of(double arrivals, int32_t instances) {
  FleetLoad l;
  l.slo = {Duration::Seconds(1), Duration::Millis(50)};
  l.arrivals_per_second = l.decisions_per_second = arrivals;
  l.decisions = l.finished = 100;
  l.mean_prompt_tokens = l.mean_computed = 1000;
  l.mean_computed_squared = 1e6;
  l.computed[10] = 1;
  l.mean_output_tokens = 101;
  l.instances = instances;
  l.engines.assign(static_cast<size_t>(instances), {StepCost{0.010, 20e-6, 10e-6, 0}, 0});
  return l;
}

// w = 1000 x 20 us + 100 x 10 us = 21 ms; the TPOT target allows .8 x (1 - 10/50) = .64 of an instance's time.
constexpr double kPerInstance = 0.64 / 0.021;

SloHeadroom First(const FleetLoad& l) {
  Headroom h;
  return h.Look(l, Instant() + Duration::Seconds(100));
}

TEST(SloHeadroomTest, NeedsTheSameWhateverIsThere) {
  for (const int32_t there : {4, 5, 6, 8}) EXPECT_NEAR(First(Of(5 * kPerInstance, there)).instances_needed, 5, 1e-9) << there;
  EXPECT_NEAR(First(Of(5 * kPerInstance, 10)).headroom, 0.5, 1e-9);
  EXPECT_LT(First(Of(5 * kPerInstance, 4)).headroom, 0);
  EXPECT_NEAR(First(Of(5 * kPerInstance, 8)).load, 5 * 0.64 / 8, 1e-9);
  EXPECT_NEAR(First(Of(5 * kPerInstance, 8)).load_at_target, 0.64, 1e-9);
}

TEST(SloHeadroomTest, PromptsCountAsMuchAsOutputs) {
  FleetLoad l = Of(60, 4);
  const double before = First(l).instances_needed;
  l.mean_prompt_tokens = l.mean_computed = 2000;  // w: 21 -> 41 ms
  l.mean_computed_squared = 4e6;
  EXPECT_NEAR(First(l).instances_needed / before, 41.0 / 21.0, 1e-9);
  l.mean_computed = 1000;  // half of it is cached
  l.mean_computed_squared = 1e6;
  EXPECT_NEAR(First(l).instances_needed, before, 1e-9);
}

TEST(SloHeadroomTest, LongPromptsWaitForOneAnother) {
  FleetLoad l = Of(1, 2);
  l.mean_prompt_tokens = l.mean_computed = 15'000;  // .3 s each
  l.mean_computed_squared = 2 * 15e3 * 15e3;
  // R = .3 s, ln(1/.1) = 2.3, left of the target .69 s, two instances: x w <= 1 - .3 x 2.3 / (2 x .69) = .5
  EXPECT_NEAR(First(l).load_at_target, 0.8 * (1 - 0.3 * std::log(10) / (2 * 0.69)), 1e-9);
}

TEST(SloHeadroomTest, ContextMustFitTheCache) {
  FleetLoad l = Of(20, 4);
  const double before = First(l).instances_needed;
  // 1050.5 tokens for 100 outputs of 10 ms and more: a rate x holds x 1050.5 / (1 - .021 x) of the cache.
  for (FleetLoad::Engine& e : l.engines) e.kv_tokens = 10'000;
  const double rate = 9000 / (1050.5 + 9000 * 0.021);
  EXPECT_LT(rate, kPerInstance);
  EXPECT_NEAR(First(l).instances_needed, 20 / rate, 1e-9);
  EXPECT_GT(First(l).instances_needed, before);
}

TEST(SloHeadroomTest, MissesAskForMoreWhateverTheLawSays) {
  FleetLoad l = Of(kPerInstance, 8);
  EXPECT_NEAR(First(l).instances_needed, 1, 1e-9);
  l.mean_violation = 0.05;  // what is aimed at
  EXPECT_NEAR(First(l).instances_needed, 8, 1e-9);
  l.mean_violation = 0.4;
  EXPECT_NEAR(First(l).instances_needed, 16, 1e-9);
  l.mean_violation = 0.05 / 256;  // far below it: some fewer, by a careful law
  EXPECT_NEAR(First(l).instances_needed, 4, 1e-9);
  l.mean_violation = 0;
  l.missed = 0.1;  // it was predicted too well
  EXPECT_NEAR(First(l).instances_needed, 8 * std::cbrt(2), 1e-9);
}

TEST(SloHeadroomTest, RefusedRequestsCountAsMissed) {
  FleetLoad l = Of(kPerInstance, 4);
  l.decisions_per_second = l.arrivals_per_second / 2;
  EXPECT_NEAR(First(l).missed, 0.5, 1e-9);
  EXPECT_NEAR(First(l).instances_needed, 8, 1e-9);
}

TEST(SloHeadroomTest, WhatAnIdleEngineWouldMissAsksForNothing) {
  FleetLoad l = Of(kPerInstance, 8);
  l.computed[10] = 0.8;
  l.computed[18] = 0.2;  // 131072 tokens and more: 2.6 s
  l.mean_violation = 0.2;
  EXPECT_NEAR(First(l).hopeless, 0.2, 1e-9);
  EXPECT_NEAR(First(l).instances_needed, 1, 1e-9);
}

TEST(SloHeadroomTest, MissesAreThoseOfAsManyInstancesAsWereThere) {
  Headroom h;
  Instant now = Instant() + Duration::Seconds(100);
  FleetLoad l = Of(4 * kPerInstance, 3);
  l.mean_violation = 0.4;
  EXPECT_NEAR(h.Look(l, now).instances_needed, 6, 1e-9);
  // Six are there now, and most of the last seconds' requests were decided when there were three: not twelve.
  l.instances = 6;
  l.engines.resize(6, l.engines.front());
  EXPECT_LT(h.Look(l, now + Duration::Seconds(1)).instances_needed, 6.5);
}

TEST(SloHeadroomTest, ABurstOfASecondIsNoLoad) {
  Headroom h;
  Instant now = Instant() + Duration::Seconds(100);
  h.Look(Of(kPerInstance, 4), now);
  EXPECT_LT(h.Look(Of(4 * kPerInstance, 4), now + Duration::Seconds(1)).instances_needed, 1.2);
  SloHeadroom last;
  for (int s = 2; s < 120; ++s) last = h.Look(Of(4 * kPerInstance, 4), now + Duration::Seconds(s));
  EXPECT_NEAR(last.instances_needed, 4, 0.1);
}

TEST(SloHeadroomTest, SaysNothingOfWhatIsNotKnown) {
  FleetLoad l = Of(60, 4);
  l.decisions = 3;
  EXPECT_FALSE(First(l).known);
  l = Of(60, 4);
  l.finished = 3;
  EXPECT_FALSE(First(l).known);
  l = Of(60, 4);
  l.engines.clear();
  EXPECT_FALSE(First(l).known);
  EXPECT_FALSE(First(FleetLoad()).known);
}

TEST(SloHeadroomTest, AQuietFleetNeedsOne) {
  FleetLoad l;
  l.slo = {Duration::Seconds(1), Duration::Millis(50)};
  l.instances = 8;
  EXPECT_TRUE(First(l).known);
  EXPECT_EQ(First(l).instances_needed, 1);
}

TEST(SloHeadroomTest, GrowsToTwiceAtMost) { EXPECT_NEAR(First(Of(40 * kPerInstance, 4)).instances_needed, 8, 1e-9); }

}  // namespace
}  // namespace foretoken
