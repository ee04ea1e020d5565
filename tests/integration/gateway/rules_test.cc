// The gateway's rules without I/O: retry budget, engine health, token estimates.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "integration/gateway/engine_health.h"
#include "integration/gateway/prompt_digest.h"
#include "integration/gateway/retry_budget.h"
#include "integration/gateway/shadow_statistics.h"
#include "integration/gateway/token_estimator.h"
#include "integration/gateway/worker_list.h"
#include "runtime/base/prng.h"

namespace foretoken {
namespace {

Instant At(double seconds) { return Instant::FromNanos(1'000'000'000'000) + Duration::FromSeconds(seconds); }

TEST(RetryBudgetTest, NeverAllowsMoreThanItsShareOfAnyWindow) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Prng prng(seed);
    RetryBudget budget;
    std::vector<double> requests, retries;
    double t = 0;
    for (int i = 0; i < 4000; ++i) {
      t += prng.Exponential(0.01);
      budget.OnRequest(At(t));
      requests.push_back(t);
      if (prng.Chance(0.4) && budget.TryRetry(At(t))) retries.push_back(t);
      // The window's edge is known to a twentieth of it.
      const auto within = [&](const std::vector<double>& v, double seconds) {
        return static_cast<double>(std::count_if(v.begin(), v.end(), [&](double x) { return x > t - seconds; }));
      };
      if (i % 50 != 0) continue;
      ASSERT_LE(within(retries, 9.5), std::max(10.0, 0.1 * within(requests, 10.5))) << "seed " << seed;
    }
    EXPECT_GT(retries.size(), 100u);
    EXPECT_GT(budget.denied(), 100u);
  }
}

TEST(RetryBudgetTest, ForgetsAfterItsWindow) {
  RetryBudget budget;
  int allowed = 0;
  for (int i = 0; i < 100; ++i) allowed += budget.TryRetry(At(0));
  EXPECT_EQ(allowed, 10);
  EXPECT_FALSE(budget.TryRetry(At(9)));
  EXPECT_TRUE(budget.TryRetry(At(11)));
}

TEST(EngineHealthTest, OneErrorIsNoOutageARunIs) {
  EngineHealth health;
  EXPECT_FALSE(health.OnTrouble(EngineTrouble::kErrors, At(0)));
  EXPECT_FALSE(health.OnTrouble(EngineTrouble::kErrors, At(0)));
  health.OnGoodAnswer();
  EXPECT_FALSE(health.OnTrouble(EngineTrouble::kErrors, At(1)));
  EXPECT_FALSE(health.OnTrouble(EngineTrouble::kErrors, At(1)));
  EXPECT_TRUE(health.OnTrouble(EngineTrouble::kErrors, At(1)));
  EXPECT_FALSE(health.Usable(At(1)));
}

TEST(EngineHealthTest, ATrialAtATimeAndSoonAfterRecovery) {
  EngineHealth health;
  for (int i = 0; i < 3; ++i) health.OnTrouble(EngineTrouble::kErrors, At(0));
  for (int i = 0; i < 50; ++i) {  // every trial fails: the back-off stays short
    const Instant due = health.retry_at();
    EXPECT_LE((due - At(i)).seconds(), 0.5);
    EXPECT_TRUE(health.Usable(due));
    health.OnSent();
    EXPECT_FALSE(health.Usable(due)) << "a second trial beside the first";
    health.OnTrouble(EngineTrouble::kErrors, At(i + 1));
  }
  health.OnSent();
  EXPECT_TRUE(health.OnGoodAnswer());
  EXPECT_TRUE(health.Usable(At(60)));
}

TEST(EngineHealthTest, TheUnreachableComeBackByProbesOnly) {
  EngineHealth health;
  EXPECT_TRUE(health.OnTrouble(EngineTrouble::kCrashed, At(0)));
  EXPECT_FALSE(health.Usable(At(100)));
  EXPECT_TRUE(health.OnProbeOk(At(100)));
  EXPECT_TRUE(health.Usable(At(100)));
  EXPECT_TRUE(health.OnTrouble(EngineTrouble::kHung, At(200)));
  EXPECT_FALSE(health.OnProbeOk(At(200))) << "its health does not show what hangs";
  EXPECT_FALSE(health.Usable(At(300))) << "a user's request is no trial of what hangs";
  EXPECT_TRUE(health.OnGoodAnswer());
  EXPECT_TRUE(health.Usable(At(300)));
}

TEST(WorkerListTest, AUrlALineWithComments) {
  const auto list = ReadWorkerList("# ours\nhttp://a:1\n\n  b:2@3  # rank 3\r\n", "w");
  ASSERT_TRUE(list.ok()) << list.error().message;
  EXPECT_EQ(*list, (std::vector<std::string>{"http://a:1", "b:2@3"}));
}

