// `foretoken quickstart`: one command to see it work. Checks the default topology, replays a workload in virtual time under the
// default policy and the best simple ones, then runs the live system in this process under a short load and prints what it measured.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "configs/topology_reader.h"
#include "integration/cli/commands.h"
#include "integration/cli/progress_bar.h"
#include "integration/cli/serve_http.h"
#include "integration/serve/live_run.h"
#include "integration/simulate/compare_policies.h"
#include "integration/simulate/compose_run.h"
#include "integration/simulate/load_workload.h"
#include "integration/simulate/run_report.h"

namespace foretoken {
namespace {

volatile std::sig_atomic_t g_stop = 0;

void RequestStop(int) { g_stop = 1; }

struct Arguments {
  std::string topology, workload;
  bool once = false;
};

int Complain(const std::string& message) {
  std::cerr << "foretoken quickstart: " << message << (message.ends_with('\n') ? "" : "\n");
  return kExitUsage;
}

// A file of the repository: the script says where that is; else the folder that the program is run from.
std::string InRepository(const std::string& path) {
  const char* root = std::getenv("FORETOKEN_ROOT");
  return root == nullptr ? path : std::string(root) + "/" + path;
}

// ~0.7 of what the default topology can serve (policy-findings: 24.3 / 9.7 / 7.9 requests/s per H100 / A100 / L40S).
constexpr double kRateScale = 15;
constexpr size_t kRequests = 6000;
constexpr size_t kLiveRequests = 400;
constexpr double kLiveRateScale = 8;

int Replay(const Topology& topology, const std::string& workload) {
  const auto trace = LoadWorkload("", workload, {kRequests, kRateScale, topology.seed});
  if (!trace.ok()) return Complain(trace.error().message);
  const double span = trace->requests.back().meta.arrival.seconds();
  std::cout << "\n2. Virtual time: " << trace->requests.size() << " requests of " << trace->name << " over " << std::fixed
            << std::setprecision(0) << span << " s (" << static_cast<double>(trace->requests.size()) / span
            << " a second), the same arrivals for every policy\n\n";
  ProgressBar bar("replaying", "requests", false);
  const auto figures =
      ComparePolicies(topology, *trace, {topology.scheduler.policy, "least_requests", "lmetricw", "p2c", "round_robin"},
                      [&bar](size_t done, size_t total) { bar.Show(done, total); });
  if (!figures.ok()) return Complain(figures.error().message);
  PrintComparison(*figures, std::cout);
  return kExitOk;
}

int Live(const Topology& topology, const std::string& workload) {
  auto trace = LoadWorkload("", workload, {kLiveRequests, kLiveRateScale, topology.seed});
  if (!trace.ok()) return Complain(trace.error().message);
  auto run = ComposeRun(topology, *trace);
  if (!run.ok()) return Complain(run.error().message);
  LiveOptions options;
  options.run = std::move(run).value();
  options.load = std::shared_ptr<const Trace>(std::shared_ptr<void>(), &*trace);
  options.stop_requested = [] { return g_stop != 0; };
  std::signal(SIGINT, RequestStop);
  std::signal(SIGTERM, RequestStop);
  std::cout << "\n3. Live: the same actors on the real clock, " << topology.instances.size() << " emulated engines, policy "
            << topology.scheduler.policy << ", about " << std::setprecision(0)
            << static_cast<double>(trace->requests.size()) / trace->requests.back().meta.arrival.seconds()
            << " requests a second\n\n"
            << std::flush;
  const auto result = RunLive(options);
  if (!result.ok()) return Complain(result.error().message);
  trace->requests.resize(result->run.requests.size());
  const auto report = ReportRun({&topology, &*trace, result->wall_seconds, ""}, result->run);
  PrintRun(report, std::cout);
  std::vector<Duration> latency = result->decision_latency;
  std::sort(latency.begin(), latency.end());
  if (!latency.empty())
    std::printf("  decision latency, a prediction from each of %zu instances included: p50 %.0f us, p99 %.0f us\n",
                topology.instances.size(), static_cast<double>(latency[latency.size() / 2].nanos()) / 1e3,
                static_cast<double>(latency[(latency.size() - 1) * 99 / 100].nanos()) / 1e3);
  return result->drained ? kExitOk : kExitFailed;
}

int Quickstart(const Arguments& a) {
  const std::string file = a.topology.empty() ? InRepository("configs/topologies/mixed-gpu.yaml") : a.topology;
  const std::string workload = a.workload.empty() ? InRepository("configs/workloads/azure-conv-2023.yaml") : a.workload;
  auto topology = LoadTopology(file, {});
  if (!topology.ok()) return Complain(topology.errors().ToString());
  std::cout << "1. Topology " << file << ": valid; " << topology->instances.size() << " instances in " << topology->pools.size()
            << " pool(s), policy " << topology->scheduler.policy << ", predictor " << NameOf(topology->predictor.kind) << "\n";
  if (const int code = Replay(*topology, workload); code != kExitOk) return code;
  if (a.once) return Live(*topology, workload);
  std::signal(SIGINT, RequestStop);
  std::signal(SIGTERM, RequestStop);
  std::cout << "\n3. Live: " << topology->instances.size()
            << " emulated engines as OpenAI servers, and the gateway in front of them, policy " << topology->scheduler.policy
            << "\n\n";
  return ServeHttp(*topology, {true, true, 0, 0, [] { return g_stop != 0; }});
}

}  // namespace

void AddQuickstartCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("quickstart", "See it work: compare policies on a workload, then run the live system");
  c->add_flag("--once", a->once, "End after a short built-in load");
  c->add_option("--topology", a->topology, "Topology file (default: configs/topologies/mixed-gpu.yaml)");
  c->add_option("--workload", a->workload, "Workload file (default: configs/workloads/azure-conv-2023.yaml)");
  c->footer("Example: foretoken quickstart --once");
  c->callback([a, &exit_code] { exit_code = Quickstart(*a); });
}

}  // namespace foretoken
