// `foretoken accuracy`: a real measured run replayed through the full-fidelity engine; prints how far the predicted TTFT, TPOT
// and E2E of each request are from what was measured. With --predictors: how far each predictor is, asked at each arrival.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "configs/step_table.h"
#include "integration/accuracy/measured_run.h"
#include "integration/accuracy/replay.h"
#include "integration/cli/accuracy_predictors.h"
#include "integration/cli/commands.h"
#include "integration/tables/csv.h"
#include "integration/tables/silicon.h"
#include "integration/tables/vllm_profile.h"

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

// The law of --table, and what an instance adds to it; `by_shape` is set to the law of a step as its shape tells it.
Result<accuracy::StepCost> LoadCost(const Arguments& args, std::shared_ptr<const StepTimeLaw>& by_shape) {
  accuracy::StepCost cost;
  double overhead_ms = args.host_overhead_ms;
  if (args.table.empty()) return Error{"--table is required"};
  if (std::filesystem::is_directory(args.table)) {
    const Result<tables::VllmProfile> profile = tables::ReadVllmProfile(args.table, args.model_shape);
    if (!profile.ok()) return profile.error();
    for (const std::string& a : profile->assumptions) Assume(a);
    Result<ProfileStepLaw> law = ProfileStepLaw::Make(profile->layers);
    if (!law.ok()) return Error{args.table + ": " + law.error().message};
    auto shared = std::make_shared<const ProfileStepLaw>(std::move(*law));
    cost.nanos = [shared](const StepComposition& step) { return shared->NanosOf(step); };
    by_shape = shared;
    if (overhead_ms < 0) {
      overhead_ms = 0;
      Assume("no host time between steps: asynchronous scheduling hides it (--host-overhead-ms)");
    }
  } else {
    const Result<std::string> text = tables::ReadTextFile(args.table);
    if (!text.ok()) return text.error();
    Result<StepTimeTable> table = Error{};
    if (text->starts_with("prefill_tokens,")) {  // NVIDIA's columns
      const std::string index = args.table.substr(0, args.table.find_last_of('/') + 1) + "index.json";
      const Result<std::string> index_text = tables::ReadTextFile(index);
      Result<tables::SiliconImport> import = tables::ImportSilicon(*text, args.table, index_text.ok() ? *index_text : "");
      if (!import.ok()) return import.error();
      Assume("step times made monotone: " + std::to_string(import->changed) + " values moved");
      table = StepTimeTable::Make(std::move(import->grid));
    } else {
      table = ParseStepTable(*text, args.table);
    }
    if (!table.ok()) return table.error();
    auto shared = std::make_shared<const StepTimeTable>(std::move(*table));
    cost.nanos = [shared](const StepComposition& step) { return shared->NanosOf(step.Shape()); };
    by_shape = shared;
    if (overhead_ms < 0) {
      overhead_ms = shared->Note("not_contained").has_value() ? 1.0 : 0.0;
      if (overhead_ms > 0) Assume("host overhead of 1 ms per step: the table says that it contains none (--host-overhead-ms)");
    }
  }
  cost.host_overhead = Duration::FromSeconds(overhead_ms * 1e-3);
  return cost;
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
    const Result<accuracy::StepCost> cost = LoadCost(args, model.law);
    if (!cost.ok()) return Fail(kExitUsage, cost.error().message);
    model.host_overhead = cost->host_overhead;
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
  std::shared_ptr<const StepTimeLaw> law;
  Result<accuracy::StepCost> cost = LoadCost(args, law);
  if (!cost.ok()) return Fail(kExitUsage, cost.error().message);
  double factor = 1;
  if (skip > 0) {
    const Result<double> fitted = accuracy::CalibrateFactor(*run, *cost, skip);
    if (!fitted.ok()) return Fail(kExitFailed, fitted.error().message);
    cost->factor = factor = *fitted;
    std::cerr << "calibrated on the first " << skip << " requests: step times times " << factor << "\n";
  }
  const Result<std::vector<accuracy::Served>> served = accuracy::Replay(*run, *cost);
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
