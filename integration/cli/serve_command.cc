// `foretoken serve`: the live system over emulated engines, in one process or as one named node of a cluster. A built-in load measures it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "configs/config_tree.h"
#include "configs/topology_reader.h"
#include "integration/cli/commands.h"
#include "integration/cli/dashboard_option.h"
#include "integration/cli/log_option.h"
#include "integration/cli/serve_http.h"
#include "integration/log/exemplars.h"
#include "integration/serve/fault_switch.h"
#include "integration/serve/live_run.h"
#include "integration/serve/node_run.h"
#include "integration/simulate/compose_run.h"
#include "integration/simulate/run_report.h"
#include "runtime/workload/azure_profiles.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {
namespace {

volatile std::sig_atomic_t g_stop = 0;

extern "C" void RequestStop(int) { g_stop = 1; }

volatile std::sig_atomic_t g_reload = 0;

extern "C" void RequestReload(int) { g_reload = 1; }

struct Arguments {
  std::string topology;
  std::vector<std::string> set;
  std::string node;
  std::string record;
  double record_mb = 1024;
  bool record_sync = false;
  std::string load;
  double seconds = 0;
  double drain = 30;
  std::string dashboard;
  bool fault_switch = false;
  bool openai = false;
  uint16_t openai_port = 0;
  bool json = false;
  LogChoice log_choice;
  std::shared_ptr<Log> log;  // from the start of serving on
};

int Complain(const std::string& message) {
  std::cerr << "foretoken serve: " << message << (message.ends_with('\n') ? "" : "\n");
  return kExitUsage;
}

// What submits a load without end: so many requests, again and again.
constexpr double kRound = 4096;

// "rate=20,requests=200,workload=azure-conv-2023"; without requests: again and again (`endless`).
Result<Trace> ParseLoad(const std::string& text, uint64_t seed, bool& endless) {
  std::map<std::string, std::string> given;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, end - at);
    const size_t equals = part.find('=');
    if (equals == std::string::npos) return Error{"--load: \"" + part + "\" is not key=value: rate, requests, workload"};
    given[part.substr(0, equals)] = part.substr(equals + 1);
    at = end + 1;
  }
  double rate = 0;
  double requests = 0;
  std::string workload = "azure-conv-2023";
  for (const auto& [key, value] : given) {
    if (key == "workload") {
      workload = value;
      continue;
    }
    if (key != "rate" && key != "requests") return Error{"--load: unknown key \"" + key + "\": rate, requests, workload"};
    double& number = key == "rate" ? rate : requests;
    size_t used = 0;
    try {
      number = std::stod(value, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != value.size() || !(number > 0) || number > 1e7)
      return Error{"--load: " + key + " = " + value + ": must be a number > 0"};
  }
  if (rate == 0) return Error{"--load needs a rate: --load rate=20, or --load rate=20,requests=200"};
  endless = requests == 0;
  if (endless) requests = kRound;
  const auto profile = EmbeddedProfile(workload);
  if (!profile.ok()) return profile.error();
  SynthProfile p = **profile;
  p.requests = static_cast<size_t>(requests);
  p.arrivals.rate_rps = rate;
  Prng prng(seed);
  return Synthesize(p, prng);
}

boost::json::object Quantiles(std::vector<Duration> d) {
  std::sort(d.begin(), d.end());
  const auto at = [&d](double q) {
    return d.empty() ? 0.0 : static_cast<double>(d[static_cast<size_t>(q * static_cast<double>(d.size() - 1))].nanos()) / 1e3;
  };
  return {{"count", d.size()}, {"p50", at(0.5)}, {"p99", at(0.99)}, {"p999", at(0.999)}};
}

// On SIGHUP: the topology is read again, as strictly as at the start; its policy, weights and faults hold from now on. An invalid file
// changes nothing.
std::optional<Reload> NewSettings(const Arguments& a, std::string& what) {
  if (g_reload == 0) return std::nullopt;
  g_reload = 0;
  const auto topology = LoadTopology(a.topology, a.set);
  if (!topology.ok()) {
    a.log->Write(LogLevel::kError, "not_reloaded", "not reloaded: " + topology.errors().ToString());
    return std::nullopt;
  }
  what = "policy " + topology->scheduler.policy + ", faults " + topology->faults.name;
  return Reload{{topology->scheduler.policy, topology->scheduler.weights}, topology->faults};
}

Result<LiveResult> RunOne(const Arguments& a, const Topology& topology, LiveOptions live, Trace& trace) {
  NodeRunOptions options;
  options.topology = &topology;
  options.node = a.node;
  options.log = [log = a.log](const std::string& line) { log->Write(LogLevel::kInfo, "node", line); };
  options.fronting = [log = a.log](const std::string& url) {
    std::cout << "foretoken gateway: listening on " << url << std::endl;
    log->Write(LogLevel::kInfo, "http", "gateway at " + url, {{"url", url}});
  };
  uint64_t index = 0;
  while (index < topology.nodes.size() && topology.nodes[index].name != a.node) ++index;
  for (TraceRequest& r : trace.requests) r.meta.id = RequestId((index << kNodeIdShift) + r.meta.id.value());
  options.live = std::move(live);
  auto result = RunNode(options);
  if (!result.ok()) return result.error();
  return std::move(result->live);
}

