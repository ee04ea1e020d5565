// A decision round from Schedule to Dispatch, with scripted SIMULATORs: completeness, deadlines, reservations, retries.
#include "runtime/sched/scheduler_core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

class FixedLength final : public LengthEstimator {
 public:
  TokenCount Total(const LengthKey&, TokenCount generated) const override {
    return TokenCount(std::max<int64_t>(100, generated.value() + 1));
  }
  void Learn(uint32_t, TokenCount output) override { learned.push_back(output.value()); }
  uint64_t version() const override { return 0; }
  std::vector<int64_t> learned;
};

// Records every effect; answers nothing by itself.
class Recorder final : public SchedulerEffects {
 public:
  void SendPredict(DecisionId d, std::span<const InstanceId> targets, const PredictQuery& q) override {
    decision = d;
    asked.assign(targets.begin(), targets.end());
    EXPECT_GE(q.expected_output.value(), 1);
    ++predicts;
  }
  void SendEnqueue(const EnqueueOrder& o) override { orders.push_back(o); }
  void SendCancel(InstanceId i, RequestId r) override { cancels.push_back({i, r}); }
  void Dispatch(InstanceId i, const RequestMeta& r) override { dispatched.push_back({i, r.id}); }
  void Reject(RequestId r, OutcomeReason reason) override { rejected.push_back({r, reason}); }
  void Decided(const DecisionRecord& d) override { records.push_back(d); }
  void ArmDeadline(DecisionId, Instant at) override { deadline = at; }

  DecisionId decision;
  Instant deadline;
  int predicts = 0;
  std::vector<InstanceId> asked;
  std::vector<EnqueueOrder> orders;
  std::vector<std::pair<InstanceId, RequestId>> cancels, dispatched;
  std::vector<std::pair<RequestId, OutcomeReason>> rejected;
  std::vector<DecisionRecord> records;
};

Prediction E2e(uint32_t instance, int64_t ms, uint64_t reservations = 0) {
  Prediction p;
  p.instance = InstanceId(instance);
  p.ttft = p.ttft_p90 = Duration::Millis(ms / 2);
  p.e2e = p.e2e_alone = p.e2e_p90 = Duration::Millis(ms);
  p.versions = {7, reservations};
  return p;
}

RequestMeta Request(uint64_t id) {
  RequestMeta r;
  r.id = RequestId(id);
  r.prompt_tokens = TokenCount(64);
  return r;
}

struct Fixture {
  explicit Fixture(std::string policy, size_t instances = 3, SchedulerCore::Options o = {}) {
    o.policy = std::move(policy);
    core = std::move(SchedulerCore::Make(o, std::vector<SchedulerCore::InstanceInfo>(instances), &lengths)).value();
  }
  FixedLength lengths;
  Recorder fx;
  std::unique_ptr<SchedulerCore> core;
  Instant now;
};

TEST(SchedulerCoreTest, TheBestOfAllRepliesIsReservedThenDispatched) {
  Fixture f("min_e2e");
  const RequestMeta r = Request(1);
  f.core->OnSchedule(r, f.now, f.fx);
  ASSERT_EQ(f.fx.asked.size(), 3u);
  f.core->OnPrediction(f.fx.decision, E2e(0, 30), f.now, f.fx);
  f.core->OnPrediction(f.fx.decision, E2e(2, 10), f.now, f.fx);
  EXPECT_TRUE(f.fx.orders.empty()) << "decided before the slowest reply";
  f.core->OnPrediction(f.fx.decision, E2e(1, 20), f.now, f.fx);
  ASSERT_EQ(f.fx.orders.size(), 1u);
  EXPECT_EQ(f.fx.orders[0].instance, InstanceId(2));
  EXPECT_DOUBLE_EQ(f.fx.orders[0].runner_up, 0.020);
  EXPECT_TRUE(f.fx.dispatched.empty()) << "dispatched before the reservation was accepted";
  f.core->OnEnqueueReply({f.fx.decision, InstanceId(2), true, {}, {}}, f.now, f.fx);
  ASSERT_EQ(f.fx.dispatched.size(), 1u);
  EXPECT_EQ(f.fx.dispatched[0].first, InstanceId(2));
  EXPECT_EQ(f.core->ledger().load(InstanceId(2)).requests, 1);
  EXPECT_EQ(f.core->open_rounds(), 0u);
}

Prediction WithMiss(uint32_t instance, int64_t ms, double slo_violation) {
  Prediction p = E2e(instance, ms);
  p.slo_violation = slo_violation;
  return p;
}

