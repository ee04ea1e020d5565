// `foretoken eval`: a grid of virtual runs with its results as files, or the highest rate that meets the targets.
#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/experiment.h"
#include "integration/cli/commands.h"
#include "integration/cli/progress_bar.h"
#include "integration/eval/evaluation.h"
#include "integration/eval/find_capacity.h"
#include "integration/eval/find_fleet.h"
#include "integration/eval/findings.h"
#include "integration/eval/run_grid.h"
#include "integration/eval/tune.h"
#include "integration/eval/write_report.h"
#include "integration/eval/write_summary.h"
#include "integration/simulate/load_workload.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Arguments {
  std::string experiment, out, topology, workload, policy, faults;
  std::string goal = "slo_attainment";
  std::vector<std::string> set, prices;
  double rate = 0;
  int instances_max = 32;
  size_t jobs = 0, seeds = 0, limit = 0;
  double slo_share = 0.9;
  bool resume = false, smoke = false, json = false, find_capacity = false, find_fleet = false, tune = false;
};

int Complain(const std::string& message, int code = kExitUsage) {
  std::cerr << "foretoken eval: " << message << (message.ends_with('\n') ? "" : "\n");
  return code;
}

Status WriteFile(const std::filesystem::path& path, const Evaluation& evaluation,
                 void (*write)(const Evaluation&, std::ostream&)) {
  std::ofstream out(path);
  if (!out) return Error{path.string() + ": cannot write: " + std::strerror(errno)};
  write(evaluation, out);
  out.flush();
  if (!out) return Error{path.string() + ": could not be written to its end (is the disk full?)"};
  return Status();
}

// One line per combination would be too much for a terminal: the findings' overviews, and where the rest is.
void Print(const Evaluation& evaluation, const std::filesystem::path& folder) {
  std::cout << evaluation.grid().name << ": " << evaluation.grid().question << "\n";
  for (const FindingGroup& group : FindingsOf(evaluation))
    std::cout << "\n  " << group.title << "\n    " << group.overview << "\n";
  std::cout << "\n  " << (folder / "report.html").string() << "   charts and tables\n  " << (folder / "summary.md").string()
            << "    findings and tables\n  " << (folder / "results.csv").string() << "   every figure of every run\n";
}

// Leaves out workloads whose trace is not there and measured runs that are not, and says so. False: none is left.
bool SkipAbsent(Experiment& experiment) {
  if (!experiment.measured.empty()) {
    std::erase_if(experiment.measured, [](const MeasuredCase& m) {
      if (m.absent)
        std::cerr << "foretoken eval: skipped: " << m.name << ": " << m.run << " or " << m.table << " is not there\n";
      return m.absent;
    });
    return !experiment.measured.empty();
  }
  std::vector<std::string> there;
  for (const std::string& workload : experiment.workloads) {
    if (const std::optional<std::string> absent = AbsentTrace(workload)) {
      std::cerr << "foretoken eval: skipped: " << *absent << "\n";
    } else {
      there.push_back(workload);
    }
  }
  experiment.workloads = std::move(there);
  return !experiment.workloads.empty();
}

int RunTune(const Arguments& a, const Experiment& experiment) {
  TuneOptions options{a.out, a.jobs, a.resume, a.smoke, a.goal, {}};
  ProgressBar bar("tuning", "runs", a.json);
  options.show = [&bar](size_t done, size_t total) { bar.Show(done, total); };
  const Result<json::array> tuned = Tune(experiment, options);
  if (!tuned.ok()) return Complain(tuned.error().message, kExitFailed);
  const std::filesystem::path path = std::filesystem::path(a.out) / "tuned.json";
  std::ofstream(path) << *tuned << "\n";
  if (a.json) {
    std::cout << *tuned << "\n";
    return kExitOk;
  }
  std::cout << std::setprecision(4) << "policy, where: " << a.goal
            << " as it is -> at its best of the points tried, and there\n";
  for (const json::value& v : *tuned) {
    const json::object& t = v.as_object();
    std::cout << "  " << t.at("policy").as_string().c_str() << ", " << t.at("where").as_string().c_str() << ": "
              << t.at("default") << " -> " << t.at("best") << " of " << t.at("tried");
    for (const auto& [weight, value] : t.at("weights").as_object())
      std::cout << ", " << weight << "=" << value.as_string().c_str();
    std::cout << "\n";
  }
  std::cout << "  " << path.string() << "   the same\n";
  return kExitOk;
}

