#include "runtime/predict/ledger.h"

#include <gtest/gtest.h>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

Prediction Predicted(double ttft_s, double e2e_s) {
  Prediction p;
  p.ttft = Duration::FromSeconds(ttft_s);
  p.ttft_p90 = Duration::FromSeconds(1.2 * ttft_s);
  p.e2e = Duration::FromSeconds(e2e_s);
  p.e2e_p90 = Duration::FromSeconds(1.2 * e2e_s);
  return p;
}

TEST(PredictionLedgerTest, CountsBiasErrorAndCoverage) {
  PredictionLedger ledger(LedgerOptions{});
  Prng g(1);
  for (uint64_t i = 1; i <= 1000; ++i) {
    const Instant now = Instant::FromNanos(static_cast<int64_t>(i) * 1'000'000'000);
    ledger.OnAssigned(RequestId(i), Predicted(1, 10), now);
    // A tenth beyond the p90, four tenths between, half below the p50.
    const double factor = i % 10 == 0 ? 1.3 : i % 2 == 0 ? 1.1 : 0.9;
    ledger.OnFirstToken(RequestId(i), now + Duration::FromSeconds(factor));
    ledger.OnFinished(RequestId(i), now + Duration::FromSeconds(10 * 1.25));
  }
  EXPECT_EQ(ledger.ttft().count, 1000U);
  EXPECT_NEAR(ledger.ttft().below_p50, 0.5, 0.02);
  EXPECT_NEAR(ledger.ttft().below_p90, 0.9, 0.02);
  EXPECT_NEAR(ledger.ttft().p50, 1 / 0.9 - 1, 0.03);
  EXPECT_NEAR(ledger.e2e().bias, -0.2, 0.001);
  EXPECT_EQ(ledger.e2e().below_p90, 0);
  EXPECT_EQ(ledger.open(), 0U);
  EXPECT_LT(ledger.memory_bytes(), 65536U);
}

TEST(PredictionLedgerTest, UnfinishedRequestsSayNothing) {
  PredictionLedger ledger(LedgerOptions{});
  ledger.OnAssigned(RequestId(1), Predicted(1, 2), Instant::FromNanos(0));
  ledger.OnGone(RequestId(1));
  ledger.OnFinished(RequestId(1), Instant::FromNanos(5));
  ledger.OnFirstToken(RequestId(2), Instant::FromNanos(5));
  EXPECT_EQ(ledger.e2e().count, 0U);
  EXPECT_EQ(ledger.ttft().count, 0U);
}

// Requests whose TTFT is predicted as 1 s by each level up to the answering one; `actual_s` came of it. `right_above`: those asked in
// secret said what came.
int32_t Feed(PredictionLedger& ledger, uint64_t& id, int requests, double actual_s, bool right_above = false) {
  for (int i = 0; i < requests; ++i) {
    PredictionLedger::Secret secret{-1, -1, -1};
    for (int32_t l = 0; l < ledger.level(); ++l)
      secret[static_cast<size_t>(l)] = right_above ? static_cast<float>(actual_s) : 1;
    ledger.OnAssigned(RequestId(++id), Predicted(1, 2), Instant::FromNanos(0), secret);
    ledger.OnFirstToken(RequestId(id), Instant::FromNanos(0) + Duration::FromSeconds(actual_s));
    ledger.OnFinished(RequestId(id), Instant::FromNanos(0) + Duration::FromSeconds(2));
  }
  return ledger.level();
}

TEST(PredictionLedgerTest, ErrorBeyondTheBoundDemotesAndABetterPredictorComesBackWhenItIsRight) {
  LedgerOptions o;
  o.lowest_level = 2;
  PredictionLedger ledger(o);
  uint64_t id = 0;
  EXPECT_EQ(Feed(ledger, id, 100, 1.05), 0);
  // Half of the last 64 must be off before their median is.
  EXPECT_EQ(Feed(ledger, id, 31, 0.25), 0);
  EXPECT_EQ(Feed(ledger, id, 1, 0.25), 1);
  EXPECT_EQ(Feed(ledger, id, 31, 0.25), 1);
  EXPECT_EQ(Feed(ledger, id, 1, 0.25), 2);
  EXPECT_EQ(Feed(ledger, id, 500, 0.25), 2) << "the lowest stays";
  EXPECT_EQ(ledger.demotions(), 2U);
  EXPECT_EQ(Feed(ledger, id, 32, 0.25, true), 2);
  EXPECT_EQ(Feed(ledger, id, 1, 0.25, true), 0) << "the configured one is right again";
  EXPECT_EQ(ledger.recoveries(), 1U);
}

TEST(PredictionLedgerTest, BetweenTheTwoBoundsNobodyMoves) {
  LedgerOptions o;
  o.lowest_level = 1;
  PredictionLedger ledger(o);
  uint64_t id = 0;
  const double between = 1 / 1.45;
  EXPECT_EQ(Feed(ledger, id, 500, between), 0);
  EXPECT_EQ(Feed(ledger, id, 100, 0.25), 1);
  EXPECT_EQ(Feed(ledger, id, 500, between), 1);
}

TEST(PredictionLedgerTest, APredictionOfTheLevelBeforeSaysNothingOfThePresentOne) {
  LedgerOptions o;
  o.lowest_level = 2;
  PredictionLedger ledger(o);
  uint64_t id = 0;
  for (int i = 0; i < 1000; ++i) ledger.OnAssigned(RequestId(++id), Predicted(1, 2), Instant::FromNanos(0));
  for (uint64_t i = 1; i <= id; ++i) ledger.OnFirstToken(RequestId(i), Instant::FromNanos(0) + Duration::FromSeconds(0.25));
  EXPECT_EQ(ledger.level(), 1) << "all were asked on level 0";
  EXPECT_EQ(ledger.ttft().count, 0U);
}

TEST(PredictionLedgerTest, OnlyTheFirstOfSeveralFirstTokensCountsAndNoneThatCameUnseen) {
  PredictionLedger ledger(LedgerOptions{});
  const Instant start = Instant::FromNanos(0);
  for (uint64_t i = 1; i <= 3; ++i) ledger.OnAssigned(RequestId(i), Predicted(1, 2), start);
  ledger.OnFirstToken(RequestId(1), start + Duration::Seconds(1));
  ledger.OnFirstToken(RequestId(1), start + Duration::Seconds(9));  // after a preemption
  const std::pair<RequestId, bool> live[] = {{RequestId(1), true}, {RequestId(2), true}, {RequestId(7), false}};
  ledger.Retain(live);
  ledger.OnFirstToken(RequestId(2), start + Duration::Seconds(9));
  ledger.OnFinished(RequestId(3), start + Duration::Seconds(9));  // ended in a message that was lost
  EXPECT_EQ(ledger.ttft().count, 1U);
  EXPECT_EQ(ledger.e2e().count, 0U);
  EXPECT_EQ(ledger.open(), 2U);
}

TEST(PredictionLedgerTest, DemotesNobodyByDefault) {
  PredictionLedger ledger(LedgerOptions{});
  uint64_t id = 0;
  EXPECT_EQ(Feed(ledger, id, 1000, 0.25), 0);
  EXPECT_EQ(ledger.demotions(), 0U);
}

}  // namespace
}  // namespace foretoken