TEST(SchedulerCoreTest, WhatWouldMissItsTargetsEverywhereIsShedUnlessItIsUrgent) {
  SchedulerCore::Options o;
  o.shed_above = 0.5;
  o.shed_priority = 2;
  struct Case {
    int32_t priority;
    double at_best, elsewhere;  // P(SLO violation)
    bool shed;
  };
  // min_e2e picks instance 1; what counts is whether the one it picks would miss.
  const Case cases[] = {
      {2, 0.9, 0.9, true}, {3, 0.51, 0.9, true}, {1, 0.9, 0.9, false}, {0, 1, 1, false}, {5, 0.5, 0.9, false}};
  for (const Case& c : cases) {
    SCOPED_TRACE("priority " + std::to_string(c.priority) + ", misses with " + std::to_string(c.at_best));
    Fixture f("min_e2e", 2, o);
    RequestMeta r = Request(1);
    r.priority = c.priority;
    f.core->OnSchedule(r, f.now, f.fx);
    f.core->OnPrediction(f.fx.decision, WithMiss(0, 30, c.elsewhere), f.now, f.fx);
    f.core->OnPrediction(f.fx.decision, WithMiss(1, 10, c.at_best), f.now, f.fx);
    EXPECT_EQ(f.core->counters().shed, c.shed ? 1u : 0u);
    EXPECT_EQ(f.fx.orders.size(), c.shed ? 0u : 1u) << "nothing is reserved for a request that is refused";
    ASSERT_EQ(f.fx.rejected.size(), c.shed ? 1u : 0u);
    if (c.shed) {
      EXPECT_EQ(f.fx.rejected[0].second, OutcomeReason::kShed);
    }
    EXPECT_EQ(f.core->open_rounds(), c.shed ? 0u : 1u);
  }
}

TEST(SchedulerCoreTest, LateReplyAfterDeadlineIsCountedNotUsed) {
  Fixture f("min_e2e");
  const RequestMeta r = Request(1);
  f.core->OnSchedule(r, f.now, f.fx);
  const DecisionId d = f.fx.decision;
  f.core->OnPrediction(d, E2e(0, 30), f.now, f.fx);
  f.core->OnDeadline(d, f.fx.deadline, f.fx);
  ASSERT_EQ(f.fx.orders.size(), 1u);
  EXPECT_EQ(f.fx.orders[0].instance, InstanceId(0)) << "the one that answered";
  EXPECT_FALSE(f.fx.orders[0].guarded) << "the winner may have died: past the deadline nothing ends the wait for its reply";
  EXPECT_EQ(f.fx.dispatched.size(), 1u);
  f.core->OnPrediction(d, E2e(1, 1), f.now, f.fx);
  EXPECT_EQ(f.core->counters().late_replies, 1u);
  EXPECT_EQ(f.fx.records[0].unanswered, 2);
}

TEST(SchedulerCoreTest, WithoutAnyReplyTheLedgerDecides) {
  Fixture f("min_e2e", 2);
  const RequestMeta a = Request(1), b = Request(2);
  for (const RequestMeta* r : {&a, &b}) {
    f.core->OnSchedule(*r, f.now, f.fx);
    f.core->OnDeadline(f.fx.decision, f.fx.deadline, f.fx);
  }
  ASSERT_EQ(f.fx.dispatched.size(), 2u);
  EXPECT_NE(f.fx.dispatched[0].first, f.fx.dispatched[1].first) << "least outstanding work";
  EXPECT_EQ(f.core->counters().by_ledger, 2u);
}

TEST(SchedulerCoreTest, AnOvertakenReservationIsRepickedOnce) {
  Fixture f("min_e2e", 2);
  const RequestMeta r = Request(1);
  f.core->OnSchedule(r, f.now, f.fx);
  const DecisionId d = f.fx.decision;
  f.core->OnPrediction(d, E2e(0, 10), f.now, f.fx);
  f.core->OnPrediction(d, E2e(1, 20), f.now, f.fx);
  f.core->OnEnqueueReply({d, InstanceId(0), false, {}, E2e(0, 90, 5)}, f.now, f.fx);
  ASSERT_EQ(f.fx.orders.size(), 2u);
  EXPECT_EQ(f.fx.orders[1].instance, InstanceId(1));
  EXPECT_FALSE(f.fx.orders[1].guarded) << "a second refusal must not be possible";
  EXPECT_EQ(f.fx.dispatched.size(), 1u);
  EXPECT_TRUE(f.fx.records[0].repicked);
  EXPECT_EQ(f.core->counters().repicks, 1u);
}

