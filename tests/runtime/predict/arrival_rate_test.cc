#include "runtime/predict/arrival_rate.h"

#include <gtest/gtest.h>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

Instant At(double seconds) { return Instant() + Duration::FromSeconds(seconds); }

TEST(ArrivalRateTest, OfAFewRequestsItExpectsNothing) {
  ArrivalRate rate;
  for (int k = 0; k < 3; ++k) rate.OnAssigned(At(k), 100, 10);
  EXPECT_EQ(rate.At(At(3)).per_second, 0);
}

TEST(ArrivalRateTest, APoissonStreamsRateAndMeansAreMet) {
  const auto seeds = testing::Seeds(20);
  double mean = 0;
  for (const uint64_t seed : seeds) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Prng prng(seed);
    ArrivalRate rate;
    double t = 0, sum = 0;
    int looks = 0;
    for (int k = 0; k < 2000; ++k) {
      t += prng.Exponential(0.05);
      rate.OnAssigned(At(t), prng.Between(500, 1500), prng.Between(50, 150));
      if (k >= 100) sum += rate.At(At(t)).per_second, ++looks;
    }
    EXPECT_NEAR(sum / looks, 20, 3);  // one standard deviation over seeds is .47
    mean += sum / looks / static_cast<double>(seeds.size());
    EXPECT_NEAR(rate.At(At(t)).prompt_tokens, 1000, 200);
    EXPECT_NEAR(rate.At(At(t)).output_tokens, 100, 20);
  }
  // A window's gaps in the denominator: 1/62 too many on average.
  if (seeds.size() >= 20) {
    EXPECT_NEAR(mean, 20, 0.8);
  }
}

TEST(ArrivalRateTest, AnInstanceThatIsLeftAloneIsExpectedToStaySo) {
  ArrivalRate rate;
  for (int k = 0; k < 64; ++k) rate.OnAssigned(At(k * 0.1), 100, 10);
  EXPECT_NEAR(rate.At(At(6.3)).per_second, 10, 0.1);
  EXPECT_LT(rate.At(At(63)).per_second, 1.01);
}

}  // namespace
}  // namespace foretoken
