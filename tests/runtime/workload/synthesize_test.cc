#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/base/prng.h"
#include "runtime/workload/arrival_process.h"
#include "runtime/workload/azure_profiles.h"
#include "runtime/workload/synth_profile.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

SynthProfile RandomProfile(Prng& prng) {
  SynthProfile p;
  if (prng.Chance(0.3)) p = prng.Chance(0.5) ? AzureConv2023() : AzureCode2023();
  p.requests = static_cast<size_t>(prng.Between(1, 400));
  if (p.arrivals.gaps.empty()) {
    constexpr ArrivalKind kKinds[] = {ArrivalKind::kUniform, ArrivalKind::kPoisson, ArrivalKind::kGamma, ArrivalKind::kOnOff,
                                      ArrivalKind::kReplay};
    p.arrivals.kind = kKinds[prng.Below(5)];
    p.arrivals.replay = {Duration::Millis(5), Duration(), Duration::Millis(100)};
  }
  p.arrivals.rate_rps = 0.1 + 50 * prng.Unit();
  if (prng.Chance(0.3)) p.arrivals.weights = {1, 0, 3};
  p.arrivals.piece = Duration::Millis(prng.Between(1, 60'000));
  p.lengths.prompt_max = prng.Between(1, 20'000);
  p.lengths.output_max = prng.Between(1, 3'000);
  p.sharing.share = prng.Chance(0.5) ? prng.Unit() : 0;
  p.sessions.share = prng.Chance(0.5) ? prng.Unit() : 0;
  p.sessions.turns_mean = 1 + 6 * prng.Unit();
  return p;
}

bool Same(const Trace& a, const Trace& b) {
  return std::equal(a.requests.begin(), a.requests.end(), b.requests.begin(), b.requests.end(),
                    [](const TraceRequest& x, const TraceRequest& y) { return x.meta == y.meta && x.truth == y.truth; });
}

TEST(SynthesizeTest, EveryTraceIsWellFormedAndRepeatable) {
  for (const uint64_t seed : testing::Seeds(60)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    const SynthProfile p = RandomProfile(prng);
    ASSERT_TRUE(Validate(p).ok()) << Validate(p).error().message;
    Prng a(seed), b(seed);
    const Trace trace = Synthesize(p, a);
    ASSERT_TRUE(Same(trace, Synthesize(p, b)));
    ASSERT_EQ(a.Next(), b.Next());
    ASSERT_EQ(trace.requests.size(), p.requests);
    Instant last;
    for (size_t i = 0; i < trace.requests.size(); ++i) {
      const RequestMeta& m = trace.requests[i].meta;
      ASSERT_EQ(m.id.value(), i + 1);
      ASSERT_GE(m.arrival, last);
      last = m.arrival;
      ASSERT_GE(m.prompt_tokens.value(), 1);
      ASSERT_LE(m.prompt_tokens.value(), p.lengths.prompt_max);
      ASSERT_GE(trace.requests[i].truth.output_tokens.value(), 1);
      ASSERT_LE(trace.requests[i].truth.output_tokens.value(), p.lengths.output_max);
      int64_t sum = 0;
      for (const PromptSegment& s : m.segments) sum += s.length.value();
      ASSERT_TRUE(m.segments.empty() || sum == m.prompt_tokens.value());
    }
  }
}

// A later turn's prompt is the earlier turn's prompt, its output, and something new.
TEST(SynthesizeTest, AConversationGrowsByItsOwnAnswers) {
  SynthProfile p;
  p.requests = 2000;
  p.sessions.share = 0.7;
  p.sharing.share = 0.5;
  Prng prng(5);
  const Trace trace = Synthesize(p, prng);
  std::map<uint64_t, size_t> last;  // by session
  size_t later = 0;
  for (size_t i = 0; i < trace.requests.size(); ++i) {
    const TraceRequest& r = trace.requests[i];
    if (r.meta.session == 0) continue;
    const auto [at, first] = last.try_emplace(r.meta.session, i);
    if (first) continue;
    ++later;
    const TraceRequest& before = trace.requests[at->second];
    std::vector<PromptSegment> expected = before.meta.segments;
    if (expected.empty()) expected = {{PrivateContent(before.meta.id), before.meta.prompt_tokens}};
    expected.push_back({OutputContent(before.meta.id), before.truth.output_tokens});
    ASSERT_EQ(r.meta.segments.size(), expected.size() + 1);
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), r.meta.segments.begin()));
    ASSERT_EQ(r.meta.segments.back().content, PrivateContent(r.meta.id));
    // It cannot be asked before the answer is there.
    ASSERT_GE(r.meta.arrival, before.meta.arrival + p.sessions.token_time * before.truth.output_tokens.value());
    at->second = i;
  }
  EXPECT_GT(later, 500u);
}

TEST(SynthesizeTest, LaterTurnsCountTowardsTheRate) {
  SynthProfile p;
  p.requests = 20'000;
  p.arrivals.rate_rps = 10;
  p.sessions.share = 0.7;
  Prng prng(6);
  EXPECT_NEAR(20'000 / Synthesize(p, prng).requests.back().meta.arrival.seconds(), 10, 1);
}

TEST(SynthesizeTest, SharingLeavesArrivalsAndLengthsAlone) {
  SynthProfile p = AzureConv2023();
  p.requests = 500;
  Prng a(9), b(9);
  const Trace plain = Synthesize(p, a);
  p.sharing.share = 0.6;
  const Trace shared = Synthesize(p, b);
  size_t with_prefix = 0;
  for (size_t i = 0; i < 500; ++i) {
    EXPECT_EQ(plain.requests[i].meta.arrival, shared.requests[i].meta.arrival);
    EXPECT_EQ(plain.requests[i].meta.prompt_tokens, shared.requests[i].meta.prompt_tokens);
    EXPECT_EQ(plain.requests[i].truth, shared.requests[i].truth);
    with_prefix += !shared.requests[i].meta.segments.empty();
  }
  EXPECT_NEAR(static_cast<double>(with_prefix), 300, 50);
}

struct Gaps {
  double mean, cv;
};

Gaps GapsOf(const ArrivalProfile& profile, int count) {
  Prng prng(21);
  ArrivalProcess process(profile);
  Instant last = process.Next(prng);
  EXPECT_EQ(last, Instant());
  double sum = 0, squares = 0;
  for (int i = 0; i < count; ++i) {
    const Instant next = process.Next(prng);
    const double gap = (next - last).seconds();
    sum += gap;
    squares += gap * gap;
    last = next;
  }
  const double mean = sum / count;
  return {mean, std::sqrt(squares / count - mean * mean) / mean};
}

TEST(ArrivalProcessTest, RateAndBurstinessAreTheProfiles) {
  ArrivalProfile p;
  p.rate_rps = 4;
  p.kind = ArrivalKind::kUniform;
  EXPECT_NEAR(GapsOf(p, 1000).mean, 0.25, 1e-6);
  EXPECT_NEAR(GapsOf(p, 1000).cv, 0, 1e-3);
  p.kind = ArrivalKind::kPoisson;
  EXPECT_NEAR(GapsOf(p, 100'000).mean, 0.25, 0.005);
  EXPECT_NEAR(GapsOf(p, 100'000).cv, 1, 0.02);
  p.kind = ArrivalKind::kGamma;
  p.cv = 3;
  EXPECT_NEAR(GapsOf(p, 300'000).mean, 0.25, 0.01);
  EXPECT_NEAR(GapsOf(p, 300'000).cv, 3, 0.15);
  p.kind = ArrivalKind::kOnOff;
  EXPECT_NEAR(GapsOf(p, 300'000).mean, 0.25, 0.02);
  EXPECT_GT(GapsOf(p, 300'000).cv, 2);
  p.kind = ArrivalKind::kReplay;
  p.replay = {Duration::Seconds(1), Duration::Seconds(3)};
  EXPECT_NEAR(GapsOf(p, 1000).mean, 0.25, 1e-6);
  EXPECT_NEAR(GapsOf(p, 1000).cv, 0.5, 1e-3);
}

TEST(ArrivalProcessTest, WeightsMoveArrivalsAndKeepTheMean) {
  ArrivalProfile p;
  p.rate_rps = 10;
  p.weights = {1, 0, 5};
  p.piece = Duration::Seconds(2);
  Prng prng(4);
  ArrivalProcess process(p);
  process.Next(prng);
  double in_piece[3] = {};
  Instant at;
  constexpr int kCount = 60'000;
  for (int i = 0; i < kCount; ++i) {
    at = process.Next(prng);
    ++in_piece[static_cast<int>(at.seconds() / 2) % 3];
  }
  EXPECT_NEAR(kCount / at.seconds(), 10, 0.2);
  EXPECT_EQ(in_piece[1], 0);
  EXPECT_NEAR(in_piece[2] / in_piece[0], 5, 0.3);
}

TEST(SynthesizeTest, RankCorrelationIsTheProfiles) {
  SynthProfile p;
  p.requests = 20'000;
  p.lengths.rank_correlation = 0.6;
  p.lengths.prompt_median = p.lengths.output_median = 5000;  // few ties
  Prng prng(2);
  const Trace trace = Synthesize(p, prng);
  // Spearman's by Kendall-free arithmetic: ranks of both, then Pearson's.
  const auto ranks = [&](auto value) {
    std::vector<size_t> order(trace.requests.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return value(trace.requests[a]) < value(trace.requests[b]); });
    std::vector<double> rank(order.size());
    for (size_t i = 0; i < order.size(); ++i) rank[order[i]] = static_cast<double>(i);
    return rank;
  };
  const auto x = ranks([](const TraceRequest& r) { return r.meta.prompt_tokens.value(); });
  const auto y = ranks([](const TraceRequest& r) { return r.truth.output_tokens.value(); });
  const double mean = (static_cast<double>(x.size()) - 1) / 2;
  double xy = 0, xx = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
  }
  EXPECT_NEAR(xy / xx, 0.6, 0.03);
}

TEST(ProfileOfTest, FindsAgainWhatWasDrawn) {
  SynthProfile p;
  p.requests = 20'000;
  p.arrivals.kind = ArrivalKind::kGamma;
  p.arrivals.cv = 2;
  p.arrivals.rate_rps = 8;
  Prng prng(17);
  const SynthProfile found = ProfileOf(Synthesize(p, prng), {4, Duration::Seconds(60)});
  EXPECT_NEAR(found.arrivals.rate_rps, 8, 0.4);
  EXPECT_NEAR(found.lengths.prompt.At(0.5) / 1000, 1, 0.05);
  EXPECT_NEAR(found.lengths.output_by_prompt[2].At(0.5) / 200, 1, 0.05);
  EXPECT_TRUE(Validate(found).ok());
}

TEST(ProfileOfTest, TwoRequestsAreEnough) {
  Trace trace;
  for (int i = 0; i < 2; ++i) {
    TraceRequest r;
    r.meta.id = RequestId(static_cast<uint64_t>(i) + 1);
    r.meta.arrival = Instant() + Duration::Millis(i);
    r.meta.prompt_tokens = r.truth.output_tokens = TokenCount(3);
    trace.requests.push_back(r);
  }
  const SynthProfile p = ProfileOf(trace);
  ASSERT_TRUE(Validate(p).ok()) << Validate(p).error().message;
  Prng prng(1);
  EXPECT_EQ(Synthesize(p, prng).requests[1].meta.arrival.nanos(), 1'000'000);
}

TEST(SynthProfileTest, EveryBadFieldIsNamed) {
  SynthProfile p;
  p.arrivals.rate_rps = 0;
  p.lengths.prompt_max = 0;
  p.sharing.share = 1.5;
  p.sessions.turns_mean = 0.5;
  p.requests = 0;
  const Status s = Validate(p);
  ASSERT_FALSE(s.ok());
  for (const char* field :
       {"arrivals.rate_rps = 0", "lengths.prompt_max", "sharing.share = 1.5", "sessions.turns_mean", "requests"})
    EXPECT_NE(s.error().message.find(field), std::string::npos) << field;
}

TEST(EmbeddedProfileTest, KnownByNameAndValid) {
  for (const char* name : {"azure-conv-2023", "azure-code-2023"}) {
    const auto found = EmbeddedProfile(name);
    ASSERT_TRUE(found.ok());
    EXPECT_TRUE(Validate(**found).ok());
    EXPECT_NE((*found)->source.find("CC-BY-4.0"), std::string::npos);
  }
  EXPECT_NE(EmbeddedProfile("azure").error().message.find("azure-conv-2023, azure-code-2023"), std::string::npos);
}

}  // namespace
}  // namespace foretoken