TEST(SchedulerCoreTest, ACrashIsRetriedElsewhereOnceAndThenFails) {
  Fixture f("least_requests");
  const RequestMeta r = Request(1);
  f.core->OnSchedule(r, f.now, f.fx);
  const InstanceId first = f.fx.dispatched[0].first;
  f.core->OnEngineFailure(r, OutcomeReason::kEngineRestarted, f.now, f.fx);
  ASSERT_EQ(f.fx.dispatched.size(), 2u);
  EXPECT_NE(f.fx.dispatched[1].first, first);
  EXPECT_EQ(f.fx.cancels.size(), 1u);
  f.core->OnEngineFailure(r, OutcomeReason::kEngineRestarted, f.now, f.fx);
  ASSERT_EQ(f.fx.rejected.size(), 1u);
  EXPECT_EQ(f.fx.rejected[0].second, OutcomeReason::kRetriesExhausted);
  EXPECT_EQ(f.core->ledger().assigned(), 0u);
}

TEST(SchedulerCoreTest, ARefusalIsTriedOnOthersUpToItsBound) {
  SchedulerCore::Options o;
  o.retry_max = 3;
  Fixture f("least_requests", 8, o);
  const RequestMeta r = Request(1);
  f.core->OnSchedule(r, f.now, f.fx);
  while (f.fx.rejected.empty()) f.core->OnEngineFailure(r, OutcomeReason::kNeverFits, f.now, f.fx);
  EXPECT_EQ(f.fx.dispatched.size(), 4u) << "one assignment and three retries";
  std::set<InstanceId> distinct;
  for (auto& [i, id] : f.fx.dispatched) distinct.insert(i);
  EXPECT_EQ(distinct.size(), 4u);
  EXPECT_EQ(f.fx.rejected[0].second, OutcomeReason::kNeverFits) << "the user is told why";
}

TEST(SchedulerCoreTest, ADownInstanceIsLeftAloneForItsBackoff) {
  Fixture f("least_requests", 2);
  const RequestMeta a = Request(1), b = Request(2), c = Request(3);
  f.core->OnSchedule(a, f.now, f.fx);
  const InstanceId down = f.fx.dispatched[0].first;
  f.core->OnEngineFailure(a, OutcomeReason::kEngineDown, f.now, f.fx);
  f.core->OnSchedule(b, f.now + Duration::Millis(249), f.fx);
  EXPECT_NE(f.fx.dispatched.back().first, down);
  f.core->OnSchedule(c, f.now + Duration::Millis(250), f.fx);
  EXPECT_EQ(f.fx.dispatched.back().first, down) << "a probe after the backoff";
}

TEST(SchedulerCoreTest, HungInstancesLeaveTheCandidatesUnlessTheyAreMost) {
  Fixture f("min_e2e", 3);
  const RequestMeta a = Request(1), b = Request(2);
  const auto decide = [&](const RequestMeta& r, std::set<uint32_t> hung) {
    f.core->OnSchedule(r, f.now, f.fx);
    const DecisionId d = f.fx.decision;
    for (uint32_t i = 0; i < 3; ++i) {
      Prediction p = E2e(i, i == 0 ? 1 : 50);
      p.usable = !hung.contains(i);
      f.core->OnPrediction(d, p, f.now, f.fx);
    }
    f.core->OnEnqueueReply({d, f.fx.orders.back().instance, true, {}, {}}, f.now, f.fx);
    return f.fx.dispatched.back().first.value();
  };
  EXPECT_NE(decide(a, {0}), 0u);
  EXPECT_EQ(decide(b, {0, 1}), 0u) << "two of three silent: the observer suspects itself";
  EXPECT_EQ(f.core->counters().self_suspected, 1u);
}

TEST(SchedulerCoreTest, NoInstanceForTheModelIsARejectionWithItsReason) {
  FixedLength lengths;
  std::vector<SchedulerCore::InstanceInfo> infos(1);
  infos[0].facts.models = {ModelId(3)};
  SchedulerCore::Options o;
  o.policy = "round_robin";
  auto core = std::move(SchedulerCore::Make(o, infos, &lengths)).value();
  Recorder fx;
  const RequestMeta r = Request(1);
  core->OnSchedule(r, Instant(), fx);
  ASSERT_EQ(fx.rejected.size(), 1u);
  EXPECT_EQ(fx.rejected[0].second, OutcomeReason::kNoCandidate);
}

TEST(SchedulerCoreTest, UnknownPolicyNamesTheKnownOnes) {
  FixedLength lengths;
  SchedulerCore::Options o;
  o.policy = "min_e2";
  const auto core = SchedulerCore::Make(o, std::vector<SchedulerCore::InstanceInfo>(1), &lengths);
  ASSERT_FALSE(core.ok());
  EXPECT_NE(core.error().message.find("min_e2e"), std::string::npos);
}

