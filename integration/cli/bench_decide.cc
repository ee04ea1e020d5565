// `foretoken bench decide`: what a decision costs through the real actors of one process.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <thread>
#include <vector>

#include "configs/topology.h"
#include "integration/bench/decide_bench.h"
#include "integration/bench/engine_bench.h"
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {
namespace {

struct Arguments {
  DecideBenchOptions options;
  bool critical_path = false;
  bool json = false;
};

// An H100 with an 8B model (configs/topologies/small.yaml).
StepTimeModel Model() {
  StepTimeModel m;
  m.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{5.85e6, 19.5e3, 13.8e3, 42});
  m.host_overhead = Duration::Millis(1);
  return m;
}

boost::json::object ToJson(const DecideBenchRow& r, const DecideBenchOptions& o) {
  return {{"candidates", r.candidates},
          {"hosting", r.hosting},
          {"predictor", NameOf(o.load.predictor)},
          {"running", o.load.running},
          {"waiting", o.load.waiting},
          {"workers", o.workers},
          {"predict_max", o.predict_max},
          {"in_flight", r.in_flight},
          {"p50_us", r.p50_us},
          {"p99_us", r.p99_us},
          {"p999_us", r.p999_us},
          {"decisions_per_second", r.decisions_per_second},
          {"decisions", r.decisions},
          {"unanswered", r.unanswered},
          {"floor_p50_us", r.floor_p50_us},
          {"max_compute_us", r.max_compute_us},
          {"sum_compute_us", r.sum_compute_us},
          {"max_queue_us", r.max_queue_us}};
}

void PrintRow(const DecideBenchRow& r, const DecideBenchOptions& o) {
  std::printf("%10d %8s %10s %5d+%-3d %7d %7d %9.1f %9.1f %9.1f %11.0f %9.1f\n", r.candidates, r.hosting.c_str(),
              std::string(NameOf(o.load.predictor)).c_str(), o.load.running, o.load.waiting, o.workers, r.in_flight, r.p50_us,
              r.p99_us, r.p999_us, r.decisions_per_second, r.floor_p50_us);
}

void PrintPathRow(const DecideBenchRow& r, const DecideBenchOptions& o) {
  std::printf("%10d %10s %7d %11.1f %13.1f %13.1f %13.1f\n", r.candidates, std::string(NameOf(o.load.predictor)).c_str(),
              o.workers, r.p50_us, r.max_compute_us, r.sum_compute_us, r.max_queue_us);
}

// The runs that a call asks for: one, or for the critical path one per predictor and number of workers.
std::vector<DecideBenchOptions> Runs(const Arguments& a) {
  if (!a.critical_path) return {a.options};
  std::vector<DecideBenchOptions> runs;
  for (const PredictorKind predictor : {PredictorKind::kReference, PredictorKind::kTimeline})
    for (const int32_t workers : {1, static_cast<int32_t>(std::max(2u, std::thread::hardware_concurrency()))}) {
      DecideBenchOptions o = a.options;
      o.candidates = {1, 2, 4, 8, 16};
      o.in_flight = {1};
      o.hosting = {"actor"};
      o.load.predictor = predictor;
      o.workers = workers;
      runs.push_back(std::move(o));
    }
  return runs;
}

void PrintHeader(const Arguments& a) {
  std::printf("%s; %.3g s a row; each decision with the winner's Enqueue and one sync message\n", MachineName().c_str(),
              a.options.seconds);
  if (a.critical_path) {
    std::printf("Medians in us: a decision takes the longest prediction where workers suffice, the sum where they do not\n");
    std::printf("%10s %10s %7s %11s %13s %13s %13s\n", "candidates", "predictor", "workers", "decision", "max(compute)",
                "sum(compute)", "max(queueing)");
    return;
  }
  std::printf("%10s %8s %10s %8s %8s %7s %9s %9s %9s %11s %9s\n", "candidates", "hosting", "predictor", "load", "workers",
              "in fl.", "p50 us", "p99 us", "p99.9 us", "decisions/s", "floor p50");
}

int Run(const Arguments& a) {
  boost::json::array out;
  if (!a.json) PrintHeader(a);
  for (const DecideBenchOptions& o : Runs(a)) {
    const auto rows = RunDecideBench(Model(), o);
    if (!rows.ok()) {
      std::cerr << "foretoken bench decide: " << rows.error().message << "\n";
      return kExitUsage;
    }
    for (const DecideBenchRow& r : *rows) {
      if (a.json) {
        out.push_back(ToJson(r, o));
      } else {
        (a.critical_path ? PrintPathRow : PrintRow)(r, o);
      }
    }
  }
  if (a.json)
    std::cout << boost::json::object{{"machine", MachineName()}, {"seconds", a.options.seconds}, {"rows", out}} << "\n";
  return kExitOk;
}

}  // namespace

void AddBenchDecideCommand(CLI::App& bench, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  DecideBenchOptions& o = a->options;
  CLI::App* c = bench.add_subcommand("decide", "Latency and rate of decisions through the real actors of one process");
  c->add_option("--candidates", o.candidates, "Instances, a row each")->delimiter(',');
  c->add_option("--in-flight", o.in_flight, "Decisions kept open, a row each")->delimiter(',');
  c->add_option("--hosting", o.hosting, "actor, shard or both")->delimiter(',');
  c->add_option("--running", o.load.running, "Requests running per instance")->check(CLI::PositiveNumber);
  c->add_option("--waiting", o.load.waiting, "Requests waiting per instance, at least")->check(CLI::NonNegativeNumber);
  c->add_option("--shard-size", o.shard_size, "SIMULATORs per actor under shard")->check(CLI::PositiveNumber);
  c->add_option("--workers", o.workers, "Threads that run actors")->check(CLI::PositiveNumber);
  c->add_option("--predict-max", o.predict_max, "Candidates asked for predictions, the best by load; 0: all")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--seconds", o.seconds, "Measured time per row")->check(CLI::PositiveNumber);
  c->add_flag("--critical-path", a->critical_path,
              "Where the time of a decision goes: 1 to 16 candidates, reference and timeline, one and all workers");
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer(
      "Example: foretoken bench decide --candidates 8 --hosting actor,shard --json\n"
      "Example: foretoken bench decide --critical-path");
  c->callback([a, &exit_code] { exit_code = Run(*a); });
}

}  // namespace foretoken