TEST(WorkerListTest, OneBadLineRefusesAll) {
  for (const auto& [text, where] : {std::pair("http://a:1\nhttp://a:99999\n", "w:2: "), std::pair("a:1\nhttp://a:1\n", "w:2: "),
                                    std::pair("https://a:1", "w:1: "), std::pair("http://[::1", "w:1: "),
                                    std::pair("a b:1", "w:1: "), std::pair("# nothing\n", "names no worker")}) {
    const auto list = ReadWorkerList(text, "w");
    ASSERT_FALSE(list.ok()) << text;
    EXPECT_NE(list.error().message.find(where), std::string::npos) << list.error().message;
  }
}

TEST(ShadowStatisticsTest, TheIntervalHoldsTheTrueGainAboutAsOftenAsItSays) {
  int covered = 0;
  constexpr int kRuns = 200;
  for (uint64_t seed = 1; seed <= kRuns; ++seed) {
    Prng prng(seed);
    ShadowStatistics s;
    double level = 0;
    for (int i = 0; i < 3000; ++i) {  // neighbours are alike: the load wanders
      level = 0.9 * level + 0.01 * prng.Normal();
      s.Add(prng.Chance(0.3), Duration::FromSeconds(2.05 + level + 0.1 * prng.Normal()), Duration::FromSeconds(2));
    }
    const ShadowStatistics::Report r = s.report();
    EXPECT_NEAR(r.differ_share, 0.3, 0.05) << "seed " << seed;
    EXPECT_LT(r.gain_low_s, r.gain_high_s) << "seed " << seed;
    covered += r.gain_low_s <= 0.05 && 0.05 <= r.gain_high_s;
  }
  EXPECT_GE(covered, kRuns * 88 / 100);
}

PromptDigest DigestOf(const std::string& text, Prng* cuts = nullptr) {
  PromptDigest d;
  for (size_t at = 0; at < text.size();) {
    const size_t n = cuts == nullptr ? text.size() : 1 + cuts->Below(300);
    d.Add(std::string_view(text).substr(at, n));
    at += n;
  }
  d.EndPart();
  d.Finish();
  return d;
}

TEST(PromptDigestTest, DoesNotDependOnHowTextIsCut) {
  Prng prng(7);
  std::string text;
  for (int i = 0; i < 90'000; ++i) text += static_cast<char>('a' + prng.Below(26));
  const PromptDigest whole = DigestOf(text);
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Prng cuts(seed);
    const PromptDigest pieces = DigestOf(text, &cuts);
    ASSERT_EQ(pieces.blocks().size(), whole.blocks().size());
    for (size_t i = 0; i < whole.blocks().size(); ++i) ASSERT_EQ(pieces.blocks()[i].hash, whole.blocks()[i].hash);
  }
  EXPECT_LE(whole.blocks().size(), 270u);
}

TEST(PromptDigestTest, PromptsShareBlocksUntilTheyDiffer) {
  const std::string shared(1024, 'x');
  const PromptDigest a = DigestOf(shared + "one question"), b = DigestOf(shared + "another one");
  ASSERT_EQ(a.blocks().size(), 5u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(a.blocks()[i].hash, b.blocks()[i].hash);
  EXPECT_NE(a.blocks()[4].hash, b.blocks()[4].hash);
}

TEST(TokenEstimatorTest, LearnsBytesPerTokenPerModelAndKindOfText) {
  TokenEstimator tokens;
  const PromptDigest prose = DigestOf(std::string(3000, 'a'));
  std::string chinese;
  for (int i = 0; i < 500; ++i) chinese += "\xe4\xbd\xa0\xe5\xa5\xbd";
  const PromptDigest other = DigestOf(chinese);
  EXPECT_EQ(other.text_class(), TextClass::kNonLatin);
  for (int i = 0; i < 100; ++i) {
    tokens.Learn(ModelId(3), TextClass::kProse, 3000, 1, 1004);
    tokens.Learn(ModelId(3), TextClass::kNonLatin, 3000, 1, 1504);
  }
  EXPECT_EQ(tokens.Tokens(ModelId(3), prose).tokens, TokenCount(1004));
  EXPECT_EQ(tokens.Tokens(ModelId(3), other).tokens, TokenCount(1504));
  EXPECT_LT(tokens.Tokens(ModelId(3), prose).error, 0.06);
  EXPECT_NE(tokens.Tokens(ModelId(2), prose).tokens, TokenCount(1004)) << "another model";
}

TEST(TokenEstimatorTest, SegmentsOfEqualTextStayEqualWhileTheRatioSettles) {
  TokenEstimator tokens;
  for (int i = 0; i < 10; ++i) tokens.Learn(ModelId(0), TextClass::kProse, 3000, 0, 1000);
  std::vector<PromptSegment> before, after;
  const PromptDigest prompt = DigestOf(std::string(3000, 'a'));
  tokens.Segments(ModelId(0), prompt, before);
  for (int i = 0; i < 10; ++i) tokens.Learn(ModelId(0), TextClass::kProse, 3000, 0, 1040);
  tokens.Segments(ModelId(0), prompt, after);
  EXPECT_EQ(before, after);
}

}  // namespace
}  // namespace foretoken
