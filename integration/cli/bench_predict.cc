// `foretoken bench predict`: what one prediction costs, for every predictor and depth.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "configs/step_table.h"
#include "configs/tables/embedded_tables.h"
#include "integration/bench/engine_bench.h"
#include "integration/bench/predict_bench.h"
#include "integration/bench/throughput_bench.h"
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"

namespace foretoken {
namespace {

// The instance that is measured: an 8B model on an H100.
constexpr char kTable[] = "h100-llama-3.1-8b";

struct Arguments {
  PredictBenchOptions options;
  ThroughputOptions throughput;
  bool only_index = false, only_throughput = false, smoke = false;
  uint32_t index_instances = 1000;
  int64_t index_blocks = 0;  // 0: 5,000, and 50,000 when nothing else is measured (a minute)
  std::string reuse = "both";
  bool json = false;
};

int Fail(const Error& error) {
  std::cerr << "foretoken: " << error.message << "\n";
  return kExitUsage;
}

boost::json::object RowJson(const PredictBenchRow& r) {
  return {{"predictor", r.predictor},
          {"reuse", r.reuse},
          {"running", r.running},
          {"waiting", r.waiting},
          {"ns_p50", r.ns_p50},
          {"ns_p99", r.ns_p99},
          {"enqueue_ns_p50", r.enqueue_ns_p50},
          {"step_ns_p50", r.step_ns_p50},
          {"bytes_per_instance", r.bytes_per_instance},
          {"reuse_share", r.reuse_share},
          {"rebuild_share", r.rebuild_share},
          {"disagreed_share", r.disagreed_share},
          {"demoted_share", r.demoted_share},
          {"predictions", r.predictions}};
}

boost::json::object RowJson(const ThroughputRow& r) {
  const auto quantiles = [](double p50, double p95, double p99, double p999) {
    return boost::json::object{{"p50", p50}, {"p95", p95}, {"p99", p99}, {"p999", p999}};
  };
  return {{"predictor", r.predictor},
          {"reuse", r.reuse},
          {"candidates", r.candidates},
          {"burst", r.burst},
          {"arrivals_per_second", r.arrivals_per_second},
          {"decisions", r.decisions},
          {"predictions_per_second", r.predictions_per_second},
          {"utilization", r.utilization},
          {"latency_us", quantiles(r.latency_p50, r.latency_p95, r.latency_p99, r.latency_p999)},
          {"compute_us", quantiles(r.compute_p50, r.compute_p95, r.compute_p99, r.compute_p999)},
          {"queue_us", quantiles(r.queue_p50, r.queue_p95, r.queue_p99, r.queue_p999)}};
}

Result<StepTimeModel> BenchModel() {
  auto table = ParseStepTable(EmbeddedTableText(kTable).value_or(""), kTable);
  if (!table.ok()) return table.error();
  StepTimeModel model;
  model.law = std::make_shared<StepTimeTable>(std::move(table).value());
  return model;
}

int RunThroughput(const Arguments& a) {
  const auto model = BenchModel();
  if (!model.ok()) return Fail(model.error());
  ThroughputOptions o = a.throughput;
  o.load.seed = a.options.seed;
  if (a.smoke) {
    o.candidates = {1, 8};
    o.decisions = 50;
  }
  const auto rows = RunThroughputBench(*model, o);
  if (!rows.ok()) return Fail(rows.error());
  if (a.json) {
    boost::json::array out;
    for (const ThroughputRow& r : *rows) out.push_back(RowJson(r));
    std::cout << boost::json::object{{"machine", MachineName()},  {"table", kTable},     {"running", o.load.running},
                                     {"waiting", o.load.waiting}, {"seed", o.load.seed}, {"rows", out}}
              << "\n";
    return kExitOk;
  }
  std::printf("%s, one core; %s; %d running and %d waiting at each instance, 50 steps/s each; %g decisions/s per instance\n",
              MachineName().c_str(), kTable, o.load.running, o.load.waiting, o.per_instance);
  std::printf(
      "latency from arrival to end, queueing from arrival to start, in microseconds; over 100 %% load it does not keep up\n");
  std::printf("%-13s %5s %10s %5s %10s %13s %7s %10s %10s %10s %10s %10s %10s %10s %10s\n", "predictor", "reuse", "candidates",
              "burst", "arrivals/s", "predictions/s", "load", "p50", "p95", "p99", "p99.9", "compute", "p99.9", "queue p50",
              "p99.9");
  for (const ThroughputRow& r : *rows)
    std::printf("%-13s %5s %10d %5d %10.0f %13.0f %6.1f%% %10.1f %10.1f %10.1f %10.1f %10.1f %10.1f %10.1f %10.1f\n",
                r.predictor.c_str(), r.reuse ? "yes" : "no", r.candidates, r.burst, r.arrivals_per_second,
                r.predictions_per_second, 100 * r.utilization, r.latency_p50, r.latency_p95, r.latency_p99, r.latency_p999,
                r.compute_p50, r.compute_p999, r.queue_p50, r.queue_p999);
  return kExitOk;
}

void PrintIndex(const Arguments& a, const PrefixIndexCost& index, double per_block) {
  std::printf(
      "prefix index: %zu blocks at %u instances, %.2f bytes each; a 12,000-token prompt looked up at all of them: %.0f ns "
      "(p99 %.0f), entered at one: %.0f ns\n",
      index.blocks, a.index_instances, per_block, index.lookup_ns_p50, index.lookup_ns_p99, index.insert_ns_p50);
}

int Run(const Arguments& a) {
  if (a.only_throughput) return RunThroughput(a);
  PredictBenchOptions options = a.options;
  if (a.reuse != "both") options.reuse = a.reuse == "on";
  const auto model = BenchModel();
  if (!model.ok()) return Fail(model.error());
  Result<std::vector<PredictBenchRow>> rows = std::vector<PredictBenchRow>();
  if (!a.only_index) rows = RunPredictBench(*model, options);
  if (!rows.ok()) return Fail(rows.error());
  const int64_t index_blocks = a.index_blocks > 0 ? a.index_blocks : a.only_index ? 50'000 : 5'000;
  const PrefixIndexCost index = MeasurePrefixIndex(a.index_instances, index_blocks, options.seed);
  const double per_block = static_cast<double>(index.bytes) / static_cast<double>(std::max<size_t>(1, index.blocks));
  if (a.json) {
    boost::json::array out;
    for (const PredictBenchRow& r : *rows) out.push_back(RowJson(r));
    std::cout << boost::json::object{{"machine", MachineName()},
                                     {"table", kTable},
                                     {"predictions_per_step", options.predictions_per_step},
                                     {"disagreeing_steps", options.disagreeing_steps},
                                     {"seed", options.seed},
                                     {"prefix_index_bytes", per_block},
                                     {"prefix_index_instances", a.index_instances},
                                     {"prefix_index_blocks", index.blocks},
                                     {"prefix_index_lookup_ns", index.lookup_ns_p50},
                                     {"prefix_index_lookup_ns_p99", index.lookup_ns_p99},
                                     {"prefix_index_insert_ns", index.insert_ns_p50},
                                     {"rows", out}}
              << "\n";
    return kExitOk;
  }
  if (a.only_index) {
    std::printf("%s, one core\n", MachineName().c_str());
    PrintIndex(a, index, per_block);
    return kExitOk;
  }
  std::printf("%s, one core; %s; %d predictions a step, each followed by its Enqueue; %.0f %% of the steps disagree\n",
              MachineName().c_str(), kTable, options.predictions_per_step, 100 * options.disagreeing_steps);
  std::printf("%-21s %5s %7s %7s %10s %10s %9s %8s %8s %7s %7s\n", "predictor", "reuse", "running", "waiting", "p50 ns",
              "p99 ns", "enqueue", "step", "bytes", "reused", "rebuilt");
  for (const PredictBenchRow& r : *rows)
    std::printf("%-21s %5s %7d %7d %10.0f %10.0f %9.0f %8.0f %8zu %6.1f%% %6.1f%%\n", r.predictor.c_str(),
                r.reuse ? "yes" : "no", r.running, r.waiting, r.ns_p50, r.ns_p99, r.enqueue_ns_p50, r.step_ns_p50,
                r.bytes_per_instance, 100 * r.reuse_share, 100 * r.rebuild_share);
  PrintIndex(a, index, per_block);
  return kExitOk;
}

}  // namespace

void AddBenchPredictCommand(CLI::App& bench, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = bench.add_subcommand("predict", "Time and memory of one prediction, by predictor and depth; one core");
  c->add_option("--running", a->options.running, "Requests running, a row each")->delimiter(',')->check(CLI::PositiveNumber);
  c->add_option("--waiting", a->options.waiting, "Requests waiting, a row each")->delimiter(',')->check(CLI::NonNegativeNumber);
  c->add_option("--predictions", a->options.predictions, "Predictions measured per row")->check(CLI::PositiveNumber);
  c->add_option("--predictions-per-step", a->options.predictions_per_step, "Predictions between two steps")
      ->check(CLI::PositiveNumber);
  c->add_option("--disagreeing-steps", a->options.disagreeing_steps, "Share of steps with an end that nobody expected")
      ->check(CLI::Range(0.0, 1.0));
  c->add_option("--index-instances", a->index_instances, "Instances in the prefix index")->check(CLI::Range(1, 65536));
  c->add_option("--index-blocks", a->index_blocks, "KV blocks per instance in it (default: 5,000; 50,000 with --prefix-index)")
      ->check(CLI::Range(1000, 200000));
  c->add_option("--predictor", a->options.predictors, "Only rows of these predictors")->delimiter(',');
  c->add_option("--reuse", a->reuse, "Only rows with or without reuse: on, off or both")
      ->check(CLI::IsMember({"on", "off", "both"}));
  CLI::Option* index = c->add_flag("--prefix-index", a->only_index, "Only the prefix index, at full size");
  CLI::Option* throughput = c->add_flag("--throughput", a->only_throughput,
                                        "Instead: decisions that arrive by themselves over 1 to 256 candidates, split into "
                                        "queueing and computing")
                                ->excludes(index);
  c->add_option("--candidates", a->throughput.candidates, "Of --throughput: instances asked, rows each")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->needs(throughput);
  c->add_option("--bursts", a->throughput.bursts, "Of --throughput: decisions that arrive at once, rows each")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->needs(throughput);
  c->add_option("--per-instance", a->throughput.per_instance, "Of --throughput: decisions a second and instance")
      ->check(CLI::PositiveNumber)
      ->needs(throughput);
  c->add_flag("--smoke", a->smoke, "Of --throughput: few decisions over few candidates")->needs(throughput);
  c->add_option("--seed", a->options.seed, "Seed of lengths and disagreements");
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer(
      "Examples:\n"
      "  foretoken bench predict --running 32 --waiting 64 --json\n"
      "  foretoken bench predict --throughput --candidates 1,64 --bursts 1\n"
      "  foretoken bench predict --prefix-index");
  c->callback([a, &exit_code] { exit_code = Run(*a); });
}

}  // namespace foretoken
