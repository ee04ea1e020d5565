// `foretoken bench simulate`: steps and requests per second of one emulated engine.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>

#include "integration/bench/engine_bench.h"
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"

namespace foretoken {
namespace {

struct Arguments {
  EngineBenchOptions options;
  bool json = false;
};

int Run(const Arguments& a) {
  const auto rows = RunEngineBench(a.options);
  if (!rows.ok()) {
    std::cerr << "foretoken: " << rows.error().message << "\n";
    return kExitUsage;
  }
  if (a.json) {
    boost::json::array out;
    for (const EngineBenchRow& r : *rows)
      out.push_back({{"running", r.running},
                     {"steps_per_second", r.steps_per_second},
                     {"requests_per_second", r.requests_per_second},
                     {"allocations_per_step", r.allocations_per_step},
                     {"steps_per_second_lowest", r.lowest_steps_per_second},
                     {"steps_per_second_highest", r.highest_steps_per_second},
                     {"result_hash", std::to_string(r.result_hash)}});
    std::cout << boost::json::object{{"machine", MachineName()},     {"async_scheduling", a.options.async_scheduling},
                                     {"traces", a.options.traces},   {"noise_sigma", a.options.noise_sigma},
                                     {"seconds", a.options.seconds}, {"rows", out}}
              << "\n";
    return kExitOk;
  }
  std::printf("%s, one core; %s scheduling, %s, noise %.3g; median of %d rounds, %.3g s of processor time a row\n",
              MachineName().c_str(), a.options.async_scheduling ? "asynchronous" : "synchronous",
              a.options.traces ? "traces" : "no traces", a.options.noise_sigma, a.options.rounds, a.options.seconds);
  std::printf("%8s %14s %12s %12s %12s %12s\n", "running", "steps/s", "lowest", "highest", "requests/s", "allocs/step");
  for (const EngineBenchRow& r : *rows)
    std::printf("%8d %14.0f %12.0f %12.0f %12.0f %12.5f\n", r.running, r.steps_per_second, r.lowest_steps_per_second,
                r.highest_steps_per_second, r.requests_per_second, r.allocations_per_step);
  return kExitOk;
}

}  // namespace

void AddBenchSimulateCommand(CLI::App& bench, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = bench.add_subcommand("simulate", "Steps and requests per second of one emulated engine, one core");
  c->add_option("--running", a->options.running, "Requests kept running, a row each")->delimiter(',');
  c->add_flag("--async-scheduling", a->options.async_scheduling, "Two batches in flight");
  c->add_flag("--traces", a->options.traces, "Report every step");
  c->add_option("--noise", a->options.noise_sigma, "Spread of the step times")->check(CLI::NonNegativeNumber);
  c->add_option("--seconds", a->options.seconds, "Processor time per row")->check(CLI::PositiveNumber);
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken bench simulate --running 2,64 --json");
  c->callback([a, &exit_code] { exit_code = Run(*a); });
}

}  // namespace foretoken
