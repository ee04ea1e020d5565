// The built-in profiles against the traces that they summarise, and the readers on whole real files.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "integration/traces/load_trace.h"
#include "integration/traces/trace_statistics.h"
#include "runtime/workload/azure_profiles.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

// Kolmogorov and Smirnov's distance of two samples: the largest difference of their distribution functions.
double Distance(std::vector<double> a, std::vector<double> b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  double most = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const double x = std::min(a[i], b[j]);
    while (i < a.size() && a[i] <= x) ++i;
    while (j < b.size() && b[j] <= x) ++j;
    most = std::max(most, std::fabs(static_cast<double>(i) / static_cast<double>(a.size()) -
                                    static_cast<double>(j) / static_cast<double>(b.size())));
  }
  return most;
}

struct Samples {
  std::vector<double> prompts, outputs, gaps;
};

Samples SamplesOf(const Trace& trace) {
  Samples s;
  for (size_t i = 0; i < trace.requests.size(); ++i) {
    s.prompts.push_back(static_cast<double>(trace.requests[i].meta.prompt_tokens.value()));
    s.outputs.push_back(static_cast<double>(trace.requests[i].truth.output_tokens.value()));
    if (i > 0) s.gaps.push_back((trace.requests[i].meta.arrival - trace.requests[i - 1].meta.arrival).seconds());
  }
  return s;
}

struct Case {
  const char* file;
  const SynthProfile& (*profile)();
  ProfileOptions options;  // as the profile was made
};

class AzureTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const std::string below = std::string("data/traces/azure-2023/") + GetParam().file;
    const auto path = testing::SharedPath(below);
    if (!path) GTEST_SKIP() << "needs ../shared/" << below << " (FORETOKEN_SHARED)";
    Result<Trace> loaded = LoadTrace(*path);
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    real_ = std::move(loaded).value();
  }
  Trace real_;
};

TEST_P(AzureTest, TheBuiltInProfileIsThatOfTheTrace) {
  const SynthProfile made = ProfileOf(real_, GetParam().options);
  const SynthProfile& built_in = GetParam().profile();
  EXPECT_EQ(made.requests, built_in.requests);
  EXPECT_EQ(made.output_tokens, built_in.output_tokens);
  EXPECT_EQ(made.arrivals.weights, built_in.arrivals.weights);
  EXPECT_NEAR(made.arrivals.rate_rps, built_in.arrivals.rate_rps, 1e-6);
  const auto near = [](const QuantileTable& a, const QuantileTable& b, double relative) {  // written with few digits
    for (size_t k = 0; k < QuantileTable::kPoints; ++k)
      ASSERT_NEAR(a.values()[k], b.values()[k], relative * std::max(a.values()[k], 1e-9));
  };
  near(made.arrivals.gaps, built_in.arrivals.gaps, 1e-3);
  near(made.lengths.prompt, built_in.lengths.prompt, 1e-6);
  ASSERT_EQ(made.lengths.output_by_prompt.size(), built_in.lengths.output_by_prompt.size());
  for (size_t k = 0; k < made.lengths.output_by_prompt.size(); ++k)
    near(made.lengths.output_by_prompt[k], built_in.lengths.output_by_prompt[k], 1e-6);
}

// Bounds: two samples of one distribution of 19,366 (8,819) each differ by 0.014 (0.020) in one case of twenty.
TEST_P(AzureTest, WhatIsDrawnIsDistributedLikeTheTrace) {
  const Samples real = SamplesOf(real_);
  for (const uint64_t seed : testing::Seeds(3)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    const Samples drawn = SamplesOf(Synthesize(GetParam().profile(), prng));
    EXPECT_LE(Distance(real.prompts, drawn.prompts), 0.02);
    EXPECT_LE(Distance(real.outputs, drawn.outputs), 0.02);
    EXPECT_LE(Distance(real.gaps, drawn.gaps), 0.02);
  }
}

// The dependence, too: outputs of short and of long prompts apart.
TEST_P(AzureTest, OutputsDependOnPromptsAsInTheTrace) {
  Prng prng(1);
  const Samples real = SamplesOf(real_), drawn = SamplesOf(Synthesize(GetParam().profile(), prng));
  std::vector<double> sorted = real.prompts;
  std::sort(sorted.begin(), sorted.end());
  for (int quarter = 0; quarter < 4; ++quarter) {
    const double low = quarter == 0 ? 0 : sorted[static_cast<size_t>(quarter) * sorted.size() / 4];
    const double high = quarter == 3 ? 1e9 : sorted[static_cast<size_t>(quarter + 1) * sorted.size() / 4];
    const auto outputs = [&](const Samples& s) {
      std::vector<double> out;
      for (size_t i = 0; i < s.prompts.size(); ++i)
        if (s.prompts[i] >= low && s.prompts[i] < high) out.push_back(s.outputs[i]);
      return out;
    };
    EXPECT_LE(Distance(outputs(real), outputs(drawn)), 0.06) << quarter;
  }
}

