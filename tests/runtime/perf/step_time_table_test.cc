#include "runtime/perf/step_time_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

// A grid whose figures bend the way measured ones do: saturating over tokens, growing with the context.
StepTableGrid MakeGrid(Prng& prng, bool noisy) {
  StepTableGrid g;
  g.prefill_tokens = {0, 16, 100, 700, 2048};
  g.prefill_ctx = {0, 1000, 9000};
  g.decode_seqs = {1, 3, 10, 64, 256};
  g.decode_ctx = {100, 900, 5000};
  const auto noise = [&] { return noisy ? 0.9 + 0.2 * prng.Unit() : 1.0; };
  for (int64_t p : g.prefill_tokens) {
    for (int64_t d : g.decode_seqs) {
      for (int64_t c : g.decode_ctx) {
        g.mixed_ns.push_back((5e6 + 3e5 * std::sqrt(static_cast<double>(p + d)) + 4e4 * static_cast<double>(p) +
                              20.0 * static_cast<double>(d * c)) *
                             noise());
      }
    }
    for (int64_t x : g.prefill_ctx) {
      g.alone_ns.push_back(p == 0 ? 0
                                  : (4e6 + 4e4 * static_cast<double>(p)) * (x == 0 ? noise() : 1.2) +
                                        0.5 * static_cast<double>(p * x) * noise());
    }
  }
  MakeMonotone(g);
  return g;
}

StepTimeTable MakeTable(Prng& prng, bool noisy) {
  Result<StepTimeTable> table = StepTimeTable::Make(MakeGrid(prng, noisy));
  EXPECT_TRUE(table.ok()) << (table.ok() ? "" : table.error().message);
  return *table;
}

