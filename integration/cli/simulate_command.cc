// `foretoken simulate`: one closed-loop run in virtual time over a real or synthetic workload.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "configs/faults.h"
#include "configs/topology_reader.h"
#include "integration/cli/commands.h"
#include "integration/cli/progress_bar.h"
#include "integration/simulate/compose_run.h"
#include "integration/simulate/decision_log.h"
#include "integration/simulate/load_workload.h"
#include "integration/simulate/run_report.h"

namespace foretoken {
namespace {

struct Arguments {
  std::string topology, trace, workload, policy, predictor, length_estimator, sync, faults, decisions, requests;
  std::vector<std::string> set;
  double rate_scale = 1;
  double truth_sample = 0;
  size_t limit = 0;
  uint64_t seed = 0;
  bool json = false;
  CLI::Option* seed_option = nullptr;
};

// Shows progress on a terminal and keeps the decision log.
class Observer final : public RunObserver {
 public:
  Observer(DecisionLog& log, bool quiet) : log_(log), bar_("simulating", "requests", quiet) {}
  void OnDecision(const DecisionRecord& record) override { log_.Add(record); }
  void OnProgress(size_t arrived, size_t total) override { bar_.Show(arrived, total); }

 private:
  DecisionLog& log_;
  ProgressBar bar_;
};

int Complain(const std::string& message) {
  std::cerr << "foretoken simulate: " << message << (message.ends_with('\n') ? "" : "\n");
  return kExitUsage;
}

// Options that are shorthands for a topology value are read as strictly as --set.
std::vector<std::string> Overrides(const Arguments& a) {
  std::vector<std::string> out = a.set;
  const auto add = [&](const char* path, const std::string& value) {
    if (!value.empty()) out.push_back(std::string(path) + "=" + value);
  };
  add("scheduler.policy", a.policy);
  add("predictor.kind", a.predictor);
  add("predictor.length_estimator", a.length_estimator);
  add("sync.level", a.sync);
  if (a.seed_option->count() > 0) add("seed", std::to_string(a.seed));
  return out;
}

int Simulate(const Arguments& a) {
  auto loaded = LoadTopology(a.topology, Overrides(a));
  if (!loaded.ok()) return Complain(loaded.errors().ToString());
  Topology topology = std::move(loaded).value();
  if (!a.faults.empty()) {
    auto faults = LoadFaultPlan(a.faults);
    if (!faults.ok()) return Complain(faults.errors().ToString());
    topology.faults = std::move(faults).value();
    const std::vector<std::string> unmatched = UnmatchedPatterns(topology.faults, topology.InstanceNames());
    if (!unmatched.empty()) return Complain(a.faults + ": " + unmatched.front());
  }
  const Result<Trace> trace = LoadWorkload(a.trace, a.workload, {a.limit, a.rate_scale, topology.seed});
  if (!trace.ok()) return Complain(trace.error().message);
  auto options = ComposeRun(topology, *trace);
  if (!options.ok()) return Complain(options.error().message);
  options->truth_sample = a.truth_sample;
  auto log = DecisionLog::Open(a.decisions, topology.InstanceNames());
  if (!log.ok()) return Complain(log.error().message);

  Observer observer(**log, a.json);
  const auto start = std::chrono::steady_clock::now();
  const Result<RunResult> result = RunVirtual(*options, *trace, &observer);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  if (!result.ok()) return Complain(result.error().message);
  const auto digest = (*log)->Close();
  if (!digest.ok()) return std::cerr << "foretoken simulate: " << digest.error().message << "\n", kExitFailed;

  const RunContext context{&topology, &*trace, wall.count(), *digest};
  if (!a.requests.empty()) {
    const Status written = WriteRequestsCsv(a.requests, context, *result);
    if (!written.ok()) return std::cerr << "foretoken simulate: " << written.error().message << "\n", kExitFailed;
  }
  const boost::json::object report = ReportRun(context, *result);
  if (a.json) {
    std::cout << report << "\n";
  } else {
    PrintRun(report, std::cout);
  }
  return kExitOk;
}

}  // namespace

void AddSimulateCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c =
      app.add_subcommand("simulate", "Run one closed loop in virtual time: predict, assign, execute, sync, reconcile");
  c->add_option("--topology", a->topology, "Topology file (YAML)")->required();
  c->add_option("--trace", a->trace, "Recorded trace; its format is told from its first line");
  c->add_option("--workload", a->workload, "Workload file (YAML), instead of --trace");
  c->add_option("--policy", a->policy, "Scheduling policy (topology: scheduler.policy)");
  c->add_option("--predictor", a->predictor, "reference | pattern | pattern_reuse | timeline");
  c->add_option("--length-estimator", a->length_estimator, "oracle | max_tokens | hint | mean | sampled");
  c->add_option("--sync", a->sync, "none | poll:100ms | aggregate | full");
  c->add_option("--faults", a->faults, "Fault plan (YAML)");
  c->add_option("--rate-scale", a->rate_scale, "Arrivals come so many times as fast")->check(CLI::PositiveNumber);
  c->add_option("--limit", a->limit, "Only the first N requests");
  a->seed_option = c->add_option("--seed", a->seed, "Seed of noise, ties and draws (topology: seed)");
  c->add_option("--set", a->set, "Override a topology value: path=value (repeatable)");
  c->add_option("--decisions", a->decisions, "Write the decision log (JSON Lines)");
  c->add_option("--requests", a->requests, "Write one CSV line per request");
  c->add_option("--truth-sample", a->truth_sample, "Share of decisions compared with the truth by forking the engines")
      ->check(CLI::Range(0.0, 1.0));
  c->add_flag("--json", a->json, "Print one JSON object");
  c->footer(
      "Example:\n"
      "  foretoken simulate --topology configs/topologies/mixed-gpu.yaml --workload configs/workloads/azure-conv-2023.yaml \\\n"
      "      --policy min_e2e --rate-scale 10 --faults configs/faults/loss_1.yaml");
  c->callback([a, &exit_code] { exit_code = Simulate(*a); });
}

}  // namespace foretoken
