// `foretoken load`: the two ends of a test of a gateway or router: a fake engine behind it, and loads in front of it.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "integration/cli/commands.h"
#include "integration/load/fake_engine.h"
#include "integration/load/load_client.h"

namespace foretoken {
namespace {

EventLoop* g_loop = nullptr;

extern "C" void StopLoop(int) { g_loop->Stop(); }

int Complain(const std::string& message) {
  std::cerr << "foretoken load: " << message << "\n";
  return kExitUsage;
}

void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

struct EngineArguments {
  std::string host = "127.0.0.1";
  uint16_t port = 0;
  std::string name;
  std::string model = "fake-model";
  std::vector<std::string> set;
};

int RunEngine(const EngineArguments& a) {
  FakeEngineOptions options;
  options.name = a.name;
  options.model = a.model;
  for (const std::string& one : a.set) {
    const size_t equals = one.find('=');
    if (equals == std::string::npos) return Complain("\"" + one + "\" is not key=value, such as ttft=20ms");
    const Status set = SetFakeEngineOption(options, one.substr(0, equals), one.substr(equals + 1));
    if (!set.ok()) return Complain(set.error().message);
  }
  RaiseDescriptorLimit();
  auto loop = EventLoop::Make();
  if (!loop.ok()) return Complain(loop.error().message);
  FakeEngine engine(**loop, options);
  const auto port = engine.Listen(a.host, a.port);
  if (!port.ok()) return Complain(port.error().message);
  g_loop = loop->get();
  std::signal(SIGINT, StopLoop);
  std::signal(SIGTERM, StopLoop);
  std::cout << "foretoken load engine: listening on http://" << a.host << ":" << *port << std::endl;
  (*loop)->Run();
  return kExitOk;
}

struct ClientArguments {
  std::vector<std::string> urls;
  LoadOptions load;
  bool whole = false;
  double rate = 100;
  double seconds = 5;
  size_t streams = 100;
  size_t connections = 64;
  double timeout = 20;
};

boost::json::object Quantiles(std::vector<int64_t>& ns) {
  const auto us = [&ns](double q) { return static_cast<double>(QuantileOf(ns, q)) / 1e3; };
  if (ns.empty()) return {{"count", 0}, {"p50", nullptr}, {"p90", nullptr}, {"p99", nullptr}, {"max", nullptr}};
  return {{"count", ns.size()}, {"p50", us(0.5)}, {"p90", us(0.9)}, {"p99", us(0.99)}, {"max", us(1)}};
}

int Print(LoadResult r) {
  boost::json::object errors, engines;
  for (const auto& [what, count] : r.errors) errors[what] = count;
  for (const auto& [name, count] : r.engines) engines[name] = count;
  std::cout << boost::json::object{{"offered", r.offered},
                                   {"ok", r.ok},
                                   {"errors", errors},
                                   {"seconds", r.seconds},
                                   {"requests_per_second", r.seconds > 0 ? static_cast<double>(r.ok) / r.seconds : 0},
                                   {"ttft_us", Quantiles(r.ttft)},
                                   {"e2e_us", Quantiles(r.e2e)},
                                   {"transit_us", Quantiles(r.transit)},
                                   {"chunk_transit_us", Quantiles(r.chunk_transit)},
                                   {"late_us", Quantiles(r.late)},
                                   {"peak_in_flight", r.peak_in_flight},
                                   {"dials", r.dials},
                                   {"engines", engines}}
            << "\n";
  return r.failed() == 0 ? kExitOk : kExitFailed;
}

enum class Kind { kOpen, kSaturate, kBurst };

int RunClient(ClientArguments a, Kind kind) {
  for (const std::string& url : a.urls) {
    const auto target = ParseTarget(url);
    if (!target.ok()) return Complain(target.error().message);
    a.load.targets.push_back(*target);
  }
  a.load.stream = !a.whole;
  a.load.timeout = Duration::FromSeconds(a.timeout);
  RaiseDescriptorLimit();
  auto loop = EventLoop::Make();
  if (!loop.ok()) return Complain(loop.error().message);
  const Duration lasts = Duration::FromSeconds(a.seconds);
  switch (kind) {
    case Kind::kOpen: return Print(RunOpenLoop(**loop, a.load, a.rate, lasts));
    case Kind::kSaturate: return Print(RunSaturated(**loop, a.load, a.connections, Duration::Millis(500), lasts));
    case Kind::kBurst: return Print(RunBurst(**loop, a.load, a.streams, lasts));
  }
  return kExitUsage;
}

CLI::App* AddClient(CLI::App& load, int& exit_code, const std::shared_ptr<ClientArguments>& a, Kind kind, const char* name,
                    const char* what) {
  CLI::App* c = load.add_subcommand(name, what);
  c->add_option("--url", a->urls, "http://IPV4:PORT; several: in turn")->required();
  c->add_option("--path", a->load.path, "Path of the requests");
  c->add_option("--model", a->load.model, "Model that the requests name");
  c->add_option("--tokens", a->load.tokens, "max_tokens of a request")->check(CLI::PositiveNumber);
  c->add_option("--prompt-bytes", a->load.prompt_bytes, "Length of a prompt");
  c->add_option("--groups", a->load.groups, "Distinct prompts (each request adds its number)")->check(CLI::PositiveNumber);
  c->add_option("--api-key", a->load.api_key, "Bearer token");
  c->add_option("--timeout", a->timeout, "Seconds for a request")->check(CLI::PositiveNumber);
  c->add_option("--seed", a->load.seed, "Seed of arrivals and prompts");
  c->add_flag("--whole", a->whole, "Whole answers instead of streams");
  c->callback([a, kind, &exit_code] { exit_code = RunClient(*a, kind); });
  return c;
}

}  // namespace

void AddLoadCommand(CLI::App& app, int& exit_code) {
  CLI::App* load = app.add_subcommand("load", "Tests what stands in front of engines: a fake engine, and loads from clients");
  load->require_subcommand(1);
  load->footer("Example: foretoken load engine --set ttft=20ms itl=5ms");

  auto e = std::make_shared<EngineArguments>();
  CLI::App* engine =
      load->add_subcommand("engine", "An OpenAI-compatible server that computes nothing, with a set pace and faults");
  engine->add_option("--host", e->host, "IPv4 address to listen on");
  engine->add_option("--port", e->port, "Port; 0: the kernel chooses, see the first line of output");
  engine->add_option("--name", e->name, "X-Backend-Id of its answers (default: host:port)");
  engine->add_option("--model", e->model, "Model that it serves");
  engine->add_option("--set", e->set, "key=value: ttft, itl, tokens, per_chunk, mode, die_after, pad, early, health, poison");
  engine->footer("Example: foretoken load engine --port 9001 --set ttft=20ms itl=5ms tokens=16");
  engine->callback([e, &exit_code] { exit_code = RunEngine(*e); });

  auto a = std::make_shared<ClientArguments>();
  CLI::App* open = AddClient(*load, exit_code, a, Kind::kOpen, "open", "Poisson arrivals, whatever the answers take");
  open->add_option("--rate", a->rate, "Requests per second")->check(CLI::PositiveNumber);
  open->add_option("--seconds", a->seconds, "How long")->check(CLI::PositiveNumber);
  open->footer("Example: foretoken load open --url http://127.0.0.1:30000 --rate 500 --seconds 4");
  CLI::App* saturate =
      AddClient(*load, exit_code, a, Kind::kSaturate, "saturate", "As many as go over a number of connections");
  saturate->add_option("--connections", a->connections, "Connections")->check(CLI::PositiveNumber);
  saturate->add_option("--seconds", a->seconds, "How long")->check(CLI::PositiveNumber);
  saturate->footer("Example: foretoken load saturate --url http://127.0.0.1:30000 --connections 64 --whole");
  CLI::App* burst = AddClient(*load, exit_code, a, Kind::kBurst, "burst", "So many at once, each once");
  burst->add_option("--streams", a->streams, "Requests")->check(CLI::PositiveNumber);
  burst->add_option("--seconds", a->seconds, "Time to begin them all")->check(CLI::PositiveNumber);
  burst->footer("Example: foretoken load burst --url http://127.0.0.1:30000 --streams 2000 --seconds 2");
}

}  // namespace foretoken