int Report(const Arguments& a, const Topology& topology, const Trace& trace, const LiveResult& result) {
  boost::json::object report = ReportRun({&topology, &trace, result.wall_seconds, "none: real time"}, result.run);
  report["decision_us"] = Quantiles(result.decision_latency);
  report["drained"] = result.drained;
  if (a.json) {
    report.erase("decision_digest");  // real time: no two runs are the same
    std::cout << report << "\n";
  } else {
    PrintRun(report, std::cout);
    const boost::json::object& d = report.at("decision_us").as_object();
    std::printf("  decision latency p50 %.0f us, p99 %.0f us (submission to decision, through the actors)\n",
                d.at("p50").to_number<double>(), d.at("p99").to_number<double>());
  }
  if (!a.record.empty()) {
    const RecorderStatus& r = result.recorded;
    a.log->Write(LogLevel::kInfo, "recorded",
                 "recorded " + std::to_string(r.records) + " events, " + std::to_string(r.bytes) + " bytes" +
                     (r.dropped > 0 ? ", and left out " + std::to_string(r.dropped) + " beyond its size" : ""));
  }
  if (!result.drained)
    a.log->Write(LogLevel::kError, "not_drained", "not all requests had ended when the time to drain was over");
  return result.drained ? kExitOk : kExitFailed;
}

// Makes the run watchable, unless --dashboard none. Null then. Links that faults can be switched on at are there in one process only, and
// where the topology has no streams to break there is nothing to switch.
Result<std::unique_ptr<Dashboard>> Watch(const Arguments& a, const Topology& topology, LiveOptions& options) {
  if (a.dashboard == "none") return std::unique_ptr<Dashboard>();
  WatchOptions w;
  w.board = std::make_shared<ObservationBoard>();
  w.facts = FactsOf(topology, a.node.empty() ? "serve" : "node", a.node);
  w.kinds = EngineKindsOf(topology);
  w.models = FirstModelsOf(topology);
  if (a.fault_switch) w.faults = std::make_shared<FaultSwitch>();
  w.facts.faults_switchable = a.fault_switch;
  options.watch = w;
  return StartDashboard(a.dashboard, {{"cluster", a.node.empty() ? "Cluster" : "Node " + a.node, w.board, w.faults}});
}

void Announce(Log& log, const Topology& topology, const std::string& load, const Dashboard* dashboard) {
  log.Write(LogLevel::kInfo, "serving",
            std::to_string(topology.instances.size()) + " instances, " + std::to_string(topology.scheduler.count) +
                " scheduler(s), policy " + topology.scheduler.policy + "; " + load + "; Ctrl-C drains and ends");
  if (dashboard != nullptr)
    log.Write(LogLevel::kInfo, "dashboard", "dashboard at " + dashboard->url(), {{"url", dashboard->url()}});
}

Result<RecordingOptions> RecordingOf(const Arguments& a, const Topology& topology, bool sole) {
  const auto text = ReadConfigFile(a.topology);
  if (!text.ok()) return text.error();
  SessionRecord session{a.topology,
                        *text,
                        std::filesystem::absolute(a.topology).parent_path(),
                        a.set,
                        a.node,
                        static_cast<uint32_t>(std::max(1, topology.scheduler.count)),
                        a.node.empty() ? sole : SoleScheduler(topology)};
  return RecordingOptions{a.record, static_cast<uint64_t>(a.record_mb * 1e6), a.record_sync, std::move(session)};
}

Status MayServe(const Arguments& a, const Topology& topology) {
  if (a.fault_switch && !a.node.empty()) return Error{"--fault-switch is for links inside one process: leave out --node"};
  if (a.openai && !a.node.empty()) return Error{"--openai is for one process: leave out --node, or ask the cluster's gateway"};
  if (topology.predictor.inject_error != 0 || topology.predictor.inject_bias != 0)
    return Error{"predictor.inject_error and inject_bias are for virtual runs: leave them out of what is served"};
  return Status();
}

