// What each policy prefers, that ties are fair, and that nothing is starved or favoured by its number.
#include "runtime/sched/policy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace foretoken {
namespace {

std::vector<Candidate> Candidates(size_t n) {
  std::vector<Candidate> c(n);
  for (size_t i = 0; i < n; ++i) c[i].instance = InstanceId(static_cast<uint32_t>(i)), c[i].kv_tokens = 100'000;
  return c;
}

struct Chooser {
  RequestMeta meta;
  Prng prng{1};
  int Pick(std::string_view name, const std::vector<Candidate>& c, uint64_t seed = 1) {
    auto policy = std::move(MakePolicy(name, {})).value();
    return PickWith(*policy, c, seed);
  }
  int PickWith(Policy& policy, const std::vector<Candidate>& c, uint64_t seed = 1) {
    std::vector<double> scores(c.size(), kExcluded);
    policy.Score({&meta, TokenCount(100), {}}, c, prng, scores);
    for (double s : scores) EXPECT_FALSE(std::isnan(s));
    return PickLowest(c, scores, seed, meta.id, nullptr);
  }
};

TEST(PolicyTest, EveryKnownPolicyChoosesOneOfItsCandidatesWithAndWithoutPredictions) {
  Prediction p;
  p.ttft = Duration::Millis(5);
  for (std::string_view name : KnownPolicies()) {
    SCOPED_TRACE(name);
    Chooser s;
    s.meta.prompt_tokens = TokenCount(300);
    for (size_t n : {1u, 2u, 7u}) {
      auto c = Candidates(n);
      const int without = s.Pick(name, c);
      EXPECT_TRUE(without >= 0 && without < static_cast<int>(n));
      for (Candidate& x : c) x.prediction = &p;
      const int with = s.Pick(name, c);
      EXPECT_TRUE(with >= 0 && with < static_cast<int>(n));
    }
  }
}

TEST(PolicyTest, TiesAreFairAndNeverGoToTheLowestId) {
  for (std::string_view name : {"least_requests", "lmetric", "lwl", "min_e2e", "auto"}) {
    SCOPED_TRACE(name);
    Chooser s;
    s.meta.prompt_tokens = TokenCount(10);
    std::map<int, int> hits;
    for (uint64_t k = 0; k < 4000; ++k) {
      s.meta.id = RequestId(k);
      ++hits[s.Pick(name, Candidates(4))];
    }
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(hits[i], 1000, 150) << "instance " << i;
  }
}

TEST(PolicyTest, AnotherSeedBreaksTiesOtherwise) {
  Chooser s;
  int differ = 0;
  for (uint64_t k = 0; k < 200; ++k) {
    s.meta.id = RequestId(k);
    differ += s.Pick("least_requests", Candidates(8), 1) != s.Pick("least_requests", Candidates(8), 2);
  }
  EXPECT_GT(differ, 100);
}

TEST(PolicyTest, RoundRobinVisitsAllInTurnAlsoWhenTheSetChanges) {
  Chooser s;
  auto policy = std::move(MakePolicy("round_robin", {})).value();
  std::map<int, int> hits;
  for (int k = 0; k < 40; ++k) ++hits[s.PickWith(*policy, Candidates(4))];
  for (int i = 0; i < 4; ++i) EXPECT_EQ(hits[i], 10);
  auto three = Candidates(4);
  three.erase(three.begin() + 1);
  std::map<uint32_t, int> of;
  for (int k = 0; k < 30; ++k) ++of[three[static_cast<size_t>(s.PickWith(*policy, three))].instance.value()];
  EXPECT_EQ(of[0], 10);
  EXPECT_EQ(of[2], 10);
  EXPECT_EQ(of[3], 10);
}

TEST(PolicyTest, LoadPoliciesPreferTheLessLoaded) {
  for (std::string_view name : {"least_requests", "least_tokens", "kv_load", "prefix_weighted", "kv_router_cost", "lmetric",
                                "lmetricw", "v0", "lwl", "lpt", "p2c", "cache_aware"}) {
    SCOPED_TRACE(name);
    Chooser s;
    s.meta.prompt_tokens = TokenCount(500);
    auto c = Candidates(2);
    // 40 against 2 requests: also beyond cache_aware's gap.
    c[0].load = {
        .requests = 40, .prefilling = 9, .prefill_tokens = 5000, .context_tokens = 40000, .expected_output_left = 9000};
    c[1].load = {.requests = 2, .prefilling = 0, .prefill_tokens = 0, .context_tokens = 900, .expected_output_left = 100};
    EXPECT_EQ(s.Pick(name, c), 1);
  }
}

TEST(PolicyTest, PrefixPoliciesPreferTheCachedPrefixWhenLoadsAreEqual) {
  for (std::string_view name : {"prefix_weighted", "kv_router_cost", "lmetric", "lmetricw", "v0", "lwl", "cache_aware"}) {
    SCOPED_TRACE(name);
    Chooser s;
    s.meta.prompt_tokens = TokenCount(1000);
    auto c = Candidates(3);
    c[2].cached_tokens = 900;
    EXPECT_EQ(s.Pick(name, c), 2);
  }
}

TEST(PolicyTest, SessionAffinityKeepsASessionAndBoundsItsLoad) {
  Chooser s;
  s.meta.session = 77;
  auto c = Candidates(4);
  const int home = s.Pick("session_affinity", c);
  for (uint64_t k = 0; k < 20; ++k) {
    s.meta.id = RequestId(k);
    EXPECT_EQ(s.Pick("session_affinity", c), home);
  }
  c[static_cast<size_t>(home)].load.requests = 50;
  EXPECT_NE(s.Pick("session_affinity", c), home);
  std::map<int, int> hits;  // without a session: spread, not all to one
  s.meta.session = 0;
  for (uint64_t k = 0; k < 400; ++k) s.meta.id = RequestId(k), ++hits[s.Pick("session_affinity", Candidates(4))];
  EXPECT_EQ(hits.size(), 4u);
}

TEST(PolicyTest, PredictivePoliciesReadTheirOwnGoal) {
  Chooser s;
  auto c = Candidates(3);
  Prediction fast_first, fast_end, kind_to_others;
  fast_first.ttft = Duration::Millis(10), fast_first.e2e = fast_first.e2e_alone = Duration::Millis(900),
  fast_first.externality = Duration::Millis(500);
  fast_end.ttft = Duration::Millis(80), fast_end.e2e = fast_end.e2e_alone = Duration::Millis(400),
  fast_end.externality = Duration::Millis(900);
  kind_to_others.ttft = Duration::Millis(60), kind_to_others.e2e = kind_to_others.e2e_alone = Duration::Millis(600);
  c[0].prediction = &fast_first, c[1].prediction = &fast_end, c[2].prediction = &kind_to_others;
  EXPECT_EQ(s.Pick("min_ttft", c), 0);
  EXPECT_EQ(s.Pick("min_e2e", c), 1);
  EXPECT_EQ(s.Pick("externality", c), 2);
  EXPECT_EQ(s.Pick("auto", c), 2) << "nothing under stress: E2E + externality";
  kind_to_others.slo_violation = fast_end.slo_violation = 0.9;
  fast_first.slo_violation = 0.3;
  EXPECT_EQ(s.Pick("slo", c), 0);
  EXPECT_EQ(s.Pick("auto", c), 0) << "under stress: violations first";
}

TEST(PolicyTest, TheSloGuardExcludesACandidateWhoseTtftIsFarBehindTheBest) {
  Chooser s;
  auto c = Candidates(2);
  Prediction near, starved;
  near.ttft = Duration::Millis(100), near.e2e = near.e2e_alone = Duration::Seconds(2), near.slo_violation = 1;
  starved.ttft = Duration::Seconds(3), starved.e2e = starved.e2e_alone = Duration::Seconds(4), starved.slo_violation = 0;
  c[0].prediction = &near, c[1].prediction = &starved;
  EXPECT_EQ(s.Pick("slo", c), 0);
}

// On equal instances a TTFT far in the tail is not worth a little less harm to others; where speeds differ it is.
TEST(PolicyTest, AutoGuardsTheTailOfTtftOnEqualInstancesOnly) {
  const auto slow = std::make_shared<const AffineStepTime>(AffineStepTime::Coefficients{6e6, 90e3, 20e3, 30});
  const auto fast = std::make_shared<const AffineStepTime>(AffineStepTime::Coefficients{6e6, 30e3, 20e3, 30});
  const StepTimeModel models[] = {{fast, {}, 1, {}}, {slow, {}, 1, {}}};
  Chooser s;
  Prediction now, later;
  now.ttft = Duration::Millis(40), now.e2e_alone = Duration::Seconds(2), now.externality = Duration::Seconds(4);
  later.ttft = Duration::Millis(600), later.e2e_alone = Duration::Seconds(2), later.externality = Duration::Seconds(0);
  for (const bool equal : {true, false}) {
    auto c = Candidates(2);
    c[0].prediction = &now, c[1].prediction = &later;
    c[0].step_time = &models[0], c[1].step_time = &models[equal ? 0 : 1];
    EXPECT_EQ(s.Pick("auto", c), equal ? 0 : 1) << (equal ? "equal" : "mixed");
    EXPECT_EQ(s.Pick("slo", c), 1);
  }
}

// Where most targets are missed whatever is done, neither the guard nor the first token's weight decides: E2E and harm do.
TEST(PolicyTest, AutoGoesByHarmWhileMostTargetsAreMissed) {
  Chooser s;
  Prediction early, kind;
  early.ttft = Duration::Seconds(2), early.e2e_alone = Duration::Seconds(6), early.externality = Duration::Seconds(20);
  kind.ttft = Duration::Seconds(9), kind.e2e_alone = Duration::Seconds(12), kind.externality = Duration::Seconds(1);
  early.slo_violation = kind.slo_violation = 1;
  auto c = Candidates(2);
  c[0].prediction = &early, c[1].prediction = &kind;
  auto policy = std::move(MakePolicy("auto", {})).value();
  EXPECT_EQ(s.PickWith(*policy, c), 0) << "not known to be overloaded yet: the guard holds";
  for (int k = 0; k < 300; ++k) s.PickWith(*policy, c);
  EXPECT_EQ(s.PickWith(*policy, c), 1);
  EXPECT_EQ(policy->score_rule().kind, ScoreKind::kExternality);
  early.slo_violation = kind.slo_violation = 0;
  for (int k = 0; k < 600; ++k) s.PickWith(*policy, c);
  EXPECT_EQ(s.PickWith(*policy, c), 0) << "relieved";
}

TEST(PolicyTest, TheConstantsOfSimpleRulesAreWeights) {
  PolicyWeights queue_only;
  queue_only.prefix_kv = queue_only.prefix_missing = 0;
  Chooser s;
  s.meta.prompt_tokens = TokenCount(1000);
  auto c = Candidates(2);
  c[0].load.prefilling = 3, c[0].cached_tokens = 900;
  EXPECT_EQ(s.Pick("prefix_weighted", c), 0);
  auto policy = std::move(MakePolicy("prefix_weighted", queue_only)).value();
  EXPECT_EQ(s.PickWith(*policy, c), 1);
}

TEST(PolicyTest, ACandidateWithoutAPredictionRanksBehindEveryAnswer) {
  Chooser s;
  auto c = Candidates(2);
  Prediction slow;
  slow.e2e = slow.ttft = Duration::Seconds(100);
  c[1].prediction = &slow;
  for (std::string_view name : {"min_ttft", "min_e2e", "externality", "slo", "auto", "hybrid"})
    EXPECT_EQ(s.Pick(name, c), 1) << name;
}

TEST(PolicyTest, PickLowestReportsTheRunnerUp) {
  const auto c = Candidates(3);
  double second = 0;
  const double scores[] = {3, 1, 2};
  EXPECT_EQ(PickLowest(c, scores, 1, RequestId(1), &second), 1);
  EXPECT_EQ(second, 2);
  const double one[] = {kExcluded, 1, kExcluded};
  EXPECT_EQ(PickLowest(c, one, 1, RequestId(1), &second), 1);
  EXPECT_EQ(second, kExcluded);
  const double none[] = {kExcluded, kExcluded, kExcluded};
  EXPECT_EQ(PickLowest(c, none, 1, RequestId(1), &second), -1);
}

}  // namespace
}  // namespace foretoken
