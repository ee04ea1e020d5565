// `foretoken status` and `foretoken instances`: ask the nodes of a running cluster, over the addresses that its topology names.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "configs/topology_reader.h"
#include "integration/cli/commands.h"
#include "integration/transport/control_client.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Arguments {
  std::string topology;
  std::vector<std::string> set;
  std::vector<std::string> names;
  bool json = false;
};

int Complain(const std::string& message) {
  std::cerr << "foretoken: " << message << (message.ends_with('\n') ? "" : "\n");
  return kExitUsage;
}

// One connection per question: commands are rare.
class Cluster {
 public:
  static Result<Cluster> Of(const Arguments& a) {
    auto topology = LoadTopology(a.topology, a.set);
    if (!topology.ok()) return Error{topology.errors().ToString()};
    Cluster c;
    c.topology_ = std::move(topology).value();
    if (c.topology_.nodes.empty()) return Error{a.topology + ": no `nodes`: there is nothing to connect to"};
    if (c.topology_.tls) {
      auto tls = TlsContext::Load({c.topology_.tls->certificate, c.topology_.tls->key, c.topology_.tls->ca});
      if (!tls.ok()) return tls.error();
      c.tls_ = std::move(tls).value();
    }
    return c;
  }
  const std::vector<NodeSpec>& nodes() const { return topology_.nodes; }
  Result<ControlReply> Ask(const NodeSpec& node, const std::string& verb, std::vector<std::string> arguments) const {
    return AskNode({node.listen, node.name, tls_, 3}, ControlRequest{1, verb, std::move(arguments)});
  }

 private:
  Topology topology_;
  std::shared_ptr<const TlsContext> tls_;
};

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

int ShowStatus(const Arguments& a) {
  const auto cluster = Cluster::Of(a);
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

int ChangeState(const Arguments& a, const std::string& verb) {
  const auto cluster = Cluster::Of(a);
  if (!cluster.ok()) return Complain(cluster.error().message);
  std::string last;
  for (const NodeSpec& node : cluster->nodes()) {  // any node passes it on to those that it concerns
    const auto reply = cluster->Ask(node, verb, a.names);
    if (!reply.ok()) {
      last = reply.error().message;
      continue;
    }
    if (!reply->ok) return Complain(reply->text);
    std::cout << reply->text << "\n";
    return kExitOk;
  }
  std::cerr << "foretoken: no node answers: " << last << "\n";
  return kExitFailed;
}

}  // namespace

void AddStatusCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("status", "The state of a running cluster: nodes, instances, who mirrors what");
  c->add_option("--topology", a->topology, "Topology file")->required()->check(CLI::ExistingFile);
  c->add_option("--set", a->set, "Override a topology value: path=value");
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken status --topology configs/topologies/cluster.yaml\nExit code 1: some node does not answer.");
  c->callback([a, &exit_code] { exit_code = ShowStatus(*a); });
}

void AddInstancesCommand(CLI::App& app, int& exit_code) {
  CLI::App* c = app.add_subcommand("instances", "Membership of a running cluster");
  c->require_subcommand(1);
  c->footer("Example: foretoken instances drain --topology configs/topologies/cluster.yaml h100-3");
  for (const auto& [verb, help] :
       {std::pair("cordon", "Goes on with what it has; takes nothing new"), std::pair("uncordon", "Takes requests again"),
        std::pair("drain", "As cordon: to be left out when it is empty")}) {
    auto a = std::make_shared<Arguments>();
    CLI::App* v = c->add_subcommand(verb, help);
    v->add_option("--topology", a->topology, "Topology file")->required()->check(CLI::ExistingFile);
    v->add_option("--set", a->set, "Override a topology value: path=value");
    v->add_option("instances", a->names, "Names of instances")->required();
    v->footer(std::string("Example: foretoken instances ") + verb + " --topology configs/topologies/cluster.yaml h100-3");
    v->callback([a, verb = std::string(verb), &exit_code] { exit_code = ChangeState(*a, verb); });
  }
}

}  // namespace foretoken
