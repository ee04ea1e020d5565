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
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"

namespace foretoken {
namespace {

// The instance that is measured: an 8B model on an H100.
constexpr char kTable[] = "h100-llama-3.1-8b";

struct Arguments {
  PredictBenchOptions options;
  uint32_t index_instances = 1000;
  int64_t index_blocks = 5000;
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

int Run(const Arguments& a) {
  auto table = ParseStepTable(EmbeddedTableText(kTable).value_or(""), kTable);
  if (!table.ok()) return Fail(table.error());
  StepTimeModel model;
  model.law = std::make_shared<StepTimeTable>(std::move(table).value());
  const auto rows = RunPredictBench(model, a.options);
  if (!rows.ok()) return Fail(rows.error());
  const PrefixIndexCost index = MeasurePrefixIndex(a.index_instances, a.index_blocks, a.options.seed);
  const double per_block = static_cast<double>(index.bytes) / static_cast<double>(std::max<size_t>(1, index.blocks));
  if (a.json) {
    boost::json::array out;
    for (const PredictBenchRow& r : *rows) out.push_back(RowJson(r));
    std::cout << boost::json::object{{"machine", MachineName()},
                                     {"table", kTable},
                                     {"predictions_per_step", a.options.predictions_per_step},
                                     {"disagreeing_steps", a.options.disagreeing_steps},
                                     {"seed", a.options.seed},
                                     {"prefix_index_bytes", per_block},
                                     {"prefix_index_blocks", index.blocks},
                                     {"prefix_index_lookup_ns", index.lookup_ns_p50},
                                     {"rows", out}}
              << "\n";
    return kExitOk;
  }
  std::printf("%s, one core; %s; %d predictions a step, each followed by its Enqueue; %.0f %% of the steps disagree\n",
              MachineName().c_str(), kTable, a.options.predictions_per_step, 100 * a.options.disagreeing_steps);
  std::printf("%-21s %5s %7s %7s %10s %10s %9s %8s %8s %7s %7s\n", "predictor", "reuse", "running", "waiting", "p50 ns",
              "p99 ns", "enqueue", "step", "bytes", "reused", "rebuilt");
  for (const PredictBenchRow& r : *rows)
    std::printf("%-21s %5s %7d %7d %10.0f %10.0f %9.0f %8.0f %8zu %6.1f%% %6.1f%%\n", r.predictor.c_str(),
                r.reuse ? "yes" : "no", r.running, r.waiting, r.ns_p50, r.ns_p99, r.enqueue_ns_p50, r.step_ns_p50,
                r.bytes_per_instance, 100 * r.reuse_share, 100 * r.rebuild_share);
  std::printf("prefix index: %zu blocks at %u instances, %.2f bytes each; a 12,000-token prompt at all of them: %.0f ns\n",
              index.blocks, a.index_instances, per_block, index.lookup_ns_p50);
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
  c->add_option("--index-blocks", a->index_blocks, "KV blocks per instance in the prefix index")
      ->check(CLI::Range(1000, 200000));
  c->add_option("--seed", a->options.seed, "Seed of lengths and disagreements");
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken bench predict --running 32 --waiting 64 --json");
  c->callback([a, &exit_code] { exit_code = Run(*a); });
}

}  // namespace foretoken
