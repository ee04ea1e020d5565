#include "runtime/perf/profile_step_law.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <utility>

#include "runtime/base/prng.h"
#include "runtime/base/result.h"

namespace foretoken {
namespace {

// Attention = 10 per decode token of context / 1000 + chunk * (chunk / 2 + ctx) / 100, joint: half as long again beside a chunk.
LayerProfile MakeProfile() {
  LayerProfile p;
  p.tokens = {1, 8, 16, 64, 2048};
  p.token_ns = {1e6, 1.1e6, 1.2e6, 1.5e6, 40e6};
  p.sequences = {1, 64, 256};
  p.sequence_ns = {5e5, 6e5, 9e5};
  p.chunk = {0, 16, 512, 2048};
  p.kv_prefill = {0, 1024, 8192};
  p.decode_seqs = {0, 1, 32, 256};
  p.kv_decode = {16, 1024, 8192};
  for (int64_t c : p.chunk) {
    for (int64_t k : p.kv_prefill) {
      for (int64_t n : p.decode_seqs) {
        for (int64_t d : p.kv_decode) {
          const double chunk = c == 0 ? 0 : static_cast<double>(c) * static_cast<double>(c / 2 + k) / 100;
          p.attention_ns.push_back(chunk + 10.0 * static_cast<double>(n * d) * (c > 0 ? 1.5 : 1.0));
        }
      }
    }
  }
  return p;
}

ProfileStepLaw MakeLaw() {
  Result<ProfileStepLaw> law = ProfileStepLaw::Make(MakeProfile());
  EXPECT_TRUE(law.ok());
  return *law;
}

TEST(ProfileStepLawTest, AStepIsTheSumOfItsMeasuredParts) {
  const ProfileStepLaw law = MakeLaw();
  EXPECT_NEAR(law.NanosOf(StepShape{0, 0, 64, 64 * 1024}), 1.5e6 + 6e5 + 10.0 * 64 * 1024, 1);
  EXPECT_NEAR(law.NanosOf(StepShape{2048, 1024, 0, 0}), 40e6 + 5e5 + 2048.0 * 2048 / 100, 1);
  EXPECT_EQ(law.NanosOf(StepShape{}), 0);
}

TEST(ProfileStepLawTest, TokenwiseLayersRoundUpToTheNextMeasuredCount) {
  const ProfileStepLaw law = MakeLaw();
  StepComposition a, b;
  a.decode_ctx.assign(9, 16);
  b.decode_ctx.assign(16, 16);
  const double attention = 10.0 * 16 * 7, sequences = (6e5 - 5e5) / 63 * 7;
  EXPECT_NEAR(law.NanosOf(b) - law.NanosOf(a), attention + sequences, 1);
}

TEST(ProfileStepLawTest, MixedAttentionIsJointAndNotTheSumOfItsParts) {
  const ProfileStepLaw law = MakeLaw();
  const double joint = law.NanosOf(StepShape{512, 0, 32, 32 * 1024}) - law.NanosOf(StepShape{512, 0, 0, 0});
  EXPECT_GT(joint, 1.4 * 10 * 32 * 1024);
}

TEST(ProfileStepLawTest, EqualContextsAndOneChunkAgreeWithTheShape) {
  const ProfileStepLaw law = MakeLaw();
  StepComposition step;
  step.chunks = {{300, 700, true}};
  step.decode_ctx.assign(20, 900);
  EXPECT_NEAR(law.NanosOf(step), law.NanosOf(step.Shape()), 1);
  // Two chunks attend to less than one of their sum; uneven contexts wait for the longest.
  StepComposition two = step;
  two.chunks = {{150, 700, true}, {150, 700, false}};
  EXPECT_LT(law.NanosOf(two), law.NanosOf(step));
  StepComposition uneven = step;
  for (size_t i = 0; i < 10; ++i) {
    uneven.decode_ctx[i] -= 800;
    uneven.decode_ctx[i + 10] += 800;
  }
  EXPECT_GT(law.NanosOf(uneven), law.NanosOf(step));
}

TEST(ProfileStepLawTest, SegmentGivesPureDecodeTimesBitForBit) {
  const ProfileStepLaw law = MakeLaw();
  Prng prng(11);
  for (int i = 0; i < 5000; ++i) {
    const int64_t seqs = prng.Between(1, 300), kv = seqs * prng.Between(1, 12000) + prng.Between(0, 50);
    const DecodeSegment s = law.DecodeSegmentAt(seqs, kv);
    ASSERT_LE(s.kv_from, kv);
    ASSERT_LT(kv, s.kv_until);
    ASSERT_EQ(s.base_ns + s.per_kv_token_ns * static_cast<double>(kv), law.NanosOf(StepShape{0, 0, seqs, kv}));
  }
}

TEST(ProfileStepLawTest, RefusesAProfileThatDoesNotFit) {
  LayerProfile p = MakeProfile();
  p.attention_ns.pop_back();
  EXPECT_FALSE(ProfileStepLaw::Make(p).ok());
  p = MakeProfile();
  p.chunk[0] = 4;
  const Result<ProfileStepLaw> r = ProfileStepLaw::Make(p);
  ASSERT_FALSE(r.ok());
  EXPECT_NE(r.error().message.find("prefill_chunk"), std::string::npos);
}

}  // namespace
}  // namespace foretoken