int RunExperiment(const Arguments& a) {
  if (a.experiment.empty())
    return Complain("give an EXPERIMENT file, or --find-capacity or --find-fleet with --topology and --workload");
  if (a.out.empty()) return Complain("give --out DIR: where the results go");
  auto loaded = LoadExperiment(a.experiment, a.set);
  if (!loaded.ok()) return Complain(loaded.errors().ToString());
  Experiment experiment = std::move(loaded).value();
  if (a.seeds > 0) {
    experiment.seeds.clear();
    for (uint64_t s = 1; s <= a.seeds; ++s) experiment.seeds.push_back(s);
  }
  if (a.limit > 0) experiment.limit = a.limit;
  const bool measured = !experiment.measured.empty();
  if (measured && !SkipAbsent(experiment)) return Complain("no measured run is there", kExitFailed);
  if (!measured && !a.smoke && !SkipAbsent(experiment))
    return Complain("no workload is left; --smoke runs stand-ins of absent traces");
  const Grid grid = ExpandGrid(experiment, a.smoke);
  std::error_code error;
  const std::filesystem::path folder(a.out);
  std::filesystem::create_directories(folder, error);
  if (error) return Complain(a.out + ": cannot make this folder: " + error.message());

  if (a.tune && measured) return Complain("--tune needs simulations; this experiment has measured runs");
  if (a.tune) return RunTune(a, experiment);
  RunGridOptions options{(folder / "cells.jsonl").string(), a.jobs, a.resume, {}};
  ProgressBar bar("evaluating", "runs", a.json);
  options.show = [&bar](size_t done, size_t total) { bar.Show(done, total); };
  auto rows = RunGrid(grid, options);
  if (!rows.ok()) return Complain(rows.error().message, kExitFailed);
  const Evaluation evaluation(grid, std::move(rows).value());
  for (const auto& [name, write] :
       {std::pair{"results.csv", &WriteResultsCsv}, {"summary.md", &WriteSummary}, {"report.html", &WriteReport}})
    if (const Status written = WriteFile(folder / name, evaluation, write); !written.ok())
      return Complain(written.error().message, kExitFailed);
  if (!a.json) {
    Print(evaluation, folder);
    return kExitOk;
  }
  std::cout << json::object{{"experiment", grid.name},
                            {"runs", grid.cells.size()},
                            {"combinations", evaluation.combinations()},
                            {"seeds", grid.seeds},
                            {"results", (folder / "results.csv").string()},
                            {"summary", (folder / "summary.md").string()},
                            {"report", (folder / "report.html").string()}}
            << "\n";
  return kExitOk;
}

constexpr size_t kRatesAbout = 9;  // a search for the capacity tries about so many

int RunFindCapacity(const Arguments& a) {
  if (a.topology.empty() || a.workload.empty()) return Complain("--find-capacity needs --topology FILE and --workload FILE");
  FindCapacityOptions options;
  options.topology = a.topology;
  options.workload = a.workload;
  options.faults = a.faults;
  options.set = a.set;
  if (!a.policy.empty()) options.set.push_back("scheduler.policy=" + a.policy);
  options.slo_share = a.slo_share;
  options.limit = a.smoke && a.limit == 0 ? 500 : a.limit;
  for (uint64_t s = 2; s <= a.seeds; ++s) options.seeds.push_back(s);
  ProgressBar bar("searching", "rates", a.json);
  options.show = [&bar](size_t tried) { bar.Show(std::min(tried, kRatesAbout), kRatesAbout); };
  const Result<json::object> found = FindCapacity(options);
  if (!found.ok()) return Complain(found.error().message);
  if (a.json) {
    std::cout << *found << "\n";
    return kExitOk;
  }
  const auto number = [&](const char* key) { return found->at(key).to_number<double>(); };
  std::cout << std::fixed << std::setprecision(1) << "Capacity with at least " << 100 * a.slo_share
            << " % of the requests within their targets: " << number("requests_per_second") << " requests/s\n"
            << std::setprecision(2) << "  rate scale " << number("rate_scale") << ", " << number("load")
            << " of saturation; there " << std::setprecision(1) << 100 * number("slo_attainment") << " % met\n  tried:";
  for (const json::value& t : found->at("tried").as_array())
    std::cout << " " << std::setprecision(2) << t.at(0).to_number<double>() << " (" << std::setprecision(1)
              << 100 * t.at(1).to_number<double>() << " %)";
  std::cout << "\n";
  return kExitOk;
}

// "h100-llama-8b=4.5".
Result<std::map<std::string, double>> ParsePrices(const std::vector<std::string>& texts) {
  std::map<std::string, double> prices;
  for (const std::string& text : texts) {
    const size_t sign = text.find('=');
    char* end = nullptr;
    const double price = sign == std::string::npos ? 0 : std::strtod(text.c_str() + sign + 1, &end);
    if (sign == std::string::npos || sign == 0 || end == text.c_str() + sign + 1 || *end != '\0' || !(price > 0))
      return Error{"--price " + text + ": must be ENGINE=X with X above 0"};
    prices[text.substr(0, sign)] = price;
  }
  return prices;
}

