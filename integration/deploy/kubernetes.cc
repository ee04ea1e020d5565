#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <utility>

#include "integration/deploy/deployment.h"

namespace foretoken {
namespace {

// Nodes NAME-0 ... NAME-(n-1) with the same duties: one StatefulSet.
struct Role {
  std::string name;
  bool scheduler = false;
  bool gateway = false;
  uint16_t port = 0;  // node to node; 0: one process, no other node
  int replicas = 0;
};

std::string Line(int indent, std::string_view text) {
  return std::string(static_cast<size_t>(indent), ' ') + std::string(text) + "\n";
}

bool IsLoopback(const std::string& host) { return host == "localhost" || host.starts_with("127.") || host == "[::1]"; }

// "gpu-12" -> "gpu", 12.
std::optional<std::pair<std::string, int>> Split(const std::string& name) {
  const size_t dash = name.rfind('-');
  if (dash == std::string::npos || dash == 0) return std::nullopt;
  const std::string digits = name.substr(dash + 1);
  int ordinal = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), ordinal);
  const bool canonical = error == std::errc() && end == digits.data() + digits.size() && std::to_string(ordinal) == digits;
  if (!canonical) return std::nullopt;
  return std::pair(name.substr(0, dash), ordinal);
}

// Where the Secret is mounted so that the topology's paths, which are relative to its own folder, hold in the pod too.
Result<std::string> TlsFolder(const Topology& t) {
  const std::filesystem::path folder = std::filesystem::path(t.tls->certificate).parent_path();
  for (const std::string& other : {t.tls->key, t.tls->ca})
    if (std::filesystem::path(other).parent_path() != folder)
      return Error{"tls: " + other + ": a Secret is one folder: keep certificate, key and ca together"};
  const std::string inside = folder.lexically_relative(std::filesystem::path(t.file).parent_path()).generic_string();
  if (inside.empty() || inside == "." || inside.starts_with(".."))
    return Error{"tls: " + folder.string() + ": keep the certificates in a folder of their own beside the topology's file"};
  return "/etc/foretoken/" + inside;
}

Status Join(const NodeSpec& node, std::vector<Role>& roles) {
  const auto parts = Split(node.name);
  if (!parts)
    return Error{"node " + node.name + ": a StatefulSet names its pods NAME-0, NAME-1, ...: rename it so (nodes: name)"};
  const auto& [name, ordinal] = *parts;
  if (IsLoopback(node.listen.host))
    return Error{"node " + node.name + ": other pods cannot reach " + node.listen.host + ": let it listen at " + node.name +
                 "." + name + " (its name and its Service's)"};
  auto role = std::find_if(roles.begin(), roles.end(), [&name = name](const Role& r) { return r.name == name; });
  if (role == roles.end()) {
    roles.push_back({name, node.scheduler, node.gateway, node.listen.port, 0});
    role = roles.end() - 1;
  }
  if (role->scheduler != node.scheduler || role->gateway != node.gateway)
    return Error{"node " + node.name + ": nodes " + name +
                 "-* differ in what they host (scheduler, gateway): give each duty a name"};
  if (role->port != node.listen.port)
    return Error{"node " + node.name + ": nodes " + name + "-* listen at different ports: a StatefulSet's pods are alike"};
  if (ordinal != role->replicas)
    return Error{"node " + node.name + ": expected " + name + "-" + std::to_string(role->replicas) +
                 " here: a StatefulSet counts its pods from 0 without gaps"};
  ++role->replicas;
  return Status();
}

Result<std::vector<Role>> RolesOf(const Topology& t) {
  std::vector<Role> roles;
  if (t.nodes.empty()) roles.push_back({"foretoken", true, t.gateway.has_value(), 0, 1});
  for (const NodeSpec& node : t.nodes) {
    const Status joined = Join(node, roles);
    if (!joined.ok()) return joined.error();
  }
  if (t.gateway && IsLoopback(t.gateway->listen.host))
    return Error{"gateway: nobody outside its pod can reach " + t.gateway->listen.host +
                 ": let it listen at 0.0.0.0 (gateway: listen)"};
  return roles;
}

std::string Head(std::string_view api, std::string_view kind, const std::string& name) {
  return "---\napiVersion: " + std::string(api) + "\nkind: " + std::string(kind) + "\nmetadata:\n  name: " + name +
         "\n  labels: { app.kubernetes.io/name: foretoken }\n";
}

std::string ConfigMap(const std::string& text) {
  std::string s = Head("v1", "ConfigMap", "foretoken-topology") + "data:\n  topology.yaml: |\n";
  for (size_t from = 0; from < text.size();) {
    const size_t end = std::min(text.find('\n', from), text.size());
    s += from == end ? "\n" : Line(4, text.substr(from, end - from));
    from = end + 1;
  }
  return s;
}

std::string Labels(const Role& role) {
  return "{ app.kubernetes.io/name: foretoken, app.kubernetes.io/component: " + role.name + " }";
}

