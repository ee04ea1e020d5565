// The pattern predictors: pure, bounded in memory, near the truth where a pattern can be.
#include "runtime/predict/pattern.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/predict/mirror_rig.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using testing::MirrorRig;
using testing::RigCase;
using testing::RigRequest;
using testing::Truth;

TEST(PatternTest, RepeatedAndReorderedQuestionsGetTheSameBits) {
  for (uint64_t seed : testing::Seeds(8)) {
    for (bool reuse : {false, true}) {
      SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
      RigCase c = testing::RandomCase(seed);
      c.rate *= 2;
      PatternPredictor pattern(MirrorRig::ProfileOf(c), nullptr, reuse);
      MirrorRig rig(c, seed);
      rig.Follow(&pattern);
      const auto requests = testing::MakeRequests(c, seed);
      for (size_t i = 0; i < requests.size(); ++i) {
        const RigRequest& r = requests[i];
        const RigRequest& other = requests[(i * 7 + 3) % requests.size()];
        rig.RunUntil(r.at);
        const Prediction first = pattern.Predict(MirrorRig::QueryOf(r, true), r.at);
        const Prediction second = pattern.Predict(MirrorRig::QueryOf(other, true), r.at);
        EXPECT_EQ(pattern.Predict(MirrorRig::QueryOf(other, true), r.at), second);
        EXPECT_EQ(pattern.Predict(MirrorRig::QueryOf(r, true), r.at), first);
        rig.Submit(r);
      }
    }
  }
}

TEST(PatternTest, MedianErrorIsAFewPercentOnTheRandomCases) {
  std::vector<double> ttft, e2e;
  for (uint64_t seed : testing::Seeds(12)) {
    const RigCase c = testing::RandomCase(seed);
    PatternPredictor pattern(MirrorRig::ProfileOf(c), nullptr, false);
    MirrorRig rig(c, seed);
    rig.Follow(&pattern);
    for (const RigRequest& r : testing::MakeRequests(c, seed)) {
      rig.RunUntil(r.at);
      if (rig.engine().Refusal(r.engine)) continue;
      const Truth with = rig.FutureWith(&r);
      const Prediction p = pattern.Predict(MirrorRig::QueryOf(r, false), r.at);
      ttft.push_back(std::abs(p.ttft.seconds() / (with.first.at(r.engine.id.value()) - r.at).seconds() - 1));
      e2e.push_back(std::abs(p.e2e.seconds() / (with.end.at(r.engine.id.value()) - r.at).seconds() - 1));
      rig.Submit(r);
    }
  }
  EXPECT_LT(testing::Quantile(ttft, 0.5), 0.05);
  EXPECT_LT(testing::Quantile(e2e, 0.5), 0.05);
}

TEST(PatternTest, WhatInvalidatesTheKeptStateIsCounted) {
  RigCase c;
  c.rate = 20;
  c.config.max_num_seqs = 16;
  PatternPredictor pattern(MirrorRig::ProfileOf(c), nullptr, true);
  MirrorRig rig(c, 1);
  rig.Follow(&pattern);
  for (const RigRequest& r : testing::MakeRequests(c, 1)) {
    rig.RunUntil(r.at);
    pattern.Predict(MirrorRig::QueryOf(r, false), r.at);
    pattern.Predict(MirrorRig::QueryOf(r, false), r.at);
    rig.Submit(r);
  }
  const PatternCounters& k = pattern.counters();
  EXPECT_EQ(k.predictions, k.reused + k.advanced);
  EXPECT_GE(k.reused, k.predictions / 2);
  EXPECT_GT(k.by_finish, 0U);
  EXPECT_GT(k.by_pattern, 0U);
  EXPECT_LE(k.advanced, 1 + k.by_finish + k.by_pattern + k.by_gone);
  rig.RunUntil(Instant::FromNanos(4'000'000'000'000'000));
  EXPECT_EQ(pattern.running(), 0);
  EXPECT_EQ(pattern.waiting(), 0);
}

}  // namespace
}  // namespace foretoken
