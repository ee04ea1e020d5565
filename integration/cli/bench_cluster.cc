// `foretoken bench cluster`: what a decision costs over real processes on loopback, plain and under mutual TLS.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "integration/bench/cluster_bench.h"
#include "integration/bench/engine_bench.h"
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {
namespace {

struct Arguments {
  ClusterBenchOptions options;
  ClusterBenchNode node;
  std::string security = "both";
  bool json = false;
};

// An H100 with an 8B model (configs/topologies/small.yaml).
StepTimeModel Model() {
  StepTimeModel m;
  m.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{5.85e6, 19.5e3, 13.8e3, 42});
  m.host_overhead = Duration::Millis(1);
  return m;
}

int Complain(const std::string& message) {
  std::cerr << "foretoken bench cluster: " << message << "\n";
  return kExitFailed;
}

int Serve(Arguments& a) {
  a.node.load = a.options.load;
  a.node.instances_per_node = a.options.instances_per_node;
  if (a.node.certificates == "-") a.node.certificates.clear();
  const Status served = ServeClusterBenchNode(Model(), a.node);
  return served.ok() ? kExitOk : Complain(served.error().message);
}

int Run(Arguments& a) {
  if (a.node.node > 0) return Serve(a);
  ClusterBenchOptions& o = a.options;
  if (a.security != "both") o.tls = {a.security == "tls"};
  std::error_code ignored;
  o.program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const auto rows = RunClusterBench(Model(), o);
  if (!rows.ok()) return Complain(rows.error().message);
  boost::json::array out;
  if (!a.json)
    std::printf(
        "%s; %d + 1 processes, %.3g s a row; instances at %d running + %d waiting; Enqueue, Dispatch, outcome and one sync "
        "message per decision\n%6s %10s %5s %7s %9s %9s %12s %8s %9s %9s\n",
        MachineName().c_str(), o.nodes, o.seconds, o.load.running, o.load.waiting, "nodes", "candidates", "tls", "in fl.",
        "p50 us", "p99 us", "decisions/s", "frames", "bytes", "ping us");
  for (const ClusterBenchRow& r : *rows) {
    if (!a.json)
      std::printf("%6d %10d %5s %7d %9.1f %9.1f %12.0f %8.1f %9.0f %9.1f\n", r.nodes, r.candidates, r.tls ? "yes" : "no",
                  r.in_flight, r.p50_us, r.p99_us, r.decisions_per_second, r.frames_per_decision, r.bytes_per_decision,
                  r.round_trip_us);
    out.push_back(boost::json::object{{"nodes", r.nodes},
                                      {"candidates", r.candidates},
                                      {"predict_max", o.predict_max},
                                      {"tls", r.tls},
                                      {"in_flight", r.in_flight},
                                      {"p50_us", r.p50_us},
                                      {"p99_us", r.p99_us},
                                      {"decisions_per_second", r.decisions_per_second},
                                      {"frames_per_decision", r.frames_per_decision},
                                      {"bytes_per_decision", r.bytes_per_decision},
                                      {"round_trip_us", r.round_trip_us},
                                      {"decisions", r.decisions},
                                      {"unanswered", r.unanswered}});
  }
  if (a.json) std::cout << boost::json::object{{"machine", MachineName()}, {"seconds", o.seconds}, {"rows", out}} << "\n";
  return kExitOk;
}

}  // namespace

void AddBenchClusterCommand(CLI::App& bench, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  ClusterBenchOptions& o = a->options;
  CLI::App* c = bench.add_subcommand("cluster", "Latency and rate of decisions over processes on loopback");
  c->add_option("--nodes", o.nodes, "Processes beside the router's")->check(CLI::Range(1, 64));
  c->add_option("--instances", o.instances_per_node, "Instances per process")->check(CLI::Range(1, 1024));
  c->add_option("--in-flight", o.in_flight, "Decisions kept open, a row each")->delimiter(',');
  c->add_option("--security", a->security, "plain, tls or both")->check(CLI::IsMember({"plain", "tls", "both"}));
  c->add_option("--running", o.load.running, "Requests running per instance")->check(CLI::PositiveNumber);
  c->add_option("--waiting", o.load.waiting, "Requests waiting per instance, at least")->check(CLI::NonNegativeNumber);
  c->add_option("--predict-max", o.predict_max, "Candidates asked for predictions, the best by load; 0: all")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--seconds", o.seconds, "Measured time per row")->check(CLI::PositiveNumber);
  c->add_flag("--json", a->json, "One JSON object on standard output");
  // Of the processes that the benchmark starts.
  c->add_option("--serve-node", a->node.node)->group("");
  c->add_option("--ports", a->node.ports)->delimiter(',')->group("");
  c->add_option("--certificates", a->node.certificates)->group("");
  c->footer("Example: foretoken bench cluster --nodes 4 --instances 2 --json");
  c->callback([a, &exit_code] { exit_code = Run(*a); });
}

}  // namespace foretoken
