// A fault plan names links and instances by patterns; what breaks a rule is refused before it runs.
#include "runtime/fault/fault_plan.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/fault/link.h"

namespace foretoken {
namespace {

using Kind = DelayLaw::Kind;

TEST(PatternTest, StarsStandForAnyRunAndQuestionMarksForOne) {
  EXPECT_TRUE(MatchesPattern("*", ""));
  EXPECT_TRUE(MatchesPattern("h100-*", "h100-12"));
  EXPECT_TRUE(MatchesPattern("*-0", "h100-0"));
  EXPECT_FALSE(MatchesPattern("*-0", "h100-10-1"));
  EXPECT_TRUE(MatchesPattern("h?00-?", "h200-3"));
  EXPECT_FALSE(MatchesPattern("h?00-?", "h200-13"));
  EXPECT_TRUE(MatchesPattern("*a*b*", "xxaxxaxxbxx")) << "a star may have to give back what it took";
  EXPECT_FALSE(MatchesPattern("", "x"));
  EXPECT_FALSE(MatchesPattern("h100", "h100-0"));
}

TEST(FaultPlanTest, TheFirstRuleThatFitsALinkHolds) {
  FaultPlan plan;
  plan.links.resize(3);
  plan.links[0].from_name = "h100-0";
  plan.links[0].faults.drop_probability = 0.5;
  plan.links[1].faults.drop_probability = 0.1;  // instance -> simulator, the default direction
  plan.links[2].from = std::nullopt;
  plan.links[2].to = LinkRole::kInstance;
  plan.links[2].faults.drop_probability = 0.9;
  const LinkEnd h0{LinkRole::kInstance, "h100-0"}, h1{LinkRole::kInstance, "h100-1"};
  const LinkEnd sim{LinkRole::kSimulator, "h100-0"}, scheduler{LinkRole::kScheduler};
  EXPECT_EQ(plan.FaultsOf(h0, sim), &plan.links[0].faults);
  EXPECT_EQ(plan.FaultsOf(h1, sim), &plan.links[1].faults);
  EXPECT_EQ(plan.FaultsOf(sim, h1), &plan.links[2].faults);
  EXPECT_EQ(plan.FaultsOf(scheduler, h1), nullptr) << "a scheduler's links are named";
  EXPECT_EQ(plan.FaultsOf(sim, scheduler), nullptr) << "a link that no rule names is faultless";
}

TEST(FaultPlanTest, TheEndIsThatOfTheLastWindowOrRestartUnlessSomethingGoesOn) {
  const auto s = [](int64_t seconds) { return Instant() + Duration::Seconds(seconds); };
  FaultPlan plan;
  EXPECT_EQ(plan.End(), std::nullopt);
  plan.restarts.push_back({"*", s(5), Duration::Seconds(2), std::nullopt});
  EXPECT_EQ(plan.End(), s(7));
  plan.links.resize(1);
  plan.links[0].faults.partitions.push_back({s(10), Duration::Seconds(10), std::nullopt});
  EXPECT_EQ(plan.End(), s(20));
  plan.links[0].faults.drop_probability = 0.1;
  EXPECT_EQ(plan.End(), std::nullopt) << "losses go on";
  plan.links[0].faults.active = {s(10), Duration::Seconds(15), std::nullopt};
  EXPECT_EQ(plan.End(), s(25));
  plan.restarts[0].every = Duration::Seconds(30);
  EXPECT_EQ(plan.End(), std::nullopt);
}

TEST(FaultPlanTest, RestartsComeInOrderOfTimeForEveryInstanceThatFits) {
  FaultPlan plan;
  plan.restarts.push_back({"h100-*", Instant() + Duration::Seconds(10), Duration::Seconds(2), Duration::Seconds(20)});
  plan.restarts.push_back({"a100-0", Instant() + Duration::Seconds(15), Duration::Seconds(1), std::nullopt});
  const std::vector<RestartEvent> events = plan.RestartsOf({"h100-0", "a100-0", "h100-1"}, Instant() + Duration::Seconds(30));
  const auto event = [](size_t instance, int64_t at, int64_t downtime) {
    return RestartEvent{instance, Instant() + Duration::Seconds(at), Duration::Seconds(downtime)};
  };
  EXPECT_EQ(events, (std::vector<RestartEvent>{event(0, 10, 2), event(2, 10, 2), event(1, 15, 1)}))
      << "30 s itself is too late";
  EXPECT_EQ(plan.RestartsOf({"h100-0"}, Instant() + Duration::Seconds(31)).size(), 2u);
}

TEST(FaultPlanTest, AnEndlessRunGetsOneRestartPerRuleThatDoesNotRepeat) {
  FaultPlan plan;
  plan.restarts.push_back({"*", Instant() + Duration::Seconds(10), Duration::Seconds(2), std::nullopt});
  EXPECT_EQ(plan.RestartsOf({"x"}, Instant::Max()).size(), 1u);
}

TEST(ValidateTest, EveryBrokenRuleIsRefusedByName) {
  const auto refused = [](auto change) {
    LinkFaults f;
    change(f);
    const Result<Link> link = Link::Make(f, 1);
    return link.ok() ? std::string("accepted") : link.error().message;
  };
  const Duration ms = Duration::Millis(1);
  EXPECT_EQ(refused([](LinkFaults&) {}), "accepted");
  EXPECT_EQ(refused([&](LinkFaults& f) { f.delay.value = -ms; }), "delay: must be >= 0");
  EXPECT_EQ(refused([](LinkFaults& f) { f.drop_probability = 1.01; }), "drop_probability: must be between 0 and 1");
  EXPECT_EQ(refused([](LinkFaults& f) { f.drop_probability = std::nan(""); }), "drop_probability: must be between 0 and 1");
  EXPECT_EQ(refused([](LinkFaults& f) { f.reorder_probability = -0.1; }), "reorder_probability: must be between 0 and 1");
  EXPECT_EQ(refused([&](LinkFaults& f) { f.reorder_delay = {.kind = Kind::kUniform, .min = ms * 2, .max = ms}; }),
            "reorder_delay.max: must be >= min");
  EXPECT_EQ(refused([&](LinkFaults& f) { f.duplicate_delay = {.kind = Kind::kPareto, .value = ms, .shape = 2}; }),
            "duplicate_delay.cap: is missing: a Pareto tail has no end");
  EXPECT_EQ(refused([](LinkFaults& f) { f.burst_loss = BurstLoss{.enter = 2}; }),
            "burst_loss: its probabilities must be between 0 and 1");
  EXPECT_EQ(refused([](LinkFaults& f) {
              f.partitions.push_back({Instant(), Duration(), std::nullopt});
            }),
            "partitions.lasts: must be > 0");
  EXPECT_EQ(refused([&](LinkFaults& f) {
              f.partitions.push_back({Instant(), ms * 2, ms * 2});
            }),
            "partitions.every: must be > lasts");
  EXPECT_EQ(refused([](LinkFaults& f) { f.bytes_per_second = -1; }), "bytes_per_second: must be >= 0");
  EXPECT_EQ(refused([](LinkFaults& f) { f.clock.ppm = 1e9; }), "clock.ppm: must be between -100000 and 100000");
}

}  // namespace
}  // namespace foretoken