INSTANTIATE_TEST_SUITE_P(Traces, AzureTest,
                         ::testing::Values(Case{"AzureLLMInferenceTrace_conv.csv", AzureConv2023, {16, Duration::Seconds(60)}},
                                           Case{
                                               "AzureLLMInferenceTrace_code.csv", AzureCode2023, {4, Duration::Seconds(3600)}}),
                         [](const auto& info) { return info.index == 0 ? "Conv" : "Code"; });

TEST(MooncakeTest, WholeTraceWithItsSharing) {
  const auto path = testing::SharedPath("data/traces/mooncake-fast25/conversation_trace.jsonl");
  if (!path) GTEST_SKIP() << "needs ../shared/data/traces/mooncake-fast25 (FORETOKEN_SHARED)";
  const Result<Trace> trace = LoadTrace(*path);
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  const TraceStatistics s = StatisticsOf(*trace);
  EXPECT_EQ(s.requests, 12'031u);
  EXPECT_NEAR(s.prompt.mean, 12'035, 1);
  EXPECT_GT(s.reusable_tokens, 0.35);
  EXPECT_LT(s.reusable_tokens, 0.40);
}

// A recording of a live server and the engine input made from it name the same requests.
TEST(VllmStepsTest, TheStepLogGivesTheRequestsOfTheEngineTrace) {
  for (const char* instance : {"vllm-cpu-live/%_i0", "vllm-cpu-live/%_i1", "vllm-async-live/%_i0"}) {
    const auto file = [&](const char* kind) {
      std::string name = std::string("data/truth/") + instance + ".jsonl.gz";
      return testing::SharedPath(name.replace(name.find('%'), 1, kind));
    };
    const auto steps = file("steps"), rows = file("trace");
    if (!steps || !rows) GTEST_SKIP() << "needs ../shared/data/truth (FORETOKEN_SHARED)";
    const Result<Trace> a = LoadTrace(*steps), b = LoadTrace(*rows);
    ASSERT_TRUE(a.ok() && b.ok());
    ASSERT_EQ(a->requests.size(), b->requests.size());
    for (size_t i = 0; i < a->requests.size(); ++i) {
      ASSERT_EQ(a->requests[i].meta.arrival, b->requests[i].meta.arrival);
      ASSERT_EQ(a->requests[i].meta.prompt_tokens, b->requests[i].meta.prompt_tokens);
      ASSERT_EQ(a->requests[i].truth, b->requests[i].truth);
    }
  }
}

TEST(TraceStatisticsTest, HandWorkedPrefixes) {
  Trace trace;
  const auto add = [&](std::vector<PromptSegment> segments, int64_t second) {
    TraceRequest r;
    r.meta.id = RequestId(trace.requests.size() + 1);
    r.meta.arrival = Instant() + Duration::Seconds(second);
    int64_t sum = 0;
    for (const PromptSegment& s : segments) sum += s.length.value();
    r.meta.prompt_tokens = TokenCount(sum);
    r.meta.segments = std::move(segments);
    r.truth.output_tokens = TokenCount(10);
    trace.requests.push_back(r);
  };
  add({{1000, TokenCount(50)}, {1001, TokenCount(50)}}, 0);
  add({{1000, TokenCount(50)}, {1002, TokenCount(50)}}, 1);                                                 // 50 reusable
  add({{1000, TokenCount(50)}, {1001, TokenCount(50)}, {OutputContent(RequestId(1)), TokenCount(10)}}, 2);  // 110
  add({{1000, TokenCount(20)}, {1001, TokenCount(50)}}, 4);  // 20: its second part lies elsewhere
  const TraceStatistics s = StatisticsOf(trace);
  EXPECT_DOUBLE_EQ(s.reusable_tokens, 180.0 / 380);
  EXPECT_DOUBLE_EQ(s.sharing_requests, 0.75);
  EXPECT_DOUBLE_EQ(s.rate_rps, 0.75);
  EXPECT_EQ(s.peak_per_second, 1);
  EXPECT_NEAR(s.gap_cv, std::sqrt(2.0 / 9) / (4.0 / 3), 1e-12);
}

}  // namespace
}  // namespace foretoken
