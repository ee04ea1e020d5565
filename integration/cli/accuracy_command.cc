// `foretoken accuracy`: a real measured run replayed through the full-fidelity engine; prints how far the predicted TTFT, TPOT
// and E2E of each request are from what was measured. With --predictors: how far each predictor is, asked at each arrival.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "integration/accuracy/measured_run.h"
#include "integration/accuracy/replay.h"
#include "integration/accuracy/step_cost.h"
#include "integration/cli/accuracy_predictors.h"
#include "integration/cli/commands.h"

namespace foretoken {
namespace {

struct Arguments {
  std::string truth, table, model_shape;
  int64_t calibrate_first = 0;
  int64_t kv_blocks = 0;
  double host_overhead_ms = -1;  // < 0: by the kind of table
  bool predictors = false;
  bool json = false;
};

int Fail(int code, const std::string& message) {
  std::cerr << "foretoken accuracy: " << message << "\n";
  return code;
}

void Assume(const std::string& what) { std::cerr << "assumed: " << what << "\n"; }

// The law of --table, and what an instance adds to it.
Result<accuracy::LoadedStepCost> LoadCost(const Arguments& args) {
  if (args.table.empty()) return Error{"--table is required"};
  auto loaded = accuracy::LoadStepCost(args.table, args.model_shape, args.host_overhead_ms);
  if (loaded.ok())
    for (const std::string& a : loaded->assumptions) Assume(a);
  return loaded;
}

boost::json::object Json(const accuracy::MetricError& e) {
  return {{"mean_error", e.mean_error}, {"mape", e.mape}, {"p50_error", e.p50_error}, {"p99_error", e.p99_error}};
}

void Print(const char* name, const accuracy::MetricError& e) {
  std::printf("%-6s %+8.2f %% %8.2f %% %+8.2f %% %+8.2f %%\n", name, 100 * e.mean_error, 100 * e.mape, 100 * e.p50_error,
              100 * e.p99_error);
}

int RunPredictors(const Arguments& args) {
  PredictorAccuracyRequest request{args.truth, std::nullopt, args.kv_blocks, args.json};
  if (args.calibrate_first > 0) return Fail(kExitUsage, "--calibrate-first: not with --predictors, which see no later request");
  if (!args.table.empty()) {
    StepTimeModel model;
    const Result<accuracy::LoadedStepCost> loaded = LoadCost(args);
    if (!loaded.ok()) return Fail(kExitUsage, loaded.error().message);
    model.law = loaded->by_shape;
    model.host_overhead = loaded->cost.host_overhead;
    request.table = std::move(model);
  }
  return RunPredictorAccuracy(request);
}

int RunAccuracy(const Arguments& args) {
  if (args.predictors) return RunPredictors(args);
  const Result<accuracy::MeasuredRun> run = accuracy::ReadMeasuredRun(args.truth, args.kv_blocks);
  if (!run.ok()) return Fail(kExitUsage, run.error().message);
  for (const std::string& a : run->assumptions) Assume(a);
  const size_t skip = static_cast<size_t>(args.calibrate_first);
  if (skip >= run->requests.size()) {
    return Fail(kExitUsage, "--calibrate-first " + std::to_string(skip) + ": the run has " +
                                std::to_string(run->requests.size()) + " requests; some must remain");
  }
  const Result<accuracy::LoadedStepCost> loaded = LoadCost(args);
  if (!loaded.ok()) return Fail(kExitUsage, loaded.error().message);
  accuracy::StepCost cost = loaded->cost;
  double factor = 1;
  if (skip > 0) {
    const Result<double> fitted = accuracy::CalibrateFactor(*run, cost, skip);
    if (!fitted.ok()) return Fail(kExitFailed, fitted.error().message);
    cost.factor = factor = *fitted;
    std::cerr << "calibrated on the first " << skip << " requests: step times times " << factor << "\n";
  }
  const Result<std::vector<accuracy::Served>> served = accuracy::Replay(*run, cost);
  if (!served.ok()) return Fail(kExitFailed, served.error().message);
  const accuracy::Accuracy a = accuracy::Compare(*run, *served, skip);
  if (args.json) {
    const boost::json::object out = {{"requests", run->requests.size() - skip},
                                     {"ttft", Json(a.ttft)},
                                     {"tpot", Json(a.tpot)},
                                     {"e2e", Json(a.e2e)},
                                     {"calibration_factor", factor}};
    std::cout << boost::json::serialize(out) << "\n";
    return kExitOk;
  }
  std::printf("%zu requests%s\n%-6s %10s %10s %10s %10s\n", run->requests.size() - skip,
              skip > 0 ? " after the calibration" : "", "", "mean error", "MAPE", "p50 error", "p99 error");
  Print("TTFT", a.ttft);
  Print("TPOT", a.tpot);
  Print("E2E", a.e2e);
  return kExitOk;
}

}  // namespace

void AddAccuracyCommand(CLI::App& app, int& exit_code) {
  auto args = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("accuracy", "Replay a real measured run and print the prediction errors per metric");
  c->add_option("--truth", args->truth, "Directory of the measured run: requests.jsonl and meta.json, or steps_*.jsonl.gz")
      ->required();
  c->add_option("--table", args->table, "Step times: a table's CSV file or a vllm-profile directory");
  c->add_option("--calibrate-first", args->calibrate_first, "Fit one factor to the first N requests; report the others only")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--kv-blocks", args->kv_blocks,
                "KV blocks of the engine, the null block included (default: the run's, else ample)")
      ->check(CLI::PositiveNumber);
  c->add_option("--model-shape", args->model_shape, "The model's config.json (default: <model>.json beside the profile)");
  c->add_option("--host-overhead-ms", args->host_overhead_ms,
                "Host time per step (default: 0 for a profile, 1 for a table that contains none)")
      ->check(CLI::NonNegativeNumber);
  c->add_flag("--predictors", args->predictors, "Ask the four predictors at each arrival instead");
  c->add_flag("--json", args->json, "One JSON object on stdout");
  c->footer(
      "Measured TTFT and E2E count from a = arrival_time + min over requests(queued_ts - arrival_time).\n"
      "Example:\n"
      "  foretoken accuracy --truth runs/rtx4090 --table profiles/vllm-rtx4090 --calibrate-first 30 --json\n"
      "  foretoken accuracy --truth runs/vllm-cpu-live --predictors");
  c->callback([args, &exit_code] { exit_code = RunAccuracy(*args); });
}

}  // namespace foretoken
