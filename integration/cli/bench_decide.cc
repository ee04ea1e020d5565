// `foretoken bench decide`: what a decision costs through the real actors of one process.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>

#include "integration/bench/decide_bench.h"
#include "integration/bench/engine_bench.h"
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {
namespace {

struct Arguments {
  DecideBenchOptions options;
  bool json = false;
};

// An H100 with an 8B model (configs/topologies/small.yaml).
StepTimeModel Model() {
  StepTimeModel m;
  m.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{5.85e6, 19.5e3, 13.8e3, 42});
  m.host_overhead = Duration::Millis(1);
  return m;
}

int Run(const Arguments& a) {
  const auto rows = RunDecideBench(Model(), a.options);
  if (!rows.ok()) {
    std::cerr << "foretoken bench decide: " << rows.error().message << "\n";
    return kExitUsage;
  }
  if (a.json) {
    boost::json::array out;
    for (const DecideBenchRow& r : *rows)
      out.push_back({{"candidates", r.candidates},
                     {"hosting", r.hosting},
                     {"predictor", r.predictor},
                     {"running", r.running},
                     {"waiting", r.waiting},
                     {"in_flight", r.in_flight},
                     {"p50_us", r.p50_us},
                     {"p99_us", r.p99_us},
                     {"p999_us", r.p999_us},
                     {"decisions_per_second", r.decisions_per_second},
                     {"decisions", r.decisions},
                     {"unanswered", r.unanswered}});
    std::cout << boost::json::object{{"machine", MachineName()},
                                     {"workers", a.options.workers},
                                     {"seconds", a.options.seconds},
                                     {"rows", out}}
              << "\n";
    return kExitOk;
  }
  std::printf("%s; %d worker(s), %.3g s a row; each decision with the winner's Enqueue and one sync message\n",
              MachineName().c_str(), a.options.workers, a.options.seconds);
  std::printf("%10s %8s %10s %8s %8s %10s %10s %10s %12s\n", "candidates", "hosting", "predictor", "load", "in fl.", "p50 us",
              "p99 us", "p99.9 us", "decisions/s");
  for (const DecideBenchRow& r : *rows)
    std::printf("%10d %8s %10s %5d+%-3d %7d %10.1f %10.1f %10.1f %12.0f\n", r.candidates, r.hosting.c_str(),
                r.predictor.c_str(), r.running, r.waiting, r.in_flight, r.p50_us, r.p99_us, r.p999_us, r.decisions_per_second);
  return kExitOk;
}

}  // namespace

void AddBenchDecideCommand(CLI::App& bench, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = bench.add_subcommand("decide", "Latency and rate of decisions through the real actors of one process");
  c->add_option("--candidates", a->options.candidates, "Instances, a row each")->delimiter(',');
  c->add_option("--in-flight", a->options.in_flight, "Decisions kept open, a row each")->delimiter(',');
  c->add_option("--hosting", a->options.hosting, "actor, shard or both")->delimiter(',');
  c->add_option("--running", a->options.running, "Requests running per instance")->check(CLI::PositiveNumber);
  c->add_option("--waiting", a->options.waiting, "Requests waiting per instance")->check(CLI::NonNegativeNumber);
  c->add_option("--shard-size", a->options.shard_size, "SIMULATORs per actor under shard")->check(CLI::PositiveNumber);
  c->add_option("--workers", a->options.workers, "Threads that run actors")->check(CLI::PositiveNumber);
  c->add_option("--seconds", a->options.seconds, "Measured time per row")->check(CLI::PositiveNumber);
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken bench decide --candidates 8 --hosting actor,shard --json");
  c->callback([a, &exit_code] { exit_code = Run(*a); });
}

}  // namespace foretoken
