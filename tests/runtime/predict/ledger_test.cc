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

// `good` from..to: requests whose prediction holds; all others are off by a factor of four.
PredictorKind Feed(PredictionLedger& ledger, uint64_t& id, int requests, bool good) {
  for (int i = 0; i < requests; ++i) {
    ledger.OnAssigned(RequestId(++id), Predicted(1, 2), Instant::FromNanos(0));
    ledger.OnFirstToken(RequestId(id), Instant::FromNanos(0) + Duration::FromSeconds(good ? 1.05 : 0.25));
    ledger.OnFinished(RequestId(id), Instant::FromNanos(0) + Duration::FromSeconds(2));
  }
  return ledger.Advise(PredictorKind::kTimeline);
}

TEST(PredictionLedgerTest, ErrorBeyondTheBoundDemotesAndProbationEnds) {
  LedgerOptions o;
  o.demote = true;
  PredictionLedger ledger(o);
  uint64_t id = 0;
  EXPECT_EQ(Feed(ledger, id, 100, true), PredictorKind::kTimeline);
  // Over half of the window must be off before its median is.
  EXPECT_EQ(Feed(ledger, id, 120, false), PredictorKind::kPattern);
  EXPECT_EQ(Feed(ledger, id, 40, false), PredictorKind::kLedger);
  EXPECT_EQ(ledger.demotions(), 2U);
  // What answers below is good: back up level by level.
  EXPECT_EQ(Feed(ledger, id, 520, true), PredictorKind::kPattern);
  EXPECT_EQ(Feed(ledger, id, 520, true), PredictorKind::kTimeline);
  EXPECT_EQ(ledger.recoveries(), 2U);
  EXPECT_EQ(ledger.Advise(PredictorKind::kPatternReuse), PredictorKind::kPatternReuse);
}

TEST(PredictionLedgerTest, DemotesNobodyByDefault) {
  PredictionLedger ledger(LedgerOptions{});
  uint64_t id = 0;
  EXPECT_EQ(Feed(ledger, id, 1000, false), PredictorKind::kTimeline);
  EXPECT_EQ(ledger.demotions(), 0U);
}

}  // namespace
}  // namespace foretoken
