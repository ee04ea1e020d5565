// `foretoken bench gateway`: what the gateway adds to a direct connection, and what others add.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>

#include "integration/bench/engine_bench.h"
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"
#include "integration/load/gateway_bench.h"

namespace foretoken {
namespace {

struct Arguments {
  GatewayBenchOptions options;
  std::string peers = "none";
  bool json = false;
};

boost::json::array Numbers(const std::vector<double>& v) { return boost::json::array(v.begin(), v.end()); }

boost::json::object RowOf(const GatewayBenchRow& r) {
  boost::json::object kinds;
  for (const auto& [what, count] : r.error_kinds) kinds[what] = count;
  return {{"name", r.name},
          {"policy", r.policy},
          {"added_p50_us", r.added_p50_us},
          {"added_p99_us", r.added_p99_us},
          {"requests_per_second", r.requests_per_second},
          {"cpu_ms_per_1000_streams", r.cpu_ms_per_1000_streams},
          {"saturated_requests_per_second", r.saturated_requests_per_second},
          {"saturated_cpu_ms_per_1000", r.saturated_cpu_ms_per_1000},
          {"concurrent_streams", r.concurrent_streams},
          {"rss_mb", r.rss_mb},
          {"errors", r.errors},
          {"error_kinds", kinds},
          {"added_p50_us_repeats", Numbers(r.added_p50_us_repeats)},
          {"added_p99_us_repeats", Numbers(r.added_p99_us_repeats)}};
}

void PrintRow(const GatewayBenchRow& r) {
  std::printf("%12s %12s %9.0f %9.0f %9.0f %12.0f %10.0f %12.1f %8llu %7.1f %7llu\n", r.name.c_str(), r.policy.c_str(),
              r.added_p50_us, r.added_p99_us, r.requests_per_second, r.cpu_ms_per_1000_streams, r.saturated_requests_per_second,
              r.saturated_cpu_ms_per_1000, static_cast<unsigned long long>(r.concurrent_streams), r.rss_mb,
              static_cast<unsigned long long>(r.errors));
}

void Print(const GatewayBenchOptions& o, const GatewayBenchResult& r) {
  std::printf(
      "%s, load average %.1f before; %zu fake engines (TTFT %.0f ms, ITL %.0f ms, %lld tokens), %.0f streams/s, %d repeats\n",
      MachineName().c_str(), r.load_before, o.engines, o.ttft.seconds() * 1e3, o.itl.seconds() * 1e3,
      static_cast<long long>(o.tokens), o.rate, o.repeats);
  std::printf(
      "direct: first token's way p50 %.0f us, p99 %.0f us; saturated %.0f requests/s; the generator's own lateness p99 %.0f "
      "us\n",
      r.direct_p50_us, r.direct_p99_us, r.direct_saturated_requests_per_second, r.generator_late_p99_us);
  std::printf("%12s %12s %9s %9s %9s %12s %10s %12s %8s %7s %7s\n", "", "policy", "+p50 us", "+p99 us", "req/s", "CPU ms/1000",
              "sat. req/s", "CPU ms/1000", "streams", "RSS MB", "errors");
  PrintRow(r.gateway);
  for (const GatewayBenchRow& p : r.peers) PrintRow(p);
  for (const std::string& why : r.peers_left_out) std::printf("left out %s\n", why.c_str());
}

int Run(const std::shared_ptr<Arguments>& a) {
  a->options.peers = a->peers == "installed";
  a->options.progress = [](const std::string& what) { std::fprintf(stderr, "bench gateway: %s\n", what.c_str()); };
  const auto r = RunGatewayBench(a->options);
  if (!r.ok()) {
    std::cerr << "foretoken bench gateway: " << r.error().message << "\n";
    return kExitFailed;
  }
  if (!a->json) {
    Print(a->options, *r);
    return kExitOk;
  }
  boost::json::object out = RowOf(r->gateway);
  boost::json::array peers, left_out;
  for (const GatewayBenchRow& p : r->peers) peers.push_back(RowOf(p));
  for (const std::string& why : r->peers_left_out) left_out.push_back(boost::json::string(why));
  out["peers"] = peers;
  out["peers_left_out"] = left_out;
  out["machine"] = MachineName();
  out["load_before"] = r->load_before;
  out["direct_p50_us"] = r->direct_p50_us;
  out["direct_p99_us"] = r->direct_p99_us;
  out["direct_saturated_requests_per_second"] = r->direct_saturated_requests_per_second;
  out["generator_late_p99_us"] = r->generator_late_p99_us;
  std::cout << out << "\n";
  return kExitOk;
}

}  // namespace

void AddBenchGatewayCommand(CLI::App& bench, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  GatewayBenchOptions& o = a->options;
  CLI::App* c = bench.add_subcommand("gateway", "What the gateway adds to a direct connection, over fake engines");
  c->add_option("--peers", a->peers, "installed: nginx, haproxy, vllm-router and smg too, in the same run")
      ->check(CLI::IsMember({"none", "installed"}));
  c->add_option("--policy", o.policy, "Policy of the gateway");
  c->add_option("--engines", o.engines, "Fake engines")->check(CLI::PositiveNumber);
  c->add_option("--rate", o.rate, "Streams per second in the open loop")->check(CLI::PositiveNumber);
  c->add_option("--seconds", o.seconds, "Length of each open loop")->check(CLI::PositiveNumber);
  c->add_option("--saturated-seconds", o.saturated_seconds, "Length of each saturating load")->check(CLI::PositiveNumber);
  c->add_option("--streams", o.streams, "Streams open at one time")->check(CLI::PositiveNumber);
  c->add_option("--repeats", o.repeats, "Repeats; figures are medians")->check(CLI::PositiveNumber);
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken bench gateway --peers installed --json");
  c->callback([a, &exit_code] { exit_code = Run(a); });
}

}  // namespace foretoken
