// The figures of a run against values worked out by hand and against brute force.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "runtime/base/prng.h"
#include "runtime/metrics/drift_meter.h"
#include "runtime/metrics/prediction_error.h"
#include "runtime/metrics/quantile_sketch.h"
#include "runtime/metrics/rank_agreement.h"
#include "runtime/metrics/recovery.h"
#include "runtime/metrics/run_metrics.h"
#include "runtime/metrics/sample_set.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

// The definition, by sorting.
double SortedQuantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double at = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(std::floor(at));
  const double next = values[std::min(below + 1, values.size() - 1)];
  return values[below] + (next - values[below]) * (at - static_cast<double>(below));
}

TEST(SampleSetTest, AnEmptySetHasNoStatistics) {
  const SampleSet set;
  EXPECT_FALSE(set.Mean());
  EXPECT_FALSE(set.Quantile(0.5));
  EXPECT_FALSE(set.Summarize());
}

TEST(SampleSetTest, QuantilesInterpolateBetweenNeighbours) {
  SampleSet set;
  for (const double v : {4.0, 1.0, 3.0, 2.0}) set.Add(v);
  EXPECT_DOUBLE_EQ(*set.Quantile(0), 1);
  EXPECT_DOUBLE_EQ(*set.Quantile(0.5), 2.5);
  EXPECT_DOUBLE_EQ(*set.Quantile(0.25), 1.75);
  EXPECT_DOUBLE_EQ(*set.Quantile(1), 4);
  EXPECT_DOUBLE_EQ(*set.Mean(), 2.5);
}

