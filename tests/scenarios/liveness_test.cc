// What a cluster does about instances that are idle or silent, and what reorderings cost, on the real actors in virtual time.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <string>

#include "runtime/perf/step_time_law.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/workload/make_length_estimator.h"
#include "tests/testing/sim_cluster.h"

namespace foretoken {
namespace {

using testing::ActorRun;
using testing::RunOnActors;

Instant Ms(int64_t ms) { return Instant() + Duration::Millis(ms); }

RunOptions Alike(size_t instances) {
  RunOptions o;
  for (size_t k = 0; k < instances; ++k) {
    RunOptions::Instance i;
    i.name = "i" + std::to_string(k);
    i.engine.config.num_gpu_blocks = 4000;
    i.engine.config.max_model_len = 4096;
    i.engine.step_time.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{5e6, 4e4, 6e4, 12});
    i.profile.limits = i.engine.config;
    i.profile.step_time = i.engine.step_time;
    i.facts.kv_tokens = 63'984;
    o.instances.push_back(std::move(i));
  }
  o.scheduler.policy = "min_e2e";
  o.make_predictor = [](const InstanceProfile& profile, const LengthEstimator* lengths) {
    return MakePredictor(PredictorKind::kTimeline, profile, lengths);
  };
  o.make_lengths = [](uint64_t) { return MakeLengthEstimator(LengthEstimatorKind::kSampled); };
  return o;
}

LinkRule Rule(const std::string& instances, LinkFaults faults) {
  LinkRule r;
  r.from = r.to = std::nullopt;
  r.from_name = r.to_name = instances;
  r.faults = std::move(faults);
  return r;
}

LinkFaults Delayed(Duration delay) {
  LinkFaults f;
  f.delay.value = delay;
  return f;
}

Trace Every(Duration gap, Instant from, Instant until, int64_t output) {
  Trace t;
  for (Instant at = from; at < until; at += gap) {
    TraceRequest r;
    r.meta.id = RequestId(t.requests.size() + 1);
    r.meta.arrival = at;
    r.meta.prompt_tokens = TokenCount(200);
    r.truth.output_tokens = TokenCount(output);
    t.requests.push_back(std::move(r));
  }
  return t;
}

void ExpectAllFinished(const ActorRun& run) {
  for (size_t k = 0; k < run.client.requests.size(); ++k)
    EXPECT_EQ(run.client.requests[k].outcome, OutcomeKind::kFinished) << "request " << k + 1;
}

TEST(LivenessScenarioTest, AnInstanceIdleForAMinuteIsChosenNext) {
  RunOptions o = Alike(2);
  o.faults.links = {Rule("*", Delayed(Duration::Millis(1)))};  // with faults there are heartbeats, and silence counts
  const Trace trace = Every(Duration::Millis(100), Ms(60'000), Ms(60'200), 200);
  const auto run = RunOnActors(o, trace, 1);
  ASSERT_TRUE(run.ok()) << run.error().message;
  ASSERT_EQ(run->decisions.size(), 2u);
  EXPECT_NE(run->decisions[0].instance, run->decisions[1].instance) << "the idle one is the better one";
  for (const DecisionRecord& d : run->decisions) {
    EXPECT_TRUE(d.prediction.usable);
    EXPECT_FALSE(d.prediction.stale);
  }
  ExpectAllFinished(*run);
}

// Silent from 5 s on for 10 s: `silent` of four instances.
ActorRun WithSilent(size_t silent) {
  RunOptions o = Alike(4);
  LinkFaults cut;
  cut.partitions = {{Ms(5'000), Duration::Seconds(10), std::nullopt}};
  for (size_t k = 0; k < silent; ++k) o.faults.links.push_back(Rule("i" + std::to_string(k), cut));
  o.faults.links.push_back(Rule("*", {}));
  auto run = RunOnActors(o, Every(Duration::Millis(50), Ms(0), Ms(20'000), 30), 1);
  EXPECT_TRUE(run.ok());
  return std::move(run).value();
}

TEST(LivenessScenarioTest, HalfOfTheInstancesSilentLeavesTheOtherHalf) {
  const ActorRun run = WithSilent(2);
  ExpectAllFinished(run);
  size_t during = 0, back = 0;
  for (const DecisionRecord& d : run.decisions) {
    if (d.at > Ms(7'000) && d.at < Ms(15'000)) {
      ++during;
      EXPECT_GE(d.instance.value(), 2u) << "chosen at " << d.at.nanos() << " though silent for dead_after";
    }
    back += d.at > Ms(16'000) && d.instance.value() < 2;
  }
  EXPECT_GT(during, 100u);
  EXPECT_GT(back, 10u) << "heard of again, they are candidates again";
  EXPECT_GT(run.scheduler.counters.unusable, 0u);
  EXPECT_EQ(run.scheduler.counters.self_suspected, 0u);
}

TEST(LivenessScenarioTest, WhenMostAreSilentTheObserverSuspectsItselfAndKeepsAll) {
  const ActorRun run = WithSilent(3);
  ExpectAllFinished(run);
  EXPECT_GT(run.scheduler.counters.self_suspected, 100u);
  EXPECT_LT(run.scheduler.counters.unusable, 10u)
      << "but for the instants when the first is silent long enough and the rest not";
  size_t on_silent = 0;
  for (const DecisionRecord& d : run.decisions) on_silent += d.at > Ms(7'000) && d.at < Ms(15'000) && d.instance.value() < 3;
  EXPECT_GT(on_silent, 10u);
}

TEST(LivenessScenarioTest, ReorderingsWithinTheWindowCauseNoResyncAndOutsideItOnePerGap) {
  for (const int32_t window : {64, 2}) {
    RunOptions o = Alike(2);
    o.sequencer.window_messages = window;
    LinkFaults f;
    f.reorder_probability = 0.1;
    f.reorder_delay.value = Duration::Millis(40);  // less than gap_timeout; three to eight messages pass
    o.faults.links = {Rule("*", f)};
    const auto run = RunOnActors(o, Every(Duration::Millis(50), Ms(0), Ms(10'000), 40), 1);
    ASSERT_TRUE(run.ok());
    ExpectAllFinished(*run);
    const SequencerCounters& c = run->simulators.sync;
    std::printf("window %d: %llu applied, %llu reordered, %llu gaps, %llu resyncs, held at most %llu\n", window,
                static_cast<unsigned long long>(c.applied), static_cast<unsigned long long>(c.reordered),
                static_cast<unsigned long long>(c.gap), static_cast<unsigned long long>(c.resync),
                static_cast<unsigned long long>(c.held_max));
    EXPECT_GT(c.gap, 100u);
    if (window == 64) {
      EXPECT_EQ(c.resync, 0u);
      EXPECT_LE(c.held_max, 64u);
    } else {
      EXPECT_GT(c.resync, 0u);
      EXPECT_LE(c.resync, c.gap);
    }
  }
}

}  // namespace
}  // namespace foretoken
