#include "integration/tables/fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/base/result.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken::tables {
namespace {

const AffineStepTime::Coefficients kTruth{5e6, 30e3, 20e3, 40};

std::vector<StepRecord> Records(uint64_t seed, size_t count, double noise) {
  Prng prng(seed);
  const AffineStepTime law(kTruth);
  std::vector<StepRecord> out;
  for (size_t i = 0; i < count; ++i) {
    StepRecord r;
    if (prng.Chance(0.3)) r.shape.prefill_tokens = prng.Between(10, 2000);
    r.shape.decode_seqs = prng.Between(1, 128);
    r.shape.decode_kv_tokens = r.shape.decode_seqs * prng.Between(100, 3000);
    r.ns = law.NanosOf(r.shape) * std::exp(noise * prng.Normal());
    out.push_back(r);
  }
  return out;
}

TEST(FitTest, AffineFitRecoversTheLaw) {
  const auto c = FitAffine(Records(3, 3000, 0.01));
  ASSERT_TRUE(c.ok()) << c.error().message;
  EXPECT_NEAR(c->step_ns / kTruth.step_ns, 1, 0.01);
  EXPECT_NEAR(c->prefill_token_ns / kTruth.prefill_token_ns, 1, 0.01);
  EXPECT_NEAR(c->decode_seq_ns / kTruth.decode_seq_ns, 1, 0.03);
  EXPECT_NEAR(c->kv_token_ns / kTruth.kv_token_ns, 1, 0.02);
}

TEST(FitTest, ATableGeneralisesToStepsItDidNotSee) {
  const auto errors = CrossValidate(Records(4, 3000, 0.01), FitKind::kTable, 5, 1);
  ASSERT_TRUE(errors.ok()) << errors.error().message;
  for (double e : *errors) EXPECT_LT(e, 0.012);  // the noise alone: 0.8 %
}

TEST(FitTest, StallsAreDroppedAndCounted) {
  std::vector<StepRecord> records = Records(5, 3000, 0.01);
  for (size_t i = 0; i < records.size(); i += 100) records[i].ns *= 10;
  const size_t dropped = DropOutliers(records);
  EXPECT_GE(dropped, 30u);
  EXPECT_EQ(records.size(), 3000 - dropped);
  EXPECT_LT(MeanError(AffineStepTime(kTruth), records), 0.02);
}

TEST(FitTest, ReadsCsvAndBatchTraces) {
  const auto csv = ReadStepRecords("prefill_tokens,decode_seqs,decode_kv_tokens,duration_us\n0,2,300,5000\n16,0,0,\n", "s.csv");
  ASSERT_TRUE(csv.ok()) << csv.error().message;
  ASSERT_EQ(csv->size(), 1u);  // a row without a time is no record
  EXPECT_EQ((*csv)[0].ns, 5e6);
  const auto trace = ReadStepRecords(
      "{\"type\":\"hello\"}\n{\"type\":\"step\",\"dur\":7000000,\"items\":[[\"a\",100,20,1],[\"b\",1,50,1]]}\n", "s.jsonl");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  ASSERT_EQ(trace->size(), 1u);
  EXPECT_EQ((*trace)[0].shape.prefill_tokens, 100);
  EXPECT_EQ((*trace)[0].shape.prefill_ctx, 20);
  EXPECT_EQ((*trace)[0].shape.decode_kv_tokens, 51);
}

TEST(FitTest, BadRecordsNameTheirPlace) {
  const auto error = [](const std::string& text) {
    const auto r = ReadStepRecords(text, "s.csv");
    return r.ok() ? std::string("accepted") : r.error().message;
  };
  EXPECT_EQ(error("prefill_tokens,decode_seqs,decode_kv_tokens,duration_us\n0,2,300,-1\n"),
            "s.csv:2:9: duration_us = '-1': must be > 0");
  EXPECT_EQ(error("prefill_tokens,decode_seqs,duration_us\n0,2,1\n").substr(0, 10), "s.csv:1:1:");
  EXPECT_EQ(error("{\"items\":[[1]]}\n").substr(0, 10), "s.csv:1:1:");
  EXPECT_FALSE(FitTable(std::vector<StepRecord>(10, StepRecord{{0, 0, 1, 10}, 1e6})).ok());
}

}  // namespace
}  // namespace foretoken::tables
