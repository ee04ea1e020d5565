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
#include "integration/cli/dashboard_option.h"
#include "integration/cli/progress_bar.h"
#include "integration/serve/fault_switch.h"
#include "integration/serve/http_front.h"
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
  std::string topology, workload, dashboard;
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
constexpr size_t kRoundRequests = 4000;  // of the endless load: submitted again and again

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

// Its sync links are there to be broken: that is what the fault switch of the page is for.
WatchOptions WatchOf(const Topology& topology) {
  WatchOptions w;
  w.board = std::make_shared<ObservationBoard>();
  w.facts = FactsOf(topology, "serve", "");
  w.facts.faults_switchable = true;
  w.kinds = EngineKindsOf(topology);
  w.faults = std::make_shared<FaultSwitch>();
  return w;
}

Result<LiveOptions> LiveOptionsOf(const Topology& topology, const Trace& trace) {
  auto run = ComposeRun(topology, trace);
  if (!run.ok()) return run.error();
  LiveOptions options;
  options.run = std::move(run).value();
  options.load = std::shared_ptr<const Trace>(std::shared_ptr<void>(), &trace);
  options.stop_requested = [] { return g_stop != 0; };
  options.watch = WatchOf(topology);
  std::signal(SIGINT, RequestStop);
  std::signal(SIGTERM, RequestStop);
  return options;
}

// With --once: a short load, measured.
int LiveOnce(const Arguments& a, const Topology& topology, const std::string& workload) {
  auto trace = LoadWorkload("", workload, {kLiveRequests, kLiveRateScale, topology.seed});
  if (!trace.ok()) return Complain(trace.error().message);
  auto made = LiveOptionsOf(topology, *trace);
  if (!made.ok()) return Complain(made.error().message);
  const LiveOptions& options = *made;
  const auto dashboard =
      StartDashboard(a.dashboard, {{"cluster", "Emulated cluster", options.watch->board, options.watch->faults}});
  if (!dashboard.ok()) return Complain(dashboard.error().message);
  std::cout << "\n3. Live: the same actors on the real clock, " << topology.instances.size() << " emulated engines, policy "
            << topology.scheduler.policy << ", about " << std::setprecision(0)
            << static_cast<double>(trace->requests.size()) / trace->requests.back().meta.arrival.seconds()
            << " requests a second\n";
  if (*dashboard) std::cout << "   Watch it at " << (*dashboard)->url() << "\n";
  std::cout << "\n" << std::flush;
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

// Until told to stop: the emulated cluster under an endless load, and beside it the same engines as OpenAI servers with the gateway in
// front, for requests of the user's own. One page shows both.
int LiveOn(const Arguments& a, const Topology& topology, const std::string& workload) {
  auto trace = LoadWorkload("", workload, {kRoundRequests, kLiveRateScale, topology.seed});
  if (!trace.ok()) return Complain(trace.error().message);
  auto made = LiveOptionsOf(topology, *trace);
  if (!made.ok()) return Complain(made.error().message);
  LiveOptions& options = *made;
  options.endless = true;
  HttpFrontOptions f;
  f.topology = &topology;
  f.gateway = f.any_port = true;
  f.board = std::make_shared<ObservationBoard>();
  const auto front = HttpFront::Start(f);
  if (!front.ok()) return Complain(front.error().message);
  const auto dashboard = StartDashboard(
      a.dashboard,
      {{"cluster", "Emulated cluster", options.watch->board, options.watch->faults}, {"gateway", "Gateway", f.board, nullptr}});
  if (!dashboard.ok()) return Complain(dashboard.error().message);
  std::cout << "\n3. Live: " << topology.instances.size() << " emulated engines under a load without end, policy "
            << topology.scheduler.policy << "; and the same engines as OpenAI servers behind the gateway\n\n";
  if (*dashboard) std::cout << "  Watch it:  " << (*dashboard)->url() << "\n";
  std::cout << "  Gateway:   " << (*front)->gateway_url() << "\n  Try:       " << (*front)->Curl()
            << "\n\nCtrl-C drains and ends." << std::endl;
  const auto result = RunLive(options);
  const bool ended = (*front)->Stop();
  if (!result.ok()) return Complain(result.error().message);
  if (result->drained && ended) return kExitOk;
  std::cerr << "foretoken quickstart: not all requests had ended when the time to drain was over\n";
  return kExitFailed;
}

int Quickstart(const Arguments& a) {
  const std::string file = a.topology.empty() ? InRepository("configs/topologies/mixed-gpu.yaml") : a.topology;
  const std::string workload = a.workload.empty() ? InRepository("configs/workloads/azure-conv-2023.yaml") : a.workload;
  auto topology = LoadTopology(file, {});
  if (!topology.ok()) return Complain(topology.errors().ToString());
  std::cout << "1. Topology " << file << ": valid; " << topology->instances.size() << " instances in " << topology->pools.size()
            << " pool(s), policy " << topology->scheduler.policy << ", predictor " << NameOf(topology->predictor.kind) << "\n";
  if (const int code = Replay(*topology, workload); code != kExitOk) return code;
  return a.once ? LiveOnce(a, *topology, workload) : LiveOn(a, *topology, workload);
}

}  // namespace

void AddQuickstartCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("quickstart", "See it work: compare policies on a workload, then run the live system");
  c->add_flag("--once", a->once, "End after a short built-in load");
  c->add_option("--topology", a->topology, "Topology file (default: configs/topologies/mixed-gpu.yaml)");
  c->add_option("--workload", a->workload, "Workload file (default: configs/workloads/azure-conv-2023.yaml)");
  c->add_option("--dashboard", a->dashboard, kDashboardHelp);
  c->footer("Example: foretoken quickstart --once");
  c->callback([a, &exit_code] { exit_code = Quickstart(*a); });
}

}  // namespace foretoken
