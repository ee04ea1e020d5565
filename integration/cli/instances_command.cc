// `foretoken instances`: membership of a running system. Through the nodes of a cluster, or through the admin address of a gateway.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "configs/topology_reader.h"
#include "integration/cli/commands.h"
#include "integration/cli/running_system.h"
#include "integration/http/http_fetch.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Arguments {
  std::string verb;
  std::string topology, gateway, api_key, kind, node, simulator;
  std::vector<std::string> set, names;
  double wait = 0;
};

int Complain(const std::string& message, int code = kExitUsage) {
  std::cerr << "foretoken instances: " << message << (message.ends_with('\n') ? "" : "\n");
  return code;
}

// ---- Through a gateway.

std::string Encoded(const std::string& text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (std::isalnum(u) || c == '-' || c == '.' || c == '_') {
      out += c;
    } else {
      out += {'%', kHex[u >> 4], kHex[u & 15]};
    }
  }
  return out;
}

class GatewayClient {
 public:
  // "http://HOST:PORT", HOST an IPv4 address or localhost.
  static Result<GatewayClient> At(const std::string& url, const std::string& api_key) {
    GatewayClient g;
    std::string rest = url.rfind("http://", 0) == 0 ? url.substr(7) : url;
    while (!rest.empty() && rest.back() == '/') rest.pop_back();
    const size_t colon = rest.rfind(':');
    const std::string port = colon == std::string::npos ? "" : rest.substr(colon + 1);
    if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos || std::stoi(port) > 65535)
      return Error{"--gateway " + url + ": must be http://ADDRESS:PORT, such as http://127.0.0.1:30000"};
    g.host_ = rest.substr(0, colon);
    if (g.host_ == "localhost" || g.host_ == "0.0.0.0") g.host_ = "127.0.0.1";
    g.port_ = static_cast<uint16_t>(std::stoi(port));
    g.key_ = api_key;
    return g;
  }

  // The object that it answers with. Error: what it says, or why it says nothing.
  Result<json::object> Ask(const std::string& method, const std::string& path, const std::string& body = "") const {
    const auto answer = HttpFetch(host_, port_, HttpCall{method, path, body, key_}, Duration::Seconds(10));
    if (!answer.ok()) return answer.error();
    json::error_code ec;
    const json::value v = json::parse(answer->body, ec);
    if (ec || !v.is_object()) return Error{"the gateway answers " + std::to_string(answer->status) + " without an object"};
    if (answer->status < 300) return v.as_object();
    const json::value* error = v.as_object().if_contains("error");
    const json::value* text = error != nullptr && error->is_object() ? error->as_object().if_contains("message") : nullptr;
    return Error{text != nullptr && text->is_string() ? std::string(text->as_string())
                                                      : "the gateway answers " + std::to_string(answer->status)};
  }

 private:
  std::string host_, key_;
  uint16_t port_ = 0;
};

