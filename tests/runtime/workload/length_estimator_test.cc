#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/prng.h"
#include "runtime/workload/length_distribution.h"
#include "runtime/workload/make_length_estimator.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

constexpr LengthEstimatorKind kAll[] = {LengthEstimatorKind::kOracle, LengthEstimatorKind::kMaxTokens,
                                        LengthEstimatorKind::kHint, LengthEstimatorKind::kMean, LengthEstimatorKind::kSampled};

std::unique_ptr<LengthEstimator> Make(LengthEstimatorKind kind, const LengthEstimatorOptions& options = {}) {
  return std::move(MakeLengthEstimator(kind, options)).value();
}

LengthKey Key(double quantile, uint32_t length_class = 0) {
  LengthKey key;
  key.quantile = quantile;
  key.length_class = length_class;
  return key;
}

TEST(LengthEstimatorTest, TotalIsAboveWhatWasGeneratedAndWithinTheLimit) {
  for (const uint64_t seed : testing::Seeds(20)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    LengthEstimatorOptions options;
    options.truth = {{RequestId(1), TokenCount(77)}};
    for (const LengthEstimatorKind kind : kAll) {
      const auto estimator = Make(kind, options);
      for (int i = 0; i < 300; ++i) {
        if (prng.Chance(0.3)) {
          estimator->Learn(static_cast<uint32_t>(prng.Below(400)),
                           TokenCount(prng.Between(1, prng.Chance(0.1) ? 3'000'000 : 900)));
        }
        LengthKey key = Key(std::max(1e-9, prng.Unit()), static_cast<uint32_t>(prng.Below(400)));
        key.request = RequestId(prng.Below(3));
        if (prng.Chance(0.5)) key.max_tokens = TokenCount(prng.Between(1, 2000));
        if (prng.Chance(0.5)) key.hint = TokenCount(prng.Between(1, 2000));
        const TokenCount generated(prng.Between(0, prng.Chance(0.2) ? 2'000'000 : 1000));
        const TokenCount total = estimator->Total(key, generated);
        ASSERT_GT(total, generated) << LengthEstimatorName(kind);
        if (key.max_tokens && *key.max_tokens > generated) {
          ASSERT_LE(total, *key.max_tokens) << LengthEstimatorName(kind);
        }
      }
    }
  }
}

TEST(LengthEstimatorTest, AnswersMoveOnlyWithTheVersion) {
  for (const LengthEstimatorKind kind : {LengthEstimatorKind::kMean, LengthEstimatorKind::kSampled}) {
    const auto estimator = Make(kind);
    Prng prng(3);
    int moves = 0;
    for (int i = 0; i < 3000; ++i) {
      const uint64_t version = estimator->version();
      const TokenCount before = estimator->Total(Key(0.6), TokenCount(20));
      estimator->Learn(0, TokenCount(prng.Between(30, 60)));
      if (estimator->version() == version) {
        ASSERT_EQ(estimator->Total(Key(0.6), TokenCount(20)), before);
      } else {
        ++moves;
      }
    }
    EXPECT_GT(moves, 20);
    EXPECT_LT(moves, 300);  // rarer as more is known
  }
}

TEST(LengthEstimatorTest, SampledApproachesTheConditionalQuantile) {
  Prng prng(11);
  const auto estimator = Make(LengthEstimatorKind::kSampled);
  std::vector<int64_t> lengths;
  for (int i = 0; i < 8000; ++i) lengths.push_back(std::max<int64_t>(1, std::llround(prng.LogNormal(5, 0.8))));
  for (const int64_t n : lengths) estimator->Learn(0, TokenCount(n));
  std::sort(lengths.begin(), lengths.end());
  for (const int64_t generated : {0, 10, 100, 300}) {
    const auto above = std::upper_bound(lengths.begin(), lengths.end(), generated);
    for (const double q : {0.1, 0.5, 0.9}) {
      const double exact =
          static_cast<double>(above[static_cast<std::ptrdiff_t>(q * static_cast<double>(lengths.end() - above))]);
      EXPECT_NEAR(static_cast<double>(estimator->Total(Key(q), TokenCount(generated)).value()) / exact, 1, 0.06)
          << generated << " " << q;
    }
  }
}

TEST(LengthEstimatorTest, MeanApproachesTheMeanOfLongerOnes) {
  Prng prng(12);
  const auto estimator = Make(LengthEstimatorKind::kMean);
  std::vector<double> lengths;
  for (int i = 0; i < 8000; ++i) lengths.push_back(static_cast<double>(prng.Between(50, 450)));
  for (const double n : lengths) estimator->Learn(0, TokenCount(static_cast<int64_t>(n)));
  for (const int64_t generated : {0, 100, 300}) {
    double sum = 0, count = 0;
    for (const double n : lengths) {
      if (n <= static_cast<double>(generated)) continue;
      sum += n;
      ++count;
    }
    EXPECT_NEAR(static_cast<double>(estimator->Total(Key(0.5), TokenCount(generated)).value()) / (sum / count), 1, 0.02)
        << generated;
  }
}

