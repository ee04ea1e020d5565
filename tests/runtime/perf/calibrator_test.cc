#include "runtime/perf/calibrator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "configs/step_table.h"
#include "configs/tables/embedded_tables.h"
#include "runtime/base/prng.h"
#include "runtime/perf/step_time_table.h"

namespace foretoken {
namespace {

std::shared_ptr<const StepTimeLaw> Table(const char* name) {
  const auto text = EmbeddedTableText(name);
  EXPECT_TRUE(text.has_value()) << name;
  Result<StepTimeTable> table = ParseStepTable(*text, name);
  EXPECT_TRUE(table.ok()) << (table.ok() ? "" : table.error().message);
  return std::make_shared<StepTimeTable>(std::move(*table));
}

// A batch that grows and shrinks as a served load does, a third of its steps with a prompt.
class Load {
 public:
  explicit Load(uint64_t seed) : prng_(seed) {}
  StepShape Next() {
    seqs_ = std::clamp(seqs_ + static_cast<int64_t>(prng_.Between(-3, 3)), int64_t{4}, int64_t{200});
    ctx_ = std::clamp(ctx_ + static_cast<double>(prng_.Between(-20, 20)), 300.0, 3000.0);
    StepShape s;
    s.decode_seqs = seqs_;
    s.decode_kv_tokens = static_cast<int64_t>(ctx_ * static_cast<double>(seqs_));
    if (prng_.Chance(0.33)) s.prefill_tokens = prng_.Between(50, 2000);
    return s;
  }

 private:
  Prng prng_;
  int64_t seqs_ = 40;
  double ctx_ = 1000;
};

double Noise(Prng& prng) { return std::exp(0.02 * prng.Normal() - 0.0002); }

// A factor of its own in every octave of batch size and of prompt tokens: 0.5..2.
double RegimeFactor(const StepShape& s, uint64_t seed) {
  const double at = std::log2(static_cast<double>(s.prefill_tokens > 0 ? s.prefill_tokens : s.decode_seqs));
  const auto knot = [&](double i) {
    return std::exp2(2 * UnitFrom(Mix64(seed, static_cast<uint64_t>(i) + (s.prefill_tokens > 0 ? 100 : 0))) - 1);
  };
  const double low = std::floor(at);
  return knot(low) + (at - low) * (knot(low + 1) - knot(low));
}

// Mean absolute error of the calibrated law on the noise-free truth over 500 steps after `steps` observed ones.
template <class Truth>
double ErrorAfter(const std::shared_ptr<const StepTimeLaw>& start, const Truth& truth, uint64_t seed, int steps) {
  Calibrator calibrator(start);
  Load load(seed);
  Prng noise(seed + 1);
  for (int i = 0; i < steps; ++i) {
    const StepShape s = load.Next();
    calibrator.Observe(s, Duration::FromNanos(truth(s) * Noise(noise)));
  }
  const auto law = calibrator.law();
  double error = 0;
  for (int i = 0; i < 500; ++i) {
    const StepShape s = load.Next();
    error += std::abs(law->NanosOf(s) / truth(s) - 1) / 500;
  }
  return error;
}

TEST(CalibratorTest, LearnsAFactorPerRegimeWithinTwoThousandSteps) {
  for (const char* name : {"h100-llama-3.1-8b", "a100-qwen3-30b-a3b", "l40s-qwen2.5-7b"}) {
    const auto table = Table(name);
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      const auto truth = [&](const StepShape& s) { return table->NanosOf(s) * RegimeFactor(s, seed); };
      const double error = ErrorAfter(table, truth, seed, 2000);
      std::printf("%s seed %llu: MAPE %.2f %%\n", name, static_cast<unsigned long long>(seed), 100 * error);
      EXPECT_LT(error, 0.03);
    }
  }
}

TEST(CalibratorTest, LearnsAnotherGpuOrModelWithinTwoThousandSteps) {
  const char* pairs[][2] = {{"h100-llama-3.1-8b", "a100-llama-3.1-8b"}, {"a100-qwen2.5-7b", "h100-qwen2.5-7b"},
                            {"h100-qwen2.5-7b", "h100-llama-3.1-8b"},   {"h100-qwen3-30b-a3b", "h100-qwen2.5-7b"},
                            {"l40s-llama-3.1-8b", "a100-llama-3.1-8b"}, {"b200-qwen2.5-7b", "b200-llama-3.1-8b"}};
  for (const auto& [from, to] : pairs) {
    const auto start = Table(from), truth_table = Table(to);
    const auto truth = [&](const StepShape& s) { return truth_table->NanosOf(s) + 1e6; };
    const double before = ErrorAfter(start, truth, 7, 0), after = ErrorAfter(start, truth, 7, 2000);
    std::printf("%s for %s: MAPE %.1f %% -> %.2f %%\n", from, to, 100 * before, 100 * after);
    EXPECT_LT(after, 0.03) << from << " for " << to;
  }
}

TEST(CalibratorTest, AStallOrAGlitchMovesNothingMuch) {
  const auto table = Table("h100-llama-3.1-8b");
  Calibrator calm(table), stalled(table);
  Load load(3);
  StepShape last;
  for (int i = 0; i < 1000; ++i) {
    last = load.Next();
    const Duration d = Duration::FromNanos(table->NanosOf(last) * 1.3);
    calm.Observe(last, d);
    stalled.Observe(last, i % 100 == 99   ? Duration::FromNanos(table->NanosOf(last) * 0.2)
                          : i % 100 == 50 ? Duration::Seconds(2)
                                          : d);
  }
  EXPECT_NEAR(stalled.law()->NanosOf(last) / calm.law()->NanosOf(last), 1, 0.02);
}

// What a request waits for is a sum of steps: a law that met their median or less would be short on every one of them.
TEST(CalibratorTest, MeetsTheMeanOfStepsThatVaryByAThird) {
  const auto table = Table("h100-llama-3.1-8b");
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Calibrator calibrator(table);
    Load load(seed);
    Prng noise(seed + 1);
    double predicted = 0, measured = 0;
    for (int i = 0; i < 4000; ++i) {
      const StepShape s = load.Next();
      const double ns = table->NanosOf(s) * std::exp(0.33 * noise.Normal() - 0.33 * 0.33 / 2);
      if (i >= 1000) predicted += calibrator.law()->NanosOf(s), measured += ns;
      calibrator.Observe(s, Duration::FromNanos(ns));
    }
    std::printf("seed %llu: bias %+.1f %%\n", static_cast<unsigned long long>(seed), 100 * (predicted / measured - 1));
    EXPECT_NEAR(predicted / measured, 1, 0.04);
  }
}