// Until nothing is under way at the worker, or it is no longer there.
bool WaitUntilEmpty(const GatewayClient& gateway, const std::string& name, double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  for (;;) {
    const auto worker = gateway.Ask("GET", "/workers/" + Encoded(name));
    if (!worker.ok()) return true;
    const json::value* under_way = worker->if_contains("under_way");
    const bool leaving = worker->at("state").as_string() == "leaving";
    if (!leaving && under_way != nullptr && under_way->to_number<int64_t>() == 0) return true;
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

int ChangeThroughGateway(const Arguments& a, const GatewayClient& gateway) {
  std::vector<std::string> names = a.names;
  if (a.verb == "add" && !a.kind.empty() && names.empty()) names.push_back("");
  for (const std::string& name : names) {
    Result<json::object> done = Error{""};
    if (a.verb == "add") {
      json::object body;
      if (a.kind.empty()) {
        body["url"] = name;
      } else {
        body["kind"] = a.kind;
        if (!name.empty()) body["name"] = name;
      }
      done = gateway.Ask("POST", "/workers", json::serialize(body));
    } else if (a.verb == "remove") {
      done = gateway.Ask("DELETE", "/workers/" + Encoded(name));
    } else {
      done = gateway.Ask("POST", "/workers/" + Encoded(name) + "/" + a.verb, "{}");
    }
    if (!done.ok()) return Complain(done.error().message, kExitFailed);
    std::cout << json::serialize(*done) << std::endl;
    const bool empties = a.verb == "remove" || a.verb == "drain";
    if (a.wait > 0 && empties && !WaitUntilEmpty(gateway, name, a.wait))
      return Complain(name + ": requests are still under way there after " + std::to_string(a.wait) + " s", kExitFailed);
  }
  return kExitOk;
}

// ---- Through nodes.

// What a node says of the cluster. Error: it does not answer.
Result<json::object> StatusOf(const RunningNodes& cluster, const NodeSpec& node) {
  const auto reply = cluster.Ask(node, "status", {});
  if (!reply.ok()) return reply.error();
  json::error_code ec;
  const json::value v = json::parse(reply->text, ec);
  if (!reply->ok || ec || !v.is_object()) return Error{"node " + node.name + ": " + reply->text.substr(0, 200)};
  return v.as_object();
}

// Of the nodes that the topology gives engines to, the one that runs the fewest now. Error: none of them answers.
Result<const NodeSpec*> LeastNode(const RunningNodes& cluster) {
  const NodeSpec* least = nullptr;
  size_t fewest = 0;
  for (const NodeSpec& node : cluster.nodes()) {
    if (node.instances.empty()) continue;
    const auto status = StatusOf(cluster, node);
    if (!status.ok()) continue;
    const json::value* engines = status->if_contains("engines");
    const size_t count = engines == nullptr ? 0 : engines->as_object().size();
    if (least == nullptr || count < fewest) least = &node, fewest = count;
  }
  if (least == nullptr) return Error{"no node that runs engines answers: --node says where the instance is to run"};
  return least;
}

// Those of the names that are still there, or have something under way, as any node that answers says.
bool AllEmpty(const RunningNodes& cluster, const Arguments& a) {
  for (const NodeSpec& node : cluster.nodes()) {
    const auto status = StatusOf(cluster, node);
    if (!status.ok()) continue;
    const json::value* engines = status->if_contains("engines");
    for (const std::string& name : a.names) {
      const auto named = [&name](const json::value& i) { return json::value_to<std::string>(i.at("instance")) == name; };
      const json::array& there = status->at("instances").as_array();
      if (a.verb == "remove" && std::any_of(there.begin(), there.end(), named)) return false;
      const json::value* engine = engines == nullptr ? nullptr : engines->as_object().if_contains(name);
      if (engine != nullptr && engine->at("under_way").to_number<int64_t>() > 0) return false;
    }
  }
  return true;
}

int AddThroughNodes(const Arguments& a, const RunningNodes& cluster) {
  if (a.kind.empty()) return Complain("add: --kind says what it is like: an engine or an instance of the topology");
  const NodeSpec* node = nullptr;
  for (const NodeSpec& n : cluster.nodes())
    if (n.name == a.node) node = &n;
  if (!a.node.empty() && node == nullptr) return Complain("--node " + a.node + ": not in the topology");
  if (node == nullptr) {
    const auto least = LeastNode(cluster);
    if (!least.ok()) return Complain(least.error().message, kExitFailed);
    node = *least;
  }
  const std::vector<std::string> names = a.names.empty() ? std::vector<std::string>{""} : a.names;
  for (const std::string& name : names) {
    const auto reply = cluster.Ask(*node, "add", {a.kind, a.simulator, name});
    if (!reply.ok()) return Complain(reply.error().message, kExitFailed);
    if (!reply->ok) return Complain("node " + node->name + ": " + reply->text, kExitFailed);
    std::cout << reply->text << std::endl;
  }
  return kExitOk;
}

int ChangeThroughNodes(const Arguments& a, const RunningNodes& cluster) {
  if (a.verb == "add") return AddThroughNodes(a, cluster);
  const auto reply = cluster.AskAny(a.verb, a.names);
  if (!reply.ok()) return Complain(reply.error().message, kExitFailed);
  if (!reply->ok) return Complain(reply->text, kExitFailed);
  std::cout << reply->text << "\n";
  if (a.wait <= 0) return kExitOk;
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(a.wait);
  while (!AllEmpty(cluster, a)) {
    if (std::chrono::steady_clock::now() >= until)
      return Complain("requests are still under way there after " + std::to_string(a.wait) + " s", kExitFailed);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return kExitOk;
}

int Change(const Arguments& a) {
  if (a.topology.empty() == a.gateway.empty())
    return Complain("where? --topology FILE of the running system, or --gateway URL");
  if (!a.gateway.empty()) {
    const auto gateway = GatewayClient::At(a.gateway, a.api_key);
    return gateway.ok() ? ChangeThroughGateway(a, *gateway) : Complain(gateway.error().message);
  }
  auto topology = LoadTopology(a.topology, a.set);
  if (!topology.ok()) return Complain(topology.errors().ToString());
  if (topology->nodes.empty() && topology->gateway) {
    const Address at = topology->gateway->admin.value_or(topology->gateway->listen);
    const auto gateway = GatewayClient::At(at.ToString(), a.api_key);
    return gateway.ok() ? ChangeThroughGateway(a, *gateway) : Complain(gateway.error().message);
  }
  const auto cluster = RunningNodes::Of(std::move(topology).value());
  return cluster.ok() ? ChangeThroughNodes(a, *cluster) : Complain(cluster.error().message);
}

}  // namespace

void AddInstancesCommand(CLI::App& app, int& exit_code) {
  CLI::App* c = app.add_subcommand("instances", "Membership of a running system");
  c->require_subcommand(1);
  c->footer("Example: foretoken instances drain --topology configs/topologies/cluster.yaml h100-3");
  struct Verb {
    const char *name, *help, *example;
  };
  for (const Verb& verb :
       {Verb{"add", "Joins: trusted bit by bit as its predictions come true",
             "--gateway http://127.0.0.1:30000 http://127.0.0.1:8003"},
        Verb{"remove", "Takes nothing new, and is gone when what it has is done",
             "--gateway http://127.0.0.1:30000 http://127.0.0.1:8003 --wait 60"},
        Verb{"cordon", "Goes on with what it has; takes nothing new", "--topology configs/topologies/cluster.yaml h100-3"},
        Verb{"uncordon", "Takes requests again", "--topology configs/topologies/cluster.yaml h100-3"},
        Verb{"drain", "As cordon: to be left out when it is empty", "--topology configs/topologies/cluster.yaml h100-3"}}) {
    auto a = std::make_shared<Arguments>();
    a->verb = verb.name;
    CLI::App* v = c->add_subcommand(verb.name, verb.help);
    v->add_option("--topology", a->topology, "Topology file: its nodes are asked, or else its gateway")
        ->check(CLI::ExistingFile);
    v->add_option("--set", a->set, "Override a topology value: path=value");
    v->add_option("--gateway", a->gateway, "Admin address of a gateway: http://ADDRESS:PORT");
    v->add_option("--api-key", a->api_key, "Of the gateway, where it asks for one");
    CLI::Option* names = v->add_option("instances", a->names, "Names, or URLs of a gateway's workers");
    if (a->verb == "add") {
      v->add_option("--kind", a->kind, "An engine or instance of the topology that the new emulated one is to be like");
      v->add_option("--node", a->node, "Of a cluster: the node that runs it; else the one that runs the fewest");
      v->add_option("--simulator", a->simulator, "Of a cluster: the node of its SIMULATOR; else the same");
    } else {
      names->required();
    }
    if (a->verb == "remove" || a->verb == "drain")
      v->add_option("--wait", a->wait, "Seconds to wait for what is under way there")->check(CLI::PositiveNumber);
    v->footer(std::string("Example: foretoken instances ") + verb.name + " " + verb.example);
    v->callback([a, &exit_code] { exit_code = Change(*a); });
  }
}

}  // namespace foretoken