// Every request is dispatched or rejected once per life, whatever the SIMULATORs and engines do.
TEST(SchedulerCoreTest, RandomRepliesLossesAndFailuresKeepEveryRequestAccountedFor) {
  for (const uint64_t seed : testing::Seeds(30)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Prng prng(seed);
    const std::vector<std::string_view> policies = KnownPolicies();
    Fixture f(std::string(policies[prng.Below(policies.size())]), 1 + prng.Below(6));
    std::vector<RequestMeta> requests;
    for (uint64_t k = 0; k < 300; ++k) requests.push_back(Request(k));
    std::set<uint64_t> running, ended;
    size_t seen_dispatches = 0, seen_rejects = 0;
    const auto take = [&] {
      for (; seen_dispatches < f.fx.dispatched.size(); ++seen_dispatches)
        ASSERT_TRUE(running.insert(f.fx.dispatched[seen_dispatches].second.value()).second);
      for (; seen_rejects < f.fx.rejected.size(); ++seen_rejects)
        ASSERT_TRUE(ended.insert(f.fx.rejected[seen_rejects].first.value()).second);
    };
    for (const RequestMeta& r : requests) {
      f.now += Duration::Millis(prng.Between(0, 5));
      const int before = f.fx.predicts;
      const size_t orders = f.fx.orders.size();
      f.core->OnSchedule(r, f.now, f.fx);
      if (f.fx.predicts > before) {
        const DecisionId d = f.fx.decision;
        for (const InstanceId i : std::vector<InstanceId>(f.fx.asked))
          if (prng.Chance(0.8)) f.core->OnPrediction(d, E2e(i.value(), prng.Between(1, 99)), f.now, f.fx);
        if (f.fx.orders.size() == orders) f.core->OnDeadline(d, f.fx.deadline, f.fx);
        while (f.fx.orders.size() > orders && f.fx.orders.back().guarded && f.core->open_rounds() > 0) {
          const EnqueueOrder& o = f.fx.orders.back();
          f.core->OnEnqueueReply({d, o.instance, prng.Chance(0.7), {}, E2e(o.instance.value(), prng.Between(1, 99))}, f.now,
                                 f.fx);
        }
      }
      take();
      for (int k = 0; k < 2 && !running.empty(); ++k) {
        const uint64_t id = *std::next(running.begin(), static_cast<ptrdiff_t>(prng.Below(running.size())));
        const double what = prng.Unit();
        running.erase(id);
        if (what < 0.6) {
          f.core->OnFinished(RequestId(id), TokenCount(5), f.now);
          ended.insert(id);
        } else if (what < 0.8) {
          f.core->OnCancelled(RequestId(id), f.fx);
          ended.insert(id);
        } else if (f.core->needs() < PolicyNeeds::kPredictions) {
          f.core->OnEngineFailure(requests[id], what < 0.9 ? OutcomeReason::kEngineRestarted : OutcomeReason::kNeverFits, f.now,
                                  f.fx);
          take();
        } else {
          running.insert(id);
        }
      }
    }
    EXPECT_EQ(running.size() + ended.size(), requests.size());
    EXPECT_EQ(f.core->ledger().assigned(), running.size());
    EXPECT_EQ(f.core->open_rounds(), 0u);
  }
}

// Policies that ask for no prediction see prefix hits all the same: who has the prompt gets the next one that shares it.
TEST(SchedulerCoreTest, PoliciesWithoutPredictionsSeePrefixHits) {
  for (const char* policy : {"prefix_weighted", "kv_router_cost", "cache_aware", "lmetric", "v0"}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      SCOPED_TRACE(std::string(policy) + ", seed " + std::to_string(seed));
      SchedulerCore::Options o;
      o.seed = seed;
      Fixture f(policy, 8, o);
      const auto ask = [&f](uint64_t id, uint64_t content) {
        RequestMeta r = Request(id);
        r.prompt_tokens = TokenCount(700);
        r.segments = {{content, TokenCount(640)}, {PrivateContent(r.id), TokenCount(60)}};
        f.core->OnSchedule(r, f.now, f.fx);
        f.core->OnFinished(r.id, TokenCount(100), f.now);
        return f.fx.dispatched.back().first;
      };
      const InstanceId first = ask(1, 1'000'000);
      for (uint64_t id = 2; id <= 6; ++id) ask(id, 2'000'000 + id);
      EXPECT_EQ(ask(7, 1'000'000), first);
      // Its engine restarts under a request: the cache is gone, and with it the reason to go there.
      RequestMeta lost = Request(8);
      lost.prompt_tokens = TokenCount(700);
      lost.segments = {{1'000'000, TokenCount(640)}, {PrivateContent(lost.id), TokenCount(60)}};
      f.core->OnSchedule(lost, f.now, f.fx);
      ASSERT_EQ(f.fx.dispatched.back().first, first);
      f.core->OnEngineFailure(lost, OutcomeReason::kEngineRestarted, f.now, f.fx);
      const InstanceId second = f.fx.dispatched.back().first;
      EXPECT_NE(second, first);
      f.core->OnFinished(lost.id, TokenCount(100), f.now);
      f.now += Duration::Seconds(1);
      EXPECT_EQ(ask(9, 1'000'000), second);
    }
  }
}

