// The reference predictor: exact to the nanosecond under its conditions.
#include "runtime/predict/reference.h"

#include <gtest/gtest.h>

#include "tests/runtime/predict/mirror_rig.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using testing::MirrorRig;
using testing::RigCase;
using testing::RigRequest;
using testing::Truth;

std::unique_ptr<ReferencePredictor> Reference(const RigCase& c) {
  auto made = ReferencePredictor::Make(MirrorRig::ProfileOf(c), nullptr);
  FT_CHECK(made.ok());
  return std::move(made).value();
}

TEST(ReferenceTest, PredictsExactlyWhenNothingComesLater) {
  for (uint64_t seed : testing::Seeds(12)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RigCase c = testing::RandomCase(seed);
    if (seed % 2 == 0) {
      c.rate *= 3;
      c.config.num_gpu_blocks = std::max(520, c.config.num_gpu_blocks * 3 / 10);
    }
    const auto reference = Reference(c);
    MirrorRig rig(c, seed);
    rig.Follow(reference.get());
    for (const RigRequest& r : testing::MakeRequests(c, seed)) {
      rig.RunUntil(r.at);
      if (rig.engine().Refusal(r.engine)) continue;
      const Truth without = rig.FutureWith(nullptr), with = rig.FutureWith(&r);
      const Prediction p = reference->Predict(MirrorRig::QueryOf(r, true), r.at);
      Duration lost;
      for (const auto& [other, end] : without.end) lost += with.end.at(other) - end;
      ASSERT_EQ(p.ttft, with.first.at(r.engine.id.value()) - r.at);
      ASSERT_EQ(p.e2e, with.end.at(r.engine.id.value()) - r.at);
      ASSERT_EQ(p.externality, lost);
      ASSERT_EQ(reference->Predict(MirrorRig::QueryOf(r, true), r.at), p);
      rig.Submit(r);
    }
  }
}

TEST(ReferenceTest, FollowsRequestsThatEndEarlierOrLaterThanExpected) {
  for (uint64_t seed : testing::Seeds(6)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RigCase c = testing::RandomCase(seed);
    c.config.stop_at_eos = true;
    const auto reference = Reference(c);
    MirrorRig rig(c, seed);
    rig.Follow(reference.get());
    Prng g(seed);
    for (RigRequest r : testing::MakeRequests(c, seed)) {
      rig.RunUntil(r.at);
      const int64_t real = r.engine.output_tokens;
      r.engine.output_tokens = std::max<int64_t>(1, g.Between(real / 2, 2 * real));
      reference->OnEnqueue(MirrorRig::ReservationOf(r), r.at);
      EXPECT_GT(reference->Predict(MirrorRig::QueryOf(r, false), r.at).ttft, Duration());
      r.engine.output_tokens = real;
      r.engine.max_tokens = real + 1000;
      rig.Submit(r);
    }
    rig.RunUntil(Instant::FromNanos(4'000'000'000'000'000));
    EXPECT_EQ(reference->running(), 0);
  }
}

}  // namespace
}  // namespace foretoken
