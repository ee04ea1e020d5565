// `foretoken status`: asks the nodes of a running cluster, over the addresses that its topology names.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "integration/cli/commands.h"
#include "integration/cli/running_system.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Arguments {
  std::string topology;
  std::vector<std::string> set;
  std::string dashboard;
  bool json = false;
};

int Complain(const std::string& message) {
  std::cerr << "foretoken: " << message << (message.ends_with('\n') ? "" : "\n");
  return kExitUsage;
}

void PrintNode(const json::object& s) {
  std::printf("%s\n", json::value_to<std::string>(s.at("node")).c_str());
  for (const auto& p : s.at("peers").as_array()) {
    const json::object& peer = p.as_object();
    std::printf("  peer %-20s %s", json::value_to<std::string>(peer.at("node")).c_str(),
                peer.at("connected").as_bool() ? "connected" : "away");
    if (peer.contains("round_trip_us")) std::printf(", round trip %.0f us", peer.at("round_trip_us").to_number<double>());
    std::printf("\n");
  }
  for (const auto& i : s.at("instances").as_array()) {
    const json::object& instance = i.as_object();
    std::printf("  instance %-16s %s, %s; simulator on %s (term %lld)%s\n",
                json::value_to<std::string>(instance.at("instance")).c_str(),
                json::value_to<std::string>(instance.at("state")).c_str(),
                instance.at("reachable").as_bool() ? "reachable" : "not reachable",
                json::value_to<std::string>(instance.at("simulator_on")).c_str(),
                static_cast<long long>(instance.at("term").to_number<int64_t>()),
                instance.at("mirrored").as_bool() ? "" : ", which does not answer");
  }
  if (s.contains("schedulers"))
    for (const auto& d : s.at("schedulers").as_array())
      std::printf("  scheduler: %lld decisions, %lld by ledger, %lld retried, %lld assigned now\n",
                  static_cast<long long>(d.at("decisions").to_number<int64_t>()),
                  static_cast<long long>(d.at("by_ledger").to_number<int64_t>()),
                  static_cast<long long>(d.at("retried").to_number<int64_t>()),
                  static_cast<long long>(d.at("assigned").to_number<int64_t>()));
}

void PrintSeen(const json::object& o) {
  const json::object& system = o.at("system").as_object();
  const json::object& w = o.at("window").as_object();
  const auto number = [](const json::object& in, const char* key) { return in.at(key).to_number<double>(); };
  const auto time = [&](const char* what, const char* q) { return 1e3 * number(w.at(what).as_object(), q); };
  std::printf("%s, policy %s, up %.0f s\n", json::value_to<std::string>(system.at("name")).c_str(),
              json::value_to<std::string>(system.at("policy")).c_str(), number(o, "uptime"));
  std::printf(
      "  %.1f requests/s, %.0f tokens/s, %.0f open; TTFT p50 %.0f ms, p95 %.0f; E2E p50 %.0f ms, p95 %.0f; decision p99 %.0f "
      "us\n",
      number(w, "arrivals_per_second"), number(w, "output_tokens_per_second"), number(o.at("totals").as_object(), "open"),
      time("ttft", "p50"), time("ttft", "p95"), time("e2e", "p50"), time("e2e", "p95"), 1e3 * time("decision", "p99"));
  for (const auto& value : o.at("instances").as_array()) {
    const json::object& i = value.as_object();
    std::printf("  instance %-16s %s", json::value_to<std::string>(i.at("instance")).c_str(),
                json::value_to<std::string>(i.at("state")).c_str());
    if (i.at("mirrored").as_bool())
      std::printf(", %s; %.0f running, %.0f waiting, KV %.0f %%; state %.0f ms old; TTFT error p50 %.0f %%, by %s",
                  json::value_to<std::string>(i.at("liveness")).c_str(), number(i, "running"), number(i, "waiting"),
                  100 * number(i, "kv_use"), 1e3 * number(i, "age"), 100 * number(i.at("ttft_error").as_object(), "p50"),
                  json::value_to<std::string>(i.at("answers")).c_str());
    std::printf("\n");
  }
}

int ShowSeen(const Arguments& a) {
  const auto text = FetchStatus(a.dashboard);
  if (!text.ok()) {
    std::cerr << "foretoken status: " << text.error().message << "\n";
    return kExitFailed;
  }
  if (a.json) {
    std::cout << *text << "\n";
    return kExitOk;
  }
  boost::system::error_code code;
  const json::value seen = json::parse(*text, code);
  if (code || !seen.is_object() || !seen.as_object().contains("system")) return Complain("what answers there is no dashboard");
  PrintSeen(seen.as_object());
  return kExitOk;
}

int ShowStatus(const Arguments& a) {
  if (!a.dashboard.empty()) return ShowSeen(a);
  if (a.topology.empty()) return Complain("status: --topology of a cluster of nodes, or --dashboard of any running system");
  const auto cluster = RunningNodes::Of(a.topology, a.set);
  if (!cluster.ok()) return Complain(cluster.error().message);
  json::array nodes;
  size_t away = 0;
  for (const NodeSpec& node : cluster->nodes()) {
    const auto reply = cluster->Ask(node, "status", {});
    if (reply.ok() && reply->ok) {
      nodes.push_back(json::parse(reply->text));
      if (!a.json) PrintNode(nodes.back().as_object());
      continue;
    }
    ++away;
    const std::string why = reply.ok() ? reply->text : reply.error().message;
    nodes.push_back(json::object{{"node", node.name}, {"error", why}});
    if (!a.json) std::printf("%s\n  %s\n", node.name.c_str(), why.c_str());
  }
  if (a.json) std::cout << json::object{{"nodes", nodes}, {"away", away}} << "\n";
  return away == 0 ? kExitOk : kExitFailed;
}

}  // namespace

void AddStatusCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("status", "The state of a running cluster: nodes, instances, who mirrors what");
  c->add_option("--topology", a->topology, "Topology file: its nodes are asked")->check(CLI::ExistingFile);
  c->add_option("--set", a->set, "Override a topology value: path=value");
  c->add_option("--dashboard", a->dashboard, "URL, HOST:PORT or port of a running system's dashboard: it is asked instead");
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer(
      "Examples:\n"
      "  foretoken status --topology configs/topologies/cluster.yaml\n"
      "  foretoken status --dashboard 127.0.0.1:30080 --json\n"
      "Exit code 1: some node, or the dashboard, does not answer.");
  c->callback([a, &exit_code] { exit_code = ShowStatus(*a); });
}

}  // namespace foretoken