TEST(SchedulerCoreTest, OfManyInstancesOnlyTheLeastLoadedAreAsked) {
  SchedulerCore::Options o;
  o.predict_max = 4;
  o.prefilter = "least_requests";
  Fixture f("min_e2e", 16, o);
  std::vector<RequestMeta> requests;
  for (uint64_t id = 1; id <= 13; ++id) requests.push_back(Request(id));
  std::set<InstanceId> busy;
  for (const RequestMeta& r : requests) {
    f.core->OnSchedule(r, f.now, f.fx);
    ASSERT_EQ(f.fx.asked.size(), 4u);
    EXPECT_TRUE(std::is_sorted(f.fx.asked.begin(), f.fx.asked.end()));
    const size_t idle = 16 - busy.size();
    const auto asked_busy =
        std::count_if(f.fx.asked.begin(), f.fx.asked.end(), [&](InstanceId i) { return busy.count(i) > 0; });
    EXPECT_EQ(static_cast<size_t>(asked_busy), idle >= 4 ? 0 : 4 - idle);
    f.core->OnDeadline(f.fx.decision, f.fx.deadline, f.fx);
    busy.insert(f.fx.dispatched.back().first);
  }
  EXPECT_EQ(busy.size(), 13u);
  EXPECT_EQ(f.core->counters().prefiltered, 13u * 12u);
}

TEST(SchedulerCoreTest, ThePrefilterKeepsTheInstanceThatHasThePrompt) {
  SchedulerCore::Options o;
  o.predict_max = 2;
  Fixture f("min_e2e", 16, o);
  RequestMeta first = Request(1);
  first.prompt_tokens = TokenCount(4096);
  first.segments = {{7, TokenCount(4096)}};
  f.core->OnSchedule(first, f.now, f.fx);
  f.core->OnDeadline(f.fx.decision, f.fx.deadline, f.fx);
  const InstanceId holder = f.fx.dispatched.back().first;
  f.core->OnFinished(first.id, TokenCount(10), f.now);
  for (uint64_t id = 2; id < 12; ++id) {  // all are idle, and ties are broken another way for each
    RequestMeta again = first;
    again.id = RequestId(id);
    f.core->OnSchedule(again, f.now, f.fx);
    EXPECT_EQ(std::count(f.fx.asked.begin(), f.fx.asked.end(), holder), 1) << "request " << id;
    f.core->OnDeadline(f.fx.decision, f.fx.deadline, f.fx);
    f.core->OnFinished(again.id, TokenCount(10), f.now);
  }
}

TEST(SchedulerCoreTest, APrefilterThatNeedsPredictionsIsRefused) {
  FixedLength lengths;
  SchedulerCore::Options o;
  o.policy = "min_e2e";
  o.predict_max = 4;
  o.prefilter = "min_ttft";
  const auto core = SchedulerCore::Make(o, std::vector<SchedulerCore::InstanceInfo>(8), &lengths);
  ASSERT_FALSE(core.ok());
  EXPECT_NE(core.error().message.find("min_ttft"), std::string::npos);
}

TEST(SchedulerCoreTest, AnotherPolicyHoldsFromTheNextDecisionOn) {
  Fixture f("round_robin", 3);
  const RequestMeta a = Request(1), b = Request(2);
  f.core->OnSchedule(a, f.now, f.fx);
  EXPECT_EQ(f.fx.records.back().policy, "round_robin");
  ASSERT_TRUE(f.core->SetPolicy("least_requests", {}).ok());
  f.core->OnSchedule(b, f.now, f.fx);
  EXPECT_EQ(f.fx.records.back().policy, "least_requests");
  EXPECT_FALSE(f.core->SetPolicy("no such", {}).ok());
}

}  // namespace
}  // namespace foretoken
