#include "runtime/sched/slo_headroom.h"

#include <gtest/gtest.h>

namespace foretoken {
namespace {

// `load` by the law: every token takes a / (1 - load / instances).
FleetLoad At(double load, int32_t instances) {
  FleetLoad l;
  l.slo = {Duration::Seconds(1), Duration::Millis(50)};
  l.arrivals_per_second = l.decisions_per_second = 10;
  l.decisions = 100;
  l.instances = l.mirrored = instances;
  l.step_alone_s = 0.010;
  l.mean_tpot_s = l.step_alone_s / (1 - load / instances);
  l.mean_e2e_s = 5;
  l.held = l.arrivals_per_second * l.mean_e2e_s;
  return l;
}

TEST(SloHeadroomTest, NeedsTheSameWhateverIsThere) {
  // 3.2 instances' time of work; the target allows .8 x (1 - 10/50) = .64 of each: 5 are needed.
  for (const int32_t there : {4, 5, 6, 8, 16}) EXPECT_NEAR(HeadroomOf(At(3.2, there)).instances_needed, 5, 1e-9) << there;
  EXPECT_NEAR(HeadroomOf(At(3.2, 10)).headroom, 0.5, 1e-9);
  EXPECT_LT(HeadroomOf(At(3.2, 4)).headroom, 0);
}

TEST(SloHeadroomTest, GrowsInProportionToArrivals) {
  EXPECT_NEAR(HeadroomOf(At(1.6, 8)).instances_needed * 2, HeadroomOf(At(3.2, 8)).instances_needed, 1e-9);
}

TEST(SloHeadroomTest, ReckonsWithArrivalsThatAreNotUnderWayYet) {
  FleetLoad l = At(3.2, 8);
  l.held /= 1.25;
  EXPECT_NEAR(HeadroomOf(l).instances_needed, 6.25, 1e-9);
}

TEST(SloHeadroomTest, MissedTargetsAskForMoreAndNearlyMissedOnesForNoFewer) {
  FleetLoad l = At(0.8, 8);
  ASSERT_LT(HeadroomOf(l).instances_needed, 2);
  l.mean_violation = 0.07;
  EXPECT_EQ(HeadroomOf(l).instances_needed, 8);
  l.mean_violation = 0.5;
  EXPECT_NEAR(HeadroomOf(l).instances_needed, 8 * 1.4, 1e-9);
}

TEST(SloHeadroomTest, RefusedRequestsCountAsMissed) {
  FleetLoad l = At(0.8, 4);
  l.decisions_per_second = 5;
  EXPECT_NEAR(HeadroomOf(l).missed, 0.5, 1e-9);
  EXPECT_GT(HeadroomOf(l).instances_needed, 4);
}

TEST(SloHeadroomTest, SaysNothingOfWhatIsNotKnown) {
  FleetLoad l = At(3.2, 8);
  l.decisions = 3;
  EXPECT_FALSE(HeadroomOf(l).known);
  l = At(3.2, 8);
  l.mirrored = 0;
  EXPECT_FALSE(HeadroomOf(l).known);
  EXPECT_FALSE(HeadroomOf(FleetLoad()).known);
}

TEST(SloHeadroomTest, AQuietFleetNeedsOne) {
  FleetLoad l = At(0, 8);
  l.arrivals_per_second = l.decisions_per_second = 0;
  l.decisions = 0;
  l.mean_tpot_s = l.mean_e2e_s = 0;
  EXPECT_TRUE(HeadroomOf(l).known);
  EXPECT_EQ(HeadroomOf(l).instances_needed, 1);
}

TEST(SloHeadroomTest, GrowsToTwiceAtMost) {
  FleetLoad l = At(3.9, 4);
  l.mean_violation = 1;
  EXPECT_LE(HeadroomOf(l).instances_needed, 8);
}

}  // namespace
}  // namespace foretoken