uint64_t Seed() {
  const char* given = std::getenv("FORETOKEN_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 20261124;
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

StepShape RandomShape(Prng& prng) {
  StepShape s;
  const auto log_uniform = [&](double max) { return static_cast<int64_t>(std::exp(prng.Unit() * std::log(max))); };
  s.prefill_tokens = prng.Below(3) == 0 ? 0 : log_uniform(8000);  // up to four times the grid
  s.prefill_ctx = s.prefill_tokens == 0 || prng.Below(3) == 0 ? 0 : log_uniform(30000);
  s.decode_seqs = prng.Below(4) == 0 && s.prefill_tokens > 0 ? 0 : log_uniform(1000);
  s.decode_kv_tokens = s.decode_seqs == 0 ? 0 : s.decode_seqs * log_uniform(20000);
  return s;
}

TEST(StepTimeTableTest, HitsEveryGridPoint) {
  Prng prng(Seed());
  const StepTimeTable table = MakeTable(prng, true);
  const StepTableGrid& g = table.grid();
  for (size_t p = 0; p < g.prefill_tokens.size(); ++p) {
    for (size_t d = 0; d < g.decode_seqs.size(); ++d) {
      for (size_t c = 0; c < g.decode_ctx.size(); ++c) {
        const StepShape s{g.prefill_tokens[p], 0, g.decode_seqs[d], g.decode_seqs[d] * g.decode_ctx[c]};
        const auto v = table.Evaluate(s);
        const double want = g.mixed_ns[g.MixedIndex(p, d, c)];
        EXPECT_NEAR(v.ns, want, p == 0 ? 1e-11 * want : 0) << p << " " << d << " " << c;
        EXPECT_FALSE(v.extrapolated);
      }
    }
    for (size_t x = 0; p > 0 && x < g.prefill_ctx.size(); ++x) {
      const auto v = table.Evaluate({g.prefill_tokens[p], g.prefill_ctx[x], 0, 0});
      EXPECT_NEAR(v.ns, g.alone_ns[g.AloneIndex(p, x)], 1e-11 * v.ns);
      EXPECT_FALSE(v.extrapolated);
    }
  }
}

TEST(StepTimeTableTest, NeverFallsAlongAnyAxisInsideAndBeyondTheGrid) {
  const uint64_t seed = Seed();
  for (uint64_t round = 0; round < 20; ++round) {
    Prng prng(seed + round);
    const StepTimeTable table = MakeTable(prng, true);
    for (int i = 0; i < 5000; ++i) {
      const StepShape s = RandomShape(prng);
      const double t = table.NanosOf(s);
      ASSERT_GT(t, 0);
      const double slack = 1e-9 * t;  // rounding
      StepShape more = s;
      more.prefill_tokens += 1 + static_cast<int64_t>(prng.Below(500));
      ASSERT_GE(table.NanosOf(more) + slack, t)
          << s.prefill_tokens << " " << s.prefill_ctx << " " << s.decode_seqs << " " << s.decode_kv_tokens;
      if (s.prefill_tokens > 0) {
        more = s;
        more.prefill_ctx += 1 + static_cast<int64_t>(prng.Below(5000));
        ASSERT_GE(table.NanosOf(more) + slack, t);
      }
      if (s.decode_seqs > 0) {
        more = s;
        more.decode_kv_tokens += 1 + static_cast<int64_t>(prng.Below(50000));
        ASSERT_GE(table.NanosOf(more) + slack, t);
        more = s;
        more.decode_seqs += 1 + static_cast<int64_t>(prng.Below(40));
        more.decode_kv_tokens = s.decode_kv_tokens / s.decode_seqs * more.decode_seqs;
        ASSERT_GE(table.NanosOf(more) + slack, t);
      }
    }
  }
}

TEST(StepTimeTableTest, SegmentGivesPureDecodeTimesBitForBitWithinItsBounds) {
  Prng prng(Seed());
  const StepTimeTable table = MakeTable(prng, true);
  for (int i = 0; i < 20000; ++i) {
    const int64_t seqs = 1 + static_cast<int64_t>(prng.Below(400));
    const int64_t kv = seqs * static_cast<int64_t>(1 + prng.Below(9000)) + static_cast<int64_t>(prng.Below(100));
    const DecodeSegment s = table.DecodeSegmentAt(seqs, kv);
    ASSERT_LE(s.kv_from, kv);
    ASSERT_LT(kv, s.kv_until);
    ASSERT_GT(s.kv_until, s.kv_from);
    for (int64_t at : {s.kv_from, kv, std::min(kv + 12345, s.kv_until - 1)}) {
      const double want = table.NanosOf({0, 0, seqs, at});
      ASSERT_EQ(s.base_ns + s.per_kv_token_ns * static_cast<double>(at), want) << seqs << " " << at;
    }
    // Neighbouring pieces join.
    if (s.kv_until == std::numeric_limits<int64_t>::max()) continue;
    const DecodeSegment next = table.DecodeSegmentAt(seqs, s.kv_until);
    ASSERT_EQ(next.kv_from, s.kv_until);
    const double left = s.base_ns + s.per_kv_token_ns * static_cast<double>(s.kv_until);
    ASSERT_NEAR(next.base_ns + next.per_kv_token_ns * static_cast<double>(s.kv_until), left, 1e-9 * left);
  }
}

TEST(StepTimeTableTest, ContinuesLinearlyBeyondTheGridAndSaysSo) {
  Prng prng(Seed());
  const StepTimeTable table = MakeTable(prng, false);
  const auto at = [&](int64_t p) { return table.NanosOf({p, 0, 3, 2700}); };
  const double slope = (at(2048) - at(700)) / (2048 - 700);
  EXPECT_NEAR(at(6144) - at(4096), at(4096) - at(2048), 1e-9 * at(4096));
  EXPECT_NEAR(at(4096) - at(2048), 2048 * slope,
              0.01 * 2048 * slope);  // the steepest of the neighbours, so that it never falls
  EXPECT_TRUE(table.Evaluate({4096, 0, 3, 2700}).extrapolated);
  EXPECT_TRUE(table.Evaluate({100, 9001, 0, 0}).extrapolated);
  EXPECT_TRUE(table.Evaluate({0, 0, 257, 257000}).extrapolated);
  EXPECT_TRUE(table.Evaluate({0, 0, 3, 3 * 5000 + 1}).extrapolated);
  EXPECT_TRUE(table.Evaluate({0, 0, 3, 299}).extrapolated);
  EXPECT_TRUE(table.Evaluate({15, 0, 0, 0}).extrapolated);
  EXPECT_FALSE(table.Evaluate({15, 0, 3, 300}).extrapolated);
  EXPECT_FALSE(table.Evaluate({2048, 9000, 256, 256 * 5000}).extrapolated);
  EXPECT_EQ(table.NanosOf({}), 0);
  EXPECT_FALSE(table.Evaluate({}).extrapolated);
}

TEST(StepTimeTableTest, ContextCostsTheSameBesideAnyDecodes) {
  Prng prng(Seed());
  const StepTimeTable table = MakeTable(prng, false);
  const double extra = table.NanosOf({700, 5000, 0, 0}) - table.NanosOf({700, 0, 0, 0});
  EXPECT_GT(extra, 0);
  EXPECT_NEAR(table.NanosOf({700, 5000, 64, 64000}) - table.NanosOf({700, 0, 64, 64000}), extra, 1e-6 * extra);
}

TEST(MakeMonotoneTest, MovesValuesToTheMiddleAndCountsThem) {
  Prng prng(1);
  StepTableGrid g = MakeGrid(prng, false);
  const StepTableGrid clean = g;
  EXPECT_EQ(MakeMonotone(g), 0);
  EXPECT_EQ(g, clean);
  const size_t i = g.MixedIndex(4, 4, 2);
  g.mixed_ns[g.MixedIndex(4, 4, 1)] = g.mixed_ns[i] + 1e6;  // a fall of 1 ms
  EXPECT_FALSE(StepTimeTable::Make(g).ok());
  EXPECT_EQ(MakeMonotone(g), 2);
  EXPECT_NEAR(g.mixed_ns[i], clean.mixed_ns[i] + 5e5, 1);
  EXPECT_NEAR(g.mixed_ns[g.MixedIndex(4, 4, 1)], clean.mixed_ns[i] + 5e5, 1);
  EXPECT_TRUE(StepTimeTable::Make(g).ok());
}

TEST(StepTimeTableTest, RefusesBadGridsByName) {
  Prng prng(1);
  const StepTableGrid good = MakeGrid(prng, false);
  const auto error = [](StepTableGrid g) {
    const Result<StepTimeTable> r = StepTimeTable::Make(std::move(g));
    return r.ok() ? std::string("accepted") : r.error().message;
  };
  StepTableGrid g = good;
  g.prefill_tokens[0] = 4;
  EXPECT_NE(error(g).find("prefill_tokens starts at 4"), std::string::npos);
  g = good;
  g.decode_seqs[2] = 3;
  EXPECT_NE(error(g).find("decode_seqs goes from 3 to 3"), std::string::npos);
  g = good;
  g.mixed_ns.pop_back();
  EXPECT_NE(error(g).find("the grid needs 75 times"), std::string::npos);
  g = good;
  g.mixed_ns[7] = -1;
  EXPECT_NE(error(g).find("must be > 0"), std::string::npos);
  g = good;
  g.mixed_ns[7] = std::nan("");
  EXPECT_NE(error(g).find("must be > 0"), std::string::npos);
  g = good;
  g.decode_ctx.clear();
  EXPECT_NE(error(g).find("decode_ctx has no points"), std::string::npos);
}

}  // namespace
}  // namespace foretoken