TEST(LengthEstimatorTest, ClassesLearnApartAndUnknownOnesLeanOnAll) {
  const auto estimator = Make(LengthEstimatorKind::kSampled);
  for (int i = 0; i < 2000; ++i) {
    estimator->Learn(1, TokenCount(10));
    estimator->Learn(2, TokenCount(1000));
  }
  EXPECT_EQ(estimator->Total(Key(0.5, 1), TokenCount(0)).value(), 10);
  EXPECT_NEAR(static_cast<double>(estimator->Total(Key(0.5, 2), TokenCount(0)).value()), 1000, 32);
  EXPECT_EQ(estimator->Total(Key(0.25, 7), TokenCount(0)).value(), 10);
  EXPECT_NEAR(static_cast<double>(estimator->Total(Key(0.75, 7), TokenCount(0)).value()), 1000, 32);
}

TEST(LengthEstimatorTest, FollowsAWorkloadThatChanges) {
  const auto estimator = Make(LengthEstimatorKind::kSampled);
  for (int i = 0; i < 16'000; ++i) estimator->Learn(0, TokenCount(40));
  for (int i = 0; i < 16'000; ++i) estimator->Learn(0, TokenCount(60));
  EXPECT_EQ(estimator->Total(Key(0.5), TokenCount(0)).value(), 60);
}

TEST(LengthEstimatorTest, HintHoldsUntilItIsPassed) {
  const auto estimator = Make(LengthEstimatorKind::kHint);
  LengthKey key = Key(0.5);
  key.hint = TokenCount(50);
  EXPECT_EQ(estimator->Total(key, TokenCount(49)).value(), 50);
  EXPECT_EQ(estimator->Total(key, TokenCount(50)), Make(LengthEstimatorKind::kSampled)->Total(key, TokenCount(50)));
}

TEST(LengthEstimatorTest, OracleTellsTheTruthItWasGiven) {
  LengthEstimatorOptions options;
  options.truth = {{RequestId(5), TokenCount(123)}};
  const auto estimator = Make(LengthEstimatorKind::kOracle, options);
  LengthKey key = Key(0.5);
  key.request = RequestId(5);
  EXPECT_EQ(estimator->Total(key, TokenCount(7)).value(), 123);
}

TEST(LengthEstimatorTest, MaxTokensAssumesTheLimit) {
  const auto estimator = Make(LengthEstimatorKind::kMaxTokens);
  LengthKey key = Key(0.5);
  EXPECT_EQ(estimator->Total(key, TokenCount(0)).value(), 1024);
  key.max_tokens = TokenCount(64);
  EXPECT_EQ(estimator->Total(key, TokenCount(0)).value(), 64);
}

TEST(LengthEstimatorTest, NamesAndKindsGoBothWays) {
  for (const LengthEstimatorKind kind : kAll) EXPECT_EQ(*ParseLengthEstimatorKind(LengthEstimatorName(kind)), kind);
  const auto unknown = ParseLengthEstimatorKind("orcale");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.error().message.find("oracle, max_tokens, hint, mean, sampled"), std::string::npos);
}

TEST(LengthEstimatorTest, ImpossibleOptionsAreNamed) {
  const auto message = [](const LengthEstimatorOptions& o) {
    return MakeLengthEstimator(LengthEstimatorKind::kMean, o).error().message;
  };
  LengthEstimatorOptions o;
  o.prior_quantiles = {5, 4};
  EXPECT_NE(message(o).find("prior_quantiles"), std::string::npos);
  o = {};
  o.prior_weight = 0;
  EXPECT_NE(message(o).find("prior_weight"), std::string::npos);
  o = {};
  o.max_tokens_default = TokenCount(0);
  EXPECT_NE(message(o).find("max_tokens_default"), std::string::npos);
}

TEST(LengthDistributionTest, SmallLengthsAreExact) {
  LengthDistribution d = LengthDistribution::FromQuantiles({1, 2});
  const LengthDistribution prior = d;
  for (int i = 0; i < 100; ++i) d.Learn(TokenCount(i % 4 == 0 ? 3 : 9));
  d.Rebuild(prior, 1e-9);
  EXPECT_NEAR(d.AtMost(TokenCount(3)), 0.25, 1e-9);
  EXPECT_NEAR(d.AtMost(TokenCount(8)), 0.25, 1e-9);
  EXPECT_NEAR(d.AtMost(TokenCount(9)), 1, 1e-9);
  EXPECT_EQ(d.QuantileAbove(0.2, TokenCount(0)).value(), 3);
  EXPECT_EQ(d.QuantileAbove(0.01, TokenCount(3)).value(), 9);
}

TEST(LengthDistributionTest, QuantilesNeverFallWithQOrWithWhatWasGenerated) {
  for (const uint64_t seed : testing::Seeds(20)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    LengthDistribution d = LengthDistribution::FromQuantiles({1, 50, 200, 2000});
    const LengthDistribution prior = d;
    for (int64_t n = prng.Between(0, 500); n > 0; --n) d.Learn(TokenCount(prng.Between(1, 5000)));
    d.Rebuild(prior, 32);
    for (int64_t g = 0; g < 3000; g += prng.Between(1, 97)) {
      TokenCount last;
      for (double q = 0.01; q < 1; q += 0.03) {
        const TokenCount total = d.QuantileAbove(q, TokenCount(g));
        ASSERT_GE(total, last);
        ASSERT_GE(d.QuantileAbove(q, TokenCount(g + 1)), total);
        last = total;
      }
    }
  }
}

}  // namespace
}  // namespace foretoken