TEST(SampleSetTest, EqualsSortingForAnyValues) {
  for (const uint64_t seed : testing::Seeds(50)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    SampleSet set;
    const int64_t n = prng.Between(1, 300);
    for (int64_t i = 0; i < n; ++i) set.Add(static_cast<double>(prng.Between(0, prng.Chance(0.5) ? 5 : 100'000)));
    const double q = prng.Unit();
    EXPECT_DOUBLE_EQ(*set.Quantile(q), SortedQuantile(set.values(), q));
    const Summary s = *set.Summarize();
    EXPECT_DOUBLE_EQ(s.p50, SortedQuantile(set.values(), 0.5));
    EXPECT_DOUBLE_EQ(s.p95, SortedQuantile(set.values(), 0.95));
    EXPECT_DOUBLE_EQ(s.p99, SortedQuantile(set.values(), 0.99));
    EXPECT_DOUBLE_EQ(s.max, *std::max_element(set.values().begin(), set.values().end()));
  }
}

RequestRecord Finished(int64_t arrival_ms, int64_t first_ms, int64_t last_ms, int64_t tokens) {
  RequestRecord r;
  r.arrival = Instant() + Duration::Millis(arrival_ms);
  r.first_token = Instant() + Duration::Millis(first_ms);
  r.last_token = Instant() + Duration::Millis(last_ms);
  r.output_tokens = tokens;
  r.outcome = OutcomeKind::kFinished;
  return r;
}

TEST(RunMetricsTest, HandWorkedRun) {
  RunMetrics m;
  m.Add(Finished(0, 500, 900, 11));       // TTFT .5, E2E .9, TPOT .04: meets 1 s and 50 ms
  m.Add(Finished(1000, 2500, 2500, 1));   // TTFT 1.5: misses; no TPOT
  m.Add(Finished(2000, 2100, 2700, 11));  // TPOT .06: misses
  RequestRecord rejected;
  rejected.outcome = OutcomeKind::kRejected;
  m.Add(rejected);
  const RunReport r = m.Report(Duration::Seconds(10));
  EXPECT_EQ(r.requests, 4u);
  EXPECT_EQ(r.completed, 3u);
  EXPECT_EQ(r.rejected, 1u);
  EXPECT_EQ(r.lost, 0u);
  EXPECT_DOUBLE_EQ(r.ttft->mean, 0.7);
  EXPECT_DOUBLE_EQ(r.ttft->p50, 0.5);
  EXPECT_DOUBLE_EQ(r.e2e->max, 1.5);
  EXPECT_EQ(r.tpot->count, 2u);
  EXPECT_DOUBLE_EQ(r.tpot->mean, 0.05);
  EXPECT_DOUBLE_EQ(*r.slo_attainment, 0.25);
  EXPECT_DOUBLE_EQ(r.goodput_rps, 0.1);
  EXPECT_DOUBLE_EQ(r.output_tokens_per_second, 2.3);
}

TEST(RunMetricsTest, TpotIsAbsentForOneToken) {
  EXPECT_FALSE(TpotSecondsOf(Finished(0, 10, 10, 1)));
  EXPECT_FALSE(TpotSecondsOf(Finished(0, 10, 10, 0)));
  EXPECT_DOUBLE_EQ(*TpotSecondsOf(Finished(0, 10, 30, 2)), 0.02);
}

TEST(RunMetricsTest, ATargetIsMetWhenReachedExactly) {
  EXPECT_TRUE(MeetsSlo(Finished(0, 1000, 1050, 2)));
  EXPECT_FALSE(MeetsSlo(Finished(0, 1001, 1050, 2)));
  EXPECT_FALSE(MeetsSlo(Finished(0, 1000, 1051, 2)));
}

TEST(RunMetricsTest, WhatDidNotFinishMeetsNoTargetButCountsAsOffered) {
  for (const OutcomeKind kind : {OutcomeKind::kRejected, OutcomeKind::kCancelled, OutcomeKind::kFailed, OutcomeKind::kLost}) {
    RunMetrics m;
    RequestRecord r = Finished(0, 10, 20, 2);
    r.outcome = kind;
    m.Add(r);
    const RunReport report = m.Report(Duration::Seconds(1));
    EXPECT_DOUBLE_EQ(*report.slo_attainment, 0);
    EXPECT_FALSE(report.ttft);
    EXPECT_EQ(report.completed + report.rejected + report.cancelled + report.failed + report.lost, report.requests);
    EXPECT_EQ(report.completed, 0u);
  }
}

TEST(RunMetricsTest, AnEmptyRunHasNoAttainment) { EXPECT_FALSE(RunMetrics().Report(Duration()).slo_attainment); }

TEST(PredictionErrorTest, HandWorkedErrors) {
  PredictionError e;
  e.Add(1.1, 1);
  e.Add(3, 4);
  e.Add(5, 0);
  EXPECT_EQ(e.count(), 2u);
  EXPECT_EQ(e.without_actual(), 1u);
  EXPECT_NEAR(*e.Mape(), (0.1 + 0.25) / 2, 1e-12);
  EXPECT_NEAR(*e.Bias(), 4.1 / 5 - 1, 1e-12);
  EXPECT_NEAR(*e.ApeQuantile(1), 0.25, 1e-12);
}

TEST(RankAgreementTest, SpearmanOfHandWorkedRanks) {
  EXPECT_DOUBLE_EQ(*Spearman({1, 2, 3, 4}, {10, 20, 30, 1000}), 1);
  EXPECT_DOUBLE_EQ(*Spearman({1, 2, 3, 4}, {9, 7, 5, 3}), -1);
  // Ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * 4 / (5 * 24) = 0.8.
  EXPECT_NEAR(*Spearman({1, 2, 3, 4, 5}, {2, 1, 4, 3, 5}), 0.8, 1e-12);
  EXPECT_EQ(Ranks({3, 1, 3, 2}), (std::vector<double>{3.5, 1, 3.5, 2}));
}

TEST(RankAgreementTest, WithoutARankingThereIsNoCorrelation) {
  EXPECT_FALSE(Spearman({1}, {1}));
  EXPECT_FALSE(Spearman({1, 1, 1}, {1, 2, 3}));
}

TEST(RankAgreementTest, RanksAreThoseOfCounting) {
  for (const uint64_t seed : testing::Seeds(30)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    std::vector<double> v;
    for (int64_t n = prng.Between(1, 40); n > 0; --n) v.push_back(static_cast<double>(prng.Between(0, 9)));
    const std::vector<double> ranks = Ranks(v);
    for (size_t i = 0; i < v.size(); ++i) {
      double below = 0, equal = 0;
      for (const double other : v) {
        below += other < v[i];
        equal += other == v[i];
      }
      EXPECT_DOUBLE_EQ(ranks[i], below + (equal + 1) / 2);
    }
  }
}

TEST(AgreeAtOneTest, ACommonBestOneAmongTiesAgrees) {
  AgreeAtOne a;
  EXPECT_FALSE(a.Share());
  a.Add({1, 2, 3}, {5, 9, 9});  // the same
  a.Add({1, 1, 3}, {9, 5, 9});  // one of a tie
  a.Add({1, 2, 3}, {9, 9, 5});  // another
  a.Add({}, {});                // no question
  EXPECT_EQ(a.questions(), 3u);
  EXPECT_DOUBLE_EQ(*a.Share(), 2.0 / 3);
}

TEST(QuantileSketchTest, IsWithinItsAccuracyOfTheNearestRank) {
  for (const uint64_t seed : testing::Seeds(20)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    QuantileSketch sketch;
    std::vector<double> values;
    const double sigma = 0.1 + 2 * prng.Unit();
    for (int i = 0; i < 2000; ++i) values.push_back(std::clamp(prng.LogNormal(-2, sigma), 1e-6, 1e3));
    for (const double v : values) sketch.Add(v);
    std::sort(values.begin(), values.end());
    for (const double q : {0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0}) {
      const auto rank = std::max<size_t>(1, static_cast<size_t>(std::ceil(q * 2000)));
      EXPECT_NEAR(*sketch.Quantile(q) / values[rank - 1], 1, 0.01 + 1e-9) << q;
    }
  }
}

TEST(QuantileSketchTest, AMergedSketchIsTheSketchOfBothStreams) {
  Prng prng(7);
  QuantileSketch a, b, both;
  for (int i = 0; i < 500; ++i) {
    const double v = prng.Exponential(0.1);
    (i % 3 == 0 ? a : b).Add(v);
    both.Add(v);
  }
  a.Merge(b);
  EXPECT_EQ(a.count(), both.count());
  for (const double q : {0.1, 0.5, 0.95}) EXPECT_EQ(*a.Quantile(q), *both.Quantile(q));
}

TEST(QuantileSketchTest, ValuesOutOfRangeCountAtItsEnds) {
  QuantileSketch s;
  EXPECT_FALSE(s.Quantile(0.5));
  s.Add(0);
  s.Add(-4);
  s.Add(1e9);
  EXPECT_NEAR(*s.Quantile(0), 1e-6, 1e-8);
  EXPECT_NEAR(*s.Quantile(1) / 1e3, 1, 0.02);
  s.Clear();
  EXPECT_EQ(s.count(), 0u);
}

TEST(DriftMeterTest, HandWorkedWindow) {
  DriftMeter m(3);
  EXPECT_FALSE(m.Report());
  m.Add({100, 100, 1});  // falls out
  m.Add({1, 2, 2});      // covered, APE .5
  m.Add({3, 4, 2});      // covered, APE .5
  m.Add({2, 3, 4});      // not covered, APE .5
  m.Add({1, 1, 0});      // no actual: left out
  const DriftReport r = *m.Report();
  EXPECT_EQ(r.count, 3u);
  EXPECT_EQ(m.total(), 4u);
  EXPECT_NEAR(r.bias, 6.0 / 8 - 1, 1e-12);
  EXPECT_NEAR(r.ape_p50, 0.5, 1e-12);
  EXPECT_NEAR(r.coverage_p90, 2.0 / 3, 1e-12);
}

TEST(DriftMeterTest, OnlyTheNewestWindowCounts) {
  for (const uint64_t seed : testing::Seeds(10)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    DriftMeter windowed(16), fresh(16);
    std::vector<DriftPair> all;
    for (int64_t n = prng.Between(17, 100); n > 0; --n) all.push_back({prng.Unit() + 0.1, prng.Unit() + 1, prng.Unit() + 0.1});
    for (const DriftPair& p : all) windowed.Add(p);
    for (size_t i = all.size() - 16; i < all.size(); ++i) fresh.Add(all[i]);
    EXPECT_NEAR(windowed.Report()->bias, fresh.Report()->bias, 1e-12);
    EXPECT_DOUBLE_EQ(windowed.Report()->ape_p95, fresh.Report()->ape_p95);
    EXPECT_DOUBLE_EQ(windowed.Report()->coverage_p90, fresh.Report()->coverage_p90);
  }
}

std::vector<ErrorSample> EveryTenth(const std::function<double(double)>& error) {
  std::vector<ErrorSample> out;
  for (int k = 0; k < 400; ++k) out.push_back({Instant() + Duration::Millis(100 * k), error(k / 10.0)});
  return out;
}

TEST(RecoveryTest, EndsWithTheFirstSliceFromWhichOnTheErrorStaysInTheBand) {
  const auto clean = EveryTenth([](double s) { return s > 30 ? 2.0 : 1.0; });
  const Instant end = Instant() + Duration::Seconds(20);
  const auto after = [&](const std::function<double(double)>& error) { return RecoveryTime(EveryTenth(error), clean, end); };
  EXPECT_EQ(after([](double s) { return s < 20 ? 9.0 : 2.0; }), Duration());
  EXPECT_EQ(after([](double s) { return s < 23 ? 9.0 : 2.0; }), Duration::Seconds(3));
  EXPECT_EQ(after([](double s) { return s < 23 || (s >= 25 && s < 25.5) ? 9.0 : 1.0; }), Duration::Millis(5500))
      << "two seconds within the band are not yet back";
  EXPECT_EQ(after([](double s) { return s < 23 || s >= 36 ? 9.0 : 1.0; }), Duration::Seconds(3)) << "that is another fault";
  EXPECT_EQ(after([](double) { return 9.0; }), std::nullopt);
  EXPECT_EQ(RecoveryTime({}, clean, end), std::nullopt);
}

}  // namespace
}  // namespace foretoken
