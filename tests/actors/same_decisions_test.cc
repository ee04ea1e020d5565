// The same closed loop on the plain virtual host and on real actors in virtual time gives the same decisions, to the last bit.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "runtime/eval/virtual_host.h"
#include "tests/testing/inputs.h"
#include "tests/testing/random_runs.h"
#include "tests/testing/sim_cluster.h"

namespace foretoken {
namespace {

using testing::RandomFaults;
using testing::RandomRunOptions;
using testing::RandomTrace;
using testing::RunOnActors;

// Every number of a decision, doubles in hex: a difference in the last bit shows.
std::string Line(const DecisionRecord& d) {
  char text[512];
  const Prediction& p = d.prediction;
  std::snprintf(
      text, sizeof text,
      "t=%lld r=%llu i=%u %.*s by=%d v=%llu score=%a next=%a repicked=%d attempt=%d unanswered=%d predicted=%d"
      " ttft=%lld e2e=%lld p90=%lld/%lld gap=%lld viol=%a cached=%lld room=%lld res=%llu as_of=%lld age=%lld stale=%d%d\n",
      static_cast<long long>(d.at.nanos()), static_cast<unsigned long long>(d.request.value()), d.instance.value(),
      static_cast<int>(d.policy.size()), d.policy.data(), static_cast<int>(d.predictor),
      static_cast<unsigned long long>(d.state_version), d.score, d.runner_up, d.repicked, d.attempt, d.unanswered, d.predicted,
      static_cast<long long>(p.ttft.nanos()), static_cast<long long>(p.e2e.nanos()), static_cast<long long>(p.ttft_p90.nanos()),
      static_cast<long long>(p.e2e_p90.nanos()), static_cast<long long>(p.longest_gap.nanos()), p.slo_violation,
      static_cast<long long>(p.cached_tokens.value()), static_cast<long long>(p.kv_headroom.value()),
      static_cast<unsigned long long>(p.versions.reservations), static_cast<long long>(p.as_of.nanos()),
      static_cast<long long>(p.age.nanos()), p.stale, p.usable);
  return text;
}

struct PlainRun : RunObserver {
  std::vector<DecisionRecord> decisions;
  RunResult result;
  void OnDecision(const DecisionRecord& record) override { decisions.push_back(record); }
  void OnProgress(size_t, size_t) override {}
};

void ExpectSame(const RunOptions& options, const Trace& trace, size_t shard_size) {
  PlainRun plain;
  auto result = RunVirtual(options, trace, &plain);
  ASSERT_TRUE(result.ok()) << result.error().message;
  auto actors = RunOnActors(options, trace, shard_size);
  ASSERT_TRUE(actors.ok()) << actors.error().message;
  const size_t common = std::min(plain.decisions.size(), actors->decisions.size());
  for (size_t k = 0; k < common; ++k)
    ASSERT_EQ(Line(plain.decisions[k]), Line(actors->decisions[k])) << "decision " << k << " of " << plain.decisions.size();
  ASSERT_EQ(plain.decisions.size(), actors->decisions.size());
  ASSERT_GT(common, trace.requests.size() / 2);  // with its only instance down a request is rejected
  for (size_t k = 0; k < trace.requests.size(); ++k) {
    const RunRequest &a = result->requests[k], &b = actors->client.requests[k];
    ASSERT_EQ(a.outcome, b.outcome) << "request " << k + 1;
    ASSERT_EQ(a.finish, b.finish) << "request " << k + 1;
    ASSERT_EQ(a.first_token, b.first_token) << "request " << k + 1;
    ASSERT_EQ(a.instance, b.instance) << "request " << k + 1;
  }
  EXPECT_EQ(result->sync.applied, actors->simulators.sync.applied);
  EXPECT_EQ(result->sync.resync, actors->simulators.sync.resync);
  EXPECT_EQ(result->sync.duplicate, actors->simulators.sync.duplicate);
  EXPECT_EQ(result->simulators.lost_assignments, actors->simulators.counters.lost_assignments);
  EXPECT_DOUBLE_EQ(result->drift.step_ape, actors->simulators.drift.step_ape);  // shards add up in another order
}

const char* const kPolicies[] = {"min_e2e", "slo", "auto", "least_tokens", "round_robin", "p2c", "lmetric"};

TEST(SameDecisionsTest, EveryPolicyDecidesAlikeOnBothHosts) {
  for (const uint64_t seed : testing::Seeds(3))
    for (const char* policy : kPolicies) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " policy " + policy);
      ExpectSame(RandomRunOptions(seed, policy, PredictorKind::kTimeline), RandomTrace(seed, 150, 20), 1);
      if (HasFatalFailure()) return;
    }
}

TEST(SameDecisionsTest, FaultsActAlikeOnBothHosts) {
  for (const uint64_t seed : testing::Seeds(6))
    for (const char* policy : {"min_e2e", "least_tokens"}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " policy " + policy);
      RunOptions o = RandomRunOptions(seed, policy, PredictorKind::kTimeline);
      o.faults = RandomFaults(seed);
      ExpectSame(o, RandomTrace(seed, 150, 20), 1);
      if (HasFatalFailure()) return;
    }
}