TEST(CalibratorTest, AnswersChangeOnlyWithTheVersionAndStayBounded) {
  const auto table = Table("h100-llama-3.1-8b");
  Calibrator calibrator(table);
  Load load(5);
  const StepShape probe{0, 0, 33, 40000}, mixed{600, 0, 33, 40000};
  EXPECT_EQ(calibrator.law()->NanosOf(probe), table->NanosOf(probe));
  uint64_t version = calibrator.version();
  double answer = calibrator.law()->NanosOf(probe);
  for (int i = 0; i < 3000; ++i) {
    const StepShape s = load.Next();
    calibrator.Observe(s, Duration::FromNanos(table->NanosOf(s) * (i < 1500 ? 40.0 : 0.001)));  // absurd both ways
    if (calibrator.version() == version) {
      ASSERT_EQ(calibrator.law()->NanosOf(probe), answer);
    }
    version = calibrator.version();
    answer = calibrator.law()->NanosOf(probe);
    for (const StepShape& q : {probe, mixed}) {
      const double ratio = calibrator.law()->NanosOf(q) / table->NanosOf(q);
      ASSERT_GT(ratio, 0.2);
      ASSERT_LT(ratio, 10);
    }
  }
  const auto held = calibrator.law();
  const double before = held->NanosOf(probe);
  for (int i = 0; i < 1000; ++i) calibrator.Observe(probe, Duration::Millis(100));
  EXPECT_EQ(held->NanosOf(probe), before);
  EXPECT_GT(calibrator.version(), version);
}

TEST(CalibratorTest, TheCorrectedLawKeepsTheSegmentContract) {
  const auto table = Table("a100-llama-3.1-8b");
  Calibrator calibrator(table);
  Load load(9);
  for (int i = 0; i < 300; ++i) {
    const StepShape s = load.Next();
    calibrator.Observe(s, Duration::FromNanos(table->NanosOf(s) * 0.7 + 5e5));
  }
  const auto law = calibrator.law();
  for (int i = 0; i < 1000; ++i) {
    StepShape s = load.Next();
    s.prefill_tokens = 0;
    const DecodeSegment d = law->DecodeSegmentAt(s.decode_seqs, s.decode_kv_tokens);
    ASSERT_EQ(d.base_ns + d.per_kv_token_ns * static_cast<double>(s.decode_kv_tokens), law->NanosOf(s));
  }
  calibrator.Observe({}, Duration::Millis(1));
  calibrator.Observe({0, 0, 3, 300}, Duration());
  EXPECT_EQ(calibrator.observed(), 300u);
}

}  // namespace
}  // namespace foretoken
