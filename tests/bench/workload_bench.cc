// Costs of what runs inside predictions and per request: length estimators and metrics; and of reading a trace.
//   bazel run //tests/bench:workload_bench
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include "integration/traces/load_trace.h"
#include "runtime/base/prng.h"
#include "runtime/metrics/drift_meter.h"
#include "runtime/metrics/quantile_sketch.h"
#include "runtime/metrics/rank_agreement.h"
#include "runtime/metrics/run_metrics.h"
#include "runtime/workload/azure_profiles.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

std::vector<int64_t> Lengths(size_t count) {
  Prng prng(1);
  std::vector<int64_t> out;
  for (size_t i = 0; i < count; ++i) out.push_back(std::max<int64_t>(1, static_cast<int64_t>(prng.LogNormal(5, 0.9))));
  return out;
}

void BenchTotal(benchmark::State& state) {
  const auto kind = static_cast<LengthEstimatorKind>(state.range(0));
  const auto estimator = std::move(MakeLengthEstimator(kind)).value();
  for (const int64_t n : Lengths(10'000)) estimator->Learn(0, TokenCount(n));
  Prng prng(2);
  std::vector<std::pair<LengthKey, TokenCount>> questions(1024);
  for (auto& [key, generated] : questions) {
    key.quantile = prng.Unit();
    generated = TokenCount(prng.Between(0, 600));
  }
  size_t i = 0;
  int64_t sum = 0;
  for (auto _ : state) {
    const auto& [key, generated] = questions[i++ & 1023];
    benchmark::DoNotOptimize(sum += estimator->Total(key, generated).value());
  }
  state.SetLabel(std::string(LengthEstimatorName(kind)));
}
BENCHMARK(BenchTotal)
    ->Arg(static_cast<int>(LengthEstimatorKind::kMaxTokens))
    ->Arg(static_cast<int>(LengthEstimatorKind::kMean))
    ->Arg(static_cast<int>(LengthEstimatorKind::kSampled));

void BenchLearn(benchmark::State& state) {
  const auto estimator = std::move(MakeLengthEstimator(LengthEstimatorKind::kSampled)).value();
  const std::vector<int64_t> lengths = Lengths(1024);
  size_t i = 0;
  const auto classes = static_cast<size_t>(state.range(0));
  for (auto _ : state) {
    ++i;
    estimator->Learn(static_cast<uint32_t>(i % classes), TokenCount(lengths[i & 1023]));
  }
}
BENCHMARK(BenchLearn)->Arg(1)->Arg(16);

void BenchRunMetrics(benchmark::State& state) {
  const auto count = static_cast<size_t>(state.range(0));
  Prng prng(3);
  std::vector<RequestRecord> records(count);
  for (RequestRecord& r : records) {
    r.first_token = Instant::FromNanos(static_cast<int64_t>(prng.Below(1'000'000'000)));
    r.last_token = *r.first_token + Duration::Millis(500);
    r.output_tokens = 20;
    r.outcome = OutcomeKind::kFinished;
  }
  for (auto _ : state) {
    RunMetrics metrics;
    for (const RequestRecord& r : records) metrics.Add(r);
    benchmark::DoNotOptimize(metrics.Report(Duration::Seconds(1)));
  }
  state.SetItemsProcessed(static_cast<int64_t>(count) * static_cast<int64_t>(state.iterations()));
}
BENCHMARK(BenchRunMetrics)->Arg(20'000);

void BenchSketchAdd(benchmark::State& state) {
  QuantileSketch sketch;
  Prng prng(4);
  std::vector<double> values(1024);
  for (double& v : values) v = prng.Exponential(0.1);
  size_t i = 0;
  for (auto _ : state) sketch.Add(values[i++ & 1023]);
}
BENCHMARK(BenchSketchAdd);

void BenchDriftReport(benchmark::State& state) {
  DriftMeter meter;
  Prng prng(5);
  for (int i = 0; i < 512; ++i) meter.Add({prng.Unit(), prng.Unit() + 1, prng.Unit() + 0.1});
  for (auto _ : state) benchmark::DoNotOptimize(meter.Report());
}
BENCHMARK(BenchDriftReport);

void BenchSpearman(benchmark::State& state) {
  Prng prng(6);
  std::vector<double> a(static_cast<size_t>(state.range(0))), b(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    a[i] = prng.Unit();
    b[i] = prng.Unit();
  }
  for (auto _ : state) benchmark::DoNotOptimize(Spearman(a, b));
}
BENCHMARK(BenchSpearman)->Arg(8)->Arg(64);

void BenchSynthesize(benchmark::State& state) {
  for (auto _ : state) {
    Prng prng(7);
    benchmark::DoNotOptimize(Synthesize(AzureConv2023(), prng).requests.size());
  }
  state.SetItemsProcessed(19'366 * static_cast<int64_t>(state.iterations()));
}
BENCHMARK(BenchSynthesize)->Unit(benchmark::kMillisecond);

// As many rows as Azure's conversation trace, in its format.
void BenchReadAzure(benchmark::State& state) {
  const char* folder = std::getenv("TMPDIR");
  const std::string path = std::string(folder == nullptr ? "." : folder) + "/workload_bench.csv";
  {
    std::ofstream file(path);
    file << "TIMESTAMP,ContextTokens,GeneratedTokens\r\n";
    char row[80];
    for (int i = 0; i < 19'366; ++i) {
      std::snprintf(row, sizeof row, "2023-11-16 18:%02d:%02d.%07d,%d,%d\r\n", i / 600, i / 10 % 60, i % 10 * 1'000'000,
                    1 + i % 4000, 1 + i % 900);
      file << row;
    }
  }
  for (auto _ : state) {
    const Result<Trace> trace = LoadTrace(path);
    if (!trace.ok()) state.SkipWithError(trace.error().message.c_str());
  }
  std::remove(path.c_str());
  state.SetItemsProcessed(19'366 * static_cast<int64_t>(state.iterations()));
}
BENCHMARK(BenchReadAzure)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace foretoken

BENCHMARK_MAIN();
