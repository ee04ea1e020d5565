#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "integration/observe/observation_builder.h"
#include "integration/observe/observation_json.h"

namespace foretoken {
namespace {

Instant At(double s) { return Instant() + Duration::FromSeconds(s); }

MirrorView Mirror(uint64_t gaps, uint64_t resyncs, double off, uint64_t steps) {
  MirrorView m;
  m.instance = InstanceId(1);
  m.sync.gap = gaps;
  m.sync.resync = resyncs;
  m.drift.running_abs = off;
  m.drift.steps = steps;
  m.total_blocks = 100;
  m.free_blocks = 75;
  return m;
}

class ObservationTest : public testing::Test {
 protected:
  ObservationTest() : builder_({}) {
    builder_.AddInstance("a", "h100");
    builder_.AddInstance("b", "a100");
  }
  std::shared_ptr<const Observation> Look(double at, const MirrorView& mirror) {
    builder_.Begin();
    builder_.Add(mirror);
    return builder_.End(At(at), 1000);
  }
  ObservationBuilder builder_;
};

TEST_F(ObservationTest, GrowingCountersBecomeEventsAndTheFirstSightIsNone) {
  EXPECT_TRUE(Look(1, Mirror(5, 2, 0, 10))->events.empty());
  const auto seen = Look(1.25, Mirror(7, 3, 25, 20));
  ASSERT_EQ(seen->events.size(), 3u);
  EXPECT_EQ(seen->events[2].kind, SyncEventKind::kGap);
  EXPECT_EQ(seen->events[2].count, 2u);
  EXPECT_EQ(seen->events[2].instance, InstanceId(1));
  EXPECT_EQ(seen->events[1].kind, SyncEventKind::kResync);
  EXPECT_EQ(seen->events[0].kind, SyncEventKind::kDisagreement);
  EXPECT_EQ(seen->events[0].count, 10u);
}

TEST_F(ObservationTest, EventsOfOneKindWithinTwoSecondsAreOne) {
  Look(1, Mirror(0, 0, 0, 0));
  Look(1.25, Mirror(1, 0, 0, 0));
  EXPECT_EQ(Look(1.5, Mirror(3, 0, 0, 0))->events.size(), 1u);
  const auto later = Look(3.5, Mirror(4, 0, 0, 0));
  ASSERT_EQ(later->events.size(), 2u);
  EXPECT_EQ(later->events[1].count, 3u);
}

TEST_F(ObservationTest, DriftIsOverTheLastSecondsOnly) {
  Look(1, Mirror(0, 0, 0, 0));
  const auto bad = Look(2, Mirror(0, 0, 50, 100));
  EXPECT_DOUBLE_EQ(bad->instances[1].drift_running, .5);
  for (int k = 3; k < 12; ++k) Look(k, Mirror(0, 0, 50, 100u * static_cast<uint64_t>(k)));
  EXPECT_DOUBLE_EQ(Look(12, Mirror(0, 0, 50, 1200))->instances[1].drift_running, 0);
}

TEST_F(ObservationTest, AStateThatChangesIsAnEvent) {
  Look(1, Mirror(0, 0, 0, 0));
  builder_.Begin();
  builder_.SetPlace(InstanceId(0), InstanceState::kDraining, true, "n1", 3);
  const auto seen = builder_.End(At(2), 0);
  ASSERT_EQ(seen->events.size(), 1u);
  EXPECT_EQ(seen->events[0].detail, "draining");
  EXPECT_EQ(seen->instances[0].term, 3u);
}

TEST_F(ObservationTest, AnEngineThatIsInferredHasEventsToo) {
  const auto look = [&](double at, bool reachable, uint64_t starts, uint64_t rescaled) {
    builder_.Begin();
    builder_.SetPlace(InstanceId(0), InstanceState::kServing, reachable, "", 0);
    builder_.SetInferred(InstanceId(0), starts, rescaled);
    return builder_.End(At(at), 0);
  };
  EXPECT_TRUE(look(1, true, 1, 0)->events.empty()) << "its first start is none";
  EXPECT_EQ(look(2, false, 1, 0)->events[0].detail, "out");
  const auto seen = look(5, true, 2, 3);
  ASSERT_EQ(seen->events.size(), 4u);
  EXPECT_EQ(seen->events[2].detail, "back");
  EXPECT_EQ(seen->events[1].kind, SyncEventKind::kEpoch);
  EXPECT_EQ(seen->events[0].kind, SyncEventKind::kRescaled);
  EXPECT_EQ(seen->events[0].count, 3u);
}

TEST_F(ObservationTest, WhoHasLeftIsNotShownAndItsNameStays) {
  Look(1, Mirror(0, 0, 0, 0));
  builder_.Begin();
  builder_.SetPlace(InstanceId(0), InstanceState::kDead, false, "", 0);
  builder_.SetGone(InstanceId(0));
  const auto seen = builder_.End(At(2), 0);
  ASSERT_EQ(seen->events.size(), 1u);
  EXPECT_EQ(seen->events[0].detail, "gone");
  const boost::json::object json = JsonOf(*seen);
  ASSERT_EQ(json.at("instances").as_array().size(), 1u);
  EXPECT_EQ(json.at("instances").as_array()[0].at("instance").as_string(), "b");
  EXPECT_EQ(json.at("events").as_array()[0].at("instance").as_string(), "a");
}

TEST_F(ObservationTest, AnInstanceWhoseMirrorIsElsewhereCountsByItsConfiguration) {
  ObservationBuilder builder({});
  builder.AddInstance("a", "h100", "", FleetLoad::Engine{{0.01, 20e-6, 10e-6, 0}, 0});
  const auto look = [&](bool scheduler) {
    JournalView v;
    v.window = Duration::Seconds(10);
    v.latest.arrived = v.latest.decided = v.latest.finished = v.latest.with_slo = v.latest.met_slo = 100;
    v.latest.output_tokens = 10'000;
    v.latest.predicted.decisions = 100;
    v.latest.predicted.prompt_tokens = v.latest.predicted.computed = 100'000;
    v.latest.predicted.computed_squared = 1e8;
    builder.Begin();
    builder.Add(v);
    if (scheduler) builder.Add(SchedulerCounters(), 0, 0);
    return builder.End(At(1), 0)->headroom;
  };
  EXPECT_FALSE(look(false).known) << "who decides nothing knows of no load";
  EXPECT_TRUE(look(true).known);
  EXPECT_GT(look(true).load, 0);
}

TEST_F(ObservationTest, JsonHasWhatIsKnownAndNothingElse) {
  const auto o = Look(1, Mirror(0, 0, 0, 0));
  const boost::json::object json = JsonOf(*o);
  const auto& instances = json.at("instances").as_array();
  ASSERT_EQ(instances.size(), 2u);
  EXPECT_FALSE(instances[0].as_object().contains("running"));  // no mirror of it is here
  EXPECT_DOUBLE_EQ(instances[1].at("kv_use").to_number<double>(), .25);
  EXPECT_FALSE(instances[1].as_object().contains("faults"));
  EXPECT_EQ(json.at("observation").to_number<uint64_t>(), 1u);
}

}  // namespace
}  // namespace foretoken