int RunFindFleet(const Arguments& a) {
  if (a.topology.empty() || a.workload.empty() || !(a.rate > 0))
    return Complain("--find-fleet needs --topology FILE, --workload FILE, --rate X and a --price for every engine");
  const auto prices = ParsePrices(a.prices);
  if (!prices.ok()) return Complain(prices.error().message);
  FindFleetOptions options;
  options.topology = a.topology;
  options.workload = a.workload;
  options.set = a.set;
  if (!a.policy.empty()) options.set.push_back("scheduler.policy=" + a.policy);
  options.prices = *prices;
  options.rate = a.rate;
  options.slo_share = a.slo_share;
  options.instances_max = a.instances_max;
  options.limit = a.smoke && a.limit == 0 ? 500 : a.limit;
  for (uint64_t s = 2; s <= a.seeds; ++s) options.seeds.push_back(s);
  size_t shown = 0;
  options.show = [&](size_t tried) {
    if (!a.json && tried >= 2 * shown) std::cerr << "foretoken eval: " << (shown = tried) << " mixes tried\n";
  };
  const Result<json::object> found = FindFleet(options);
  if (!found.ok()) return Complain(found.error().message);
  if (a.json) {
    std::cout << *found << "\n";
    return kExitOk;
  }
  std::cout << "Cheapest fleet for " << a.rate << " requests/s with at least " << 100 * a.slo_share
            << " % of the requests within their targets:\n ";
  for (const auto& [engine, count] : found->at("fleet").as_object())
    if (count.to_number<int>() > 0) std::cout << " " << count.to_number<int>() << " x " << engine;
  std::cout << std::fixed << std::setprecision(1) << "\n  price " << found->at("price").to_number<double>() << "; there "
            << 100 * found->at("slo_attainment").to_number<double>() << " % met; " << found->at("tried").as_array().size()
            << " mixes tried, from the cheapest that could carry the rate\n";
  return kExitOk;
}

}  // namespace

void AddEvalCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("eval", "Run an experiment: a grid of virtual runs, with tables, charts and findings");
  c->add_option("experiment", a->experiment, "Experiment file (YAML)");
  c->add_option("--out", a->out, "Folder for results.csv, summary.md, report.html and cells.jsonl");
  c->add_option("--jobs", a->jobs, "Runs at a time; default: one per core");
  c->add_flag("--resume", a->resume, "Keep the runs that DIR/cells.jsonl has already; without it, start anew");
  c->add_flag("--smoke", a->smoke, "Small: one seed and few requests per run");
  c->add_option("--seeds", a->seeds, "Seeds 1 to N instead of the experiment's");
  c->add_option("--limit", a->limit, "Requests per run instead of the experiment's");
  c->add_option("--set", a->set, "Override a value of the experiment (of the topology with --find-capacity): path=value");
  c->add_flag("--tune", a->tune, "Instead: search the constants of every policy of the experiment, nine points each");
  c->add_option("--goal", a->goal, "Of --tune: the figure to better (slo_attainment, e2e_mean, ttft_mean, ...)");
  c->add_flag("--find-capacity", a->find_capacity, "Instead: the highest rate at which the targets are still met");
  c->add_flag("--find-fleet", a->find_fleet, "Instead: the cheapest mix of the topology's engines that meets them at --rate");
  c->add_option("--topology", a->topology, "Of --find-...: topology file (YAML)");
  c->add_option("--workload", a->workload, "Of --find-...: workload file (YAML)");
  c->add_option("--policy", a->policy, "Of --find-...: scheduling policy");
  c->add_option("--rate", a->rate, "Of --find-fleet: requests per second");
  c->add_option("--price", a->prices, "Of --find-fleet: ENGINE=X, what one instance costs (repeatable)");
  c->add_option("--instances-max", a->instances_max, "Of --find-fleet: instances of a mix")->check(CLI::Range(1, 1024));
  c->add_option("--faults", a->faults, "Of --find-capacity: fault plan (YAML)");
  c->add_option("--slo-share", a->slo_share, "Of --find-...: share of the requests that must meet their targets")
      ->check(CLI::Range(0.0, 1.0));
  c->add_flag("--json", a->json, "Print one JSON object");
  c->footer(
      "Examples:\n"
      "  foretoken eval configs/experiments/faults.yaml --out results/faults\n"
      "  foretoken eval --find-capacity --topology configs/topologies/8-homogeneous.yaml \\\n"
      "      --workload configs/workloads/azure-conv-2023.yaml --policy slo\n"
      "  foretoken eval --find-fleet --topology configs/topologies/mixed-gpu.yaml --rate 60 --limit 5000 \\\n"
      "      --workload configs/workloads/azure-conv-2023.yaml \\\n"
      "      --price h100-llama-8b=4 --price a100-llama-8b=1.8 --price l40s-llama-8b=1");
  c->callback([a, &exit_code] {
    exit_code = a->find_capacity ? RunFindCapacity(*a) : a->find_fleet ? RunFindFleet(*a) : RunExperiment(*a);
  });
}

}  // namespace foretoken