TEST(SameDecisionsTest, ShardsDecideAsSingleActorsDo) {
  for (const uint64_t seed : testing::Seeds(3))
    for (const size_t shard : {2, 64}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " shard " + std::to_string(shard));
      RunOptions o = RandomRunOptions(seed, "min_e2e", PredictorKind::kPattern);
      if (seed % 2 == 0) o.faults = RandomFaults(seed);
      ExpectSame(o, RandomTrace(seed, 120, 20), shard);
      if (HasFatalFailure()) return;
    }
}

TEST(SameDecisionsTest, EverySyncLevelActsAlikeOnBothHosts) {
  for (const uint64_t seed : testing::Seeds(2))
    for (const SyncLevel level : {SyncLevel::kNone, SyncLevel::kAggregate, SyncLevel::kFull}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " level " + std::to_string(static_cast<int>(level)));
      RunOptions o = RandomRunOptions(seed, "min_e2e", PredictorKind::kPattern);
      o.level = level;
      ExpectSame(o, RandomTrace(seed, 120, 20), 1);
      if (HasFatalFailure()) return;
    }
}

TEST(SameDecisionsTest, SeveralSchedulersShareSimulatorsAlike) {
  for (const uint64_t seed : testing::Seeds(3)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RunOptions o = RandomRunOptions(seed, "min_e2e", PredictorKind::kTimeline);
    o.scheduler_count = 3;
    ExpectSame(o, RandomTrace(seed, 120, 20), 1);
    if (HasFatalFailure()) return;
  }
}

FaultPlan SlowControl(uint64_t seed) {
  Prng prng(Mix64(seed, 31));
  FaultPlan plan;
  plan.name = "control";
  for (const bool forth : {true, false}) {
    LinkRule rule;
    rule.from = forth ? LinkRole::kScheduler : LinkRole::kSimulator;
    rule.to = forth ? LinkRole::kSimulator : LinkRole::kScheduler;
    rule.faults.delay.kind = DelayLaw::Kind::kUniform;
    rule.faults.delay.min = Duration::Micros(prng.Between(10, 300));
    rule.faults.delay.max = rule.faults.delay.min + Duration::Micros(prng.Between(1, 3000));
    if (prng.Chance(0.3)) rule.faults.in_order = true;
    if (prng.Chance(0.3)) {
      rule.faults.duplicate_probability = 0.1;
      rule.faults.duplicate_delay.value = Duration::Millis(4);
    }
    plan.links.push_back(rule);
  }
  if (prng.Chance(0.5)) {
    for (const LinkRule& rule : RandomFaults(seed).links) plan.links.push_back(rule);
    plan.restarts = RandomFaults(seed).restarts;
  }
  return plan;
}

TEST(SameDecisionsTest, SlowAnswersOverlapAlikeOnBothHosts) {
  for (const uint64_t seed : testing::Seeds(10))
    for (const char* policy : {"min_e2e", "slo", "p2c"}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " policy " + policy);
      RunOptions o = RandomRunOptions(seed, policy, seed % 2 == 0 ? PredictorKind::kTimeline : PredictorKind::kPattern);
      o.scheduler_count = 1 + static_cast<int32_t>(seed % 4);
      o.faults = SlowControl(seed);
      if (seed % 3 == 0) o.level = SyncLevel::kNone;
      if (seed % 5 == 0) o.scheduler.repick = RepickRule::kRejectOnAnyChange;
      ExpectSame(o, RandomTrace(seed, 150, 300), 1);
      if (HasFatalFailure()) return;
    }
}

TEST(SameDecisionsTest, ClocksOfTheirOwnAreMappedAlikeOnBothHosts) {
  for (const uint64_t seed : testing::Seeds(4)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RunOptions o = RandomRunOptions(seed, "min_e2e", PredictorKind::kTimeline);
    o.faults = RandomFaults(seed);
    o.faults.links[0].faults.clock = {Duration::Seconds(seed % 2 == 0 ? 7 * 3600 : -3 * 3600),
                                      200.0 - 100.0 * static_cast<double>(seed % 8)};
    ExpectSame(o, RandomTrace(seed, 150, 20), 1);
    if (HasFatalFailure()) return;
  }
}

TEST(SameDecisionsTest, AnotherSeedDecidesOtherwise) {
  const Trace trace = RandomTrace(4, 100, 20);
  RunOptions o = RandomRunOptions(4, "p2c", PredictorKind::kTimeline);
  auto a = RunOnActors(o, trace, 1), b = RunOnActors(o, trace, 1);
  o.scheduler.seed = 5;
  auto c = RunOnActors(o, trace, 1);
  std::string one, again, other;
  for (const auto& d : a->decisions) one += Line(d);
  for (const auto& d : b->decisions) again += Line(d);
  for (const auto& d : c->decisions) other += Line(d);
  EXPECT_EQ(one, again);
  EXPECT_NE(one, other);
}

}  // namespace
}  // namespace foretoken