// A gateway says itself whether it can serve. Of another node only its port tells from outside.
std::string Probes(const Topology& t, const Role& role) {
  if (!role.gateway && role.port == 0) return "";
  const std::string port = std::to_string(role.gateway ? t.gateway->listen.port : role.port);
  const auto how = [&](const char* path) {
    return role.gateway ? "httpGet: { path: " + std::string(path) + ", port: " + port + " }"
                        : "tcpSocket: { port: " + port + " }";
  };
  std::string s;
  s += Line(10, "startupProbe:") + Line(12, how("/liveness")) + Line(12, "periodSeconds: 1") + Line(12, "failureThreshold: 60");
  s += Line(10, "readinessProbe:") + Line(12, how("/readiness")) + Line(12, "periodSeconds: 1") +
       Line(12, "failureThreshold: 2");
  s += Line(10, "livenessProbe:") + Line(12, how("/liveness")) + Line(12, "periodSeconds: 5") + Line(12, "failureThreshold: 6");
  return s;
}

std::string Ports(const Topology& t, const Role& role) {
  std::string s;
  const auto port = [&s](const char* name, uint16_t number) {
    s += Line(12, "- { name: " + std::string(name) + ", containerPort: " + std::to_string(number) + " }");
  };
  if (role.port != 0) port("node", role.port);
  if (role.gateway) port("http", t.gateway->listen.port);
  if (role.gateway && t.gateway->admin) port("admin", t.gateway->admin->port);
  return s.empty() ? s : Line(10, "ports:") + s;
}

std::string StatefulSet(const Topology& t, const Role& role, const std::string& tls, const KubernetesOptions& o) {
  std::string s = Head("apps/v1", "StatefulSet", role.name);
  s += "spec:\n" + Line(2, "serviceName: " + role.name) + Line(2, "replicas: " + std::to_string(role.replicas));
  s += Line(2, "podManagementPolicy: Parallel") + Line(2, "selector: { matchLabels: " + Labels(role) + " }");
  s += Line(2, "template:") + Line(4, "metadata: { labels: " + Labels(role) + " }") + Line(4, "spec:");
  const auto grace = static_cast<int64_t>(o.drain.seconds()) + 15;
  s += Line(6, "terminationGracePeriodSeconds: " + std::to_string(grace));
  s += Line(6, "securityContext: { runAsNonRoot: true, runAsUser: 10001 }") + Line(6, "containers:");
  s += Line(8, "- name: foretoken") + Line(10, "image: " + o.image);
  std::string args = "args: [serve, --topology, /etc/foretoken/topology.yaml";
  if (!t.nodes.empty()) {
    args += ", --node, $(POD_NAME)";
    s += Line(10, "env:") + Line(12, "- name: POD_NAME");
    s += Line(14, "valueFrom: { fieldRef: { fieldPath: metadata.name } }");
  }
  s += Line(10, args + "]") + Ports(t, role) + Probes(t, role);
  s += Line(10, "volumeMounts:") +
       Line(12, "- { name: topology, mountPath: /etc/foretoken/topology.yaml, subPath: topology.yaml }");
  if (!tls.empty()) s += Line(12, "- { name: tls, mountPath: " + tls + ", readOnly: true }");
  s += Line(6, "volumes:") + Line(8, "- name: topology") + Line(10, "configMap: { name: foretoken-topology }");
  if (!tls.empty()) s += Line(8, "- name: tls") + Line(10, "secret: { secretName: foretoken-tls }");
  return s;
}

std::string HeadlessService(const Role& role) {
  std::string s = Head("v1", "Service", role.name) + "spec:\n" + Line(2, "clusterIP: None");
  s += Line(2, "publishNotReadyAddresses: true  # nodes find each other before the gateway is ready");
  s += Line(2, "selector: " + Labels(role));
  if (role.port != 0) s += Line(2, "ports:") + Line(4, "- { name: node, port: " + std::to_string(role.port) + " }");
  return s;
}

std::string DisruptionBudget(const Role& role) {
  return Head("policy/v1", "PodDisruptionBudget", role.name) + "spec:\n" + Line(2, "maxUnavailable: 1") +
         Line(2, "selector: { matchLabels: " + Labels(role) + " }");
}

std::string GatewayService(const Topology& t, const Role& role) {
  const std::string port = std::to_string(t.gateway->listen.port);
  return Head("v1", "Service", role.name + "-gateway") + "spec:\n" + Line(2, "selector: " + Labels(role)) + Line(2, "ports:") +
         Line(4, "- { name: http, port: 80, targetPort: " + port + " }");
}

}  // namespace

Result<std::vector<DeployFile>> KubernetesManifests(const Topology& topology, const KubernetesOptions& options) {
  const auto roles = RolesOf(topology);
  if (!roles.ok()) return roles.error();
  std::string tls;
  if (topology.tls) {
    auto folder = TlsFolder(topology);
    if (!folder.ok()) return folder.error();
    tls = std::move(folder).value();
  }
  std::string s = ConfigMap(options.topology_text);
  for (const Role& role : *roles) {
    s += HeadlessService(role) + StatefulSet(topology, role, tls, options) + DisruptionBudget(role);
    if (role.gateway && topology.gateway) s += GatewayService(topology, role);
  }
  return std::vector<DeployFile>{{"foretoken.yaml", std::move(s)}};
}

}  // namespace foretoken