int Serve(const Arguments& a) {
  auto topology = LoadTopology(a.topology, a.set);
  if (!topology.ok()) return Complain(topology.errors().ToString());
  Trace trace;
  bool endless = false;
  if (!a.load.empty()) {
    auto parsed = ParseLoad(a.load, topology->seed, endless);
    if (!parsed.ok()) return Complain(parsed.error().message);
    trace = std::move(parsed).value();
  }
  const Status may = MayServe(a, *topology);
  if (!may.ok()) return Complain(may.error().message);
  if (a.node.empty() && trace.requests.empty() && (a.openai || topology->gateway)) {
    std::signal(SIGINT, RequestStop);
    std::signal(SIGTERM, RequestStop);
    return ServeHttp(*topology, {topology->gateway.has_value(), false, a.openai_port, a.dashboard, a.log, a.seconds,
                                 [] { return g_stop != 0; }});
  }
  if (!trace.requests.empty() && (a.openai || topology->gateway))
    a.log->Write(LogLevel::kInfo, "http", "the built-in load goes past HTTP: neither gateway nor OpenAI servers are started");
  auto run = ComposeRun(*topology, trace);
  if (!run.ok()) return Complain(run.error().message);

  LiveOptions options;
  options.run = std::move(run).value();
  if (topology->scheduler.hosting == Hosting::kShard) options.shard_size = static_cast<size_t>(topology->scheduler.shard_size);
  options.load = std::shared_ptr<const Trace>(std::shared_ptr<void>(), &trace);
  options.endless = endless;
  if (a.seconds > 0) options.lasts = Duration::FromSeconds(a.seconds);
  options.drain = Duration::FromSeconds(a.drain);
  if (!a.record.empty()) {
    auto record = RecordingOf(a, *topology, options.run.scheduler.sole);
    if (!record.ok()) return Complain(record.error().message);
    options.record = std::move(record).value();
  }
  auto dashboard = Watch(a, *topology, options);
  if (!dashboard.ok()) return Complain(dashboard.error().message);
  std::string settings;
  options.reload = [&a, &settings] { return NewSettings(a, settings); };
  options.reloaded = [&a, &settings](const Status& s) {
    if (s.ok()) {
      a.log->Write(LogLevel::kInfo, "reloaded", "reloaded: " + settings + "; anything else takes a restart");
    } else {
      a.log->Write(LogLevel::kError, "not_reloaded", "not reloaded: " + s.error().message);
    }
  };
  Exemplars exemplars(*a.log);
  options.stop_requested = [&] {
    if (options.watch) exemplars.Look(options.watch->board->Latest().get());
    return g_stop != 0;
  };
  std::signal(SIGINT, RequestStop);
  std::signal(SIGTERM, RequestStop);
  std::signal(SIGHUP, RequestReload);
  Announce(*a.log, *topology, endless ? "load until the end" : std::to_string(trace.requests.size()) + " requests",
           dashboard->get());
  const auto result = a.node.empty() ? RunLive(options) : RunOne(a, *topology, options, trace);
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  std::signal(SIGHUP, SIG_DFL);
  if (!result.ok()) return Complain(result.error().message);
  if (trace.requests.empty() || endless) {
    a.log->Write(LogLevel::kInfo, "served", "served for " + std::to_string(std::lround(result->wall_seconds)) + " s");
    if (a.json) std::cout << boost::json::object{{"wall_seconds", result->wall_seconds}, {"drained", result->drained}} << "\n";
    return kExitOk;
  }
  trace.requests.resize(result->run.requests.size());  // those that were submitted
  return Report(a, *topology, trace, *result);
}

}  // namespace

void AddServeCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("serve", "The live system over emulated engines, in one process or as a node of a cluster");
  c->add_option("--topology", a->topology, "Topology file")->required()->check(CLI::ExistingFile);
  c->add_option("--set", a->set, "Override a topology value: path=value");
  c->add_option("--node", a->node, "Be this one node of the topology's, in a cluster of processes");
  c->add_option("--record", a->record,
                "Write what the schedulers take and decide to this new file (foretoken replay, explain)");
  c->add_option("--record-max-mb", a->record_mb, "The log's size at most; recording stops there")->check(CLI::PositiveNumber);
  c->add_flag("--record-sync", a->record_sync,
              "With --record: also what the simulators here take, so that replay makes their predictions again");
  c->add_option("--load", a->load,
                "Built-in load: rate=R[,requests=N][,workload=azure-conv-2023]; the run ends with it, without requests never");
  c->add_option("--dashboard", a->dashboard, kDashboardHelp);
  c->add_flag("--fault-switch", a->fault_switch,
              "Let the dashboard delay, reorder and drop sync messages and kill emulated engines");
  c->add_option("--for", a->seconds, "Serve so many seconds at most")->check(CLI::PositiveNumber);
  c->add_option("--drain", a->drain, "Seconds that requests under way may take to end")->check(CLI::NonNegativeNumber);
  c->add_flag("--openai", a->openai, "Each emulated instance as an OpenAI server of its own");
  c->add_option("--openai-port", a->openai_port, "Port of the first of them, the others follow; 0: the kernel chooses");
  AddLogOptions(*c, a->log_choice);
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer(
      "Examples:\n"
      "  foretoken serve --topology configs/topologies/small.yaml --load rate=10,requests=100\n"
      "  foretoken serve --topology configs/topologies/cluster.yaml --node gpu-0");
  c->callback([a, &exit_code] {
    a->log = MakeLog(a->log_choice, a->node.empty() ? "foretoken serve" : "foretoken node " + a->node);
    exit_code = Serve(*a);
  });
}

}  // namespace foretoken
