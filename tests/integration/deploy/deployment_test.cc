#include "integration/deploy/deployment.h"

#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <cstdio>
#include <map>
#include <set>

namespace foretoken {
namespace {

NodeSpec Node(const std::string& name, const std::string& host, uint16_t port, bool front) {
  NodeSpec n;
  n.name = name;
  n.listen = {host, port};
  n.scheduler = n.gateway = front;
  return n;
}

Topology Cluster() {
  Topology t;
  t.file = "deploy/topology.yaml";
  t.nodes = {Node("router-0", "router-0.router", 7400, true), Node("gpu-0", "gpu-0.gpu", 7401, false),
             Node("gpu-1", "gpu-1.gpu", 7401, false), Node("gpu-2", "gpu-2.gpu", 7401, false)};
  t.gateway = GatewaySpec{};
  t.gateway->listen = {"0.0.0.0", 8000};
  t.tls = TlsSpec{"deploy/certs/node.pem", "deploy/certs/node.key", "deploy/certs/ca.pem"};
  return t;
}

std::vector<YAML::Node> Manifests(const Topology& t) {
  const auto files = KubernetesManifests(t, {.image = "foretoken:test", .topology_text = "version: 1\nseed: 7\n"});
  EXPECT_TRUE(files.ok()) << (files.ok() ? "" : files.error().message);
  return files.ok() ? YAML::LoadAll(files->front().text) : std::vector<YAML::Node>{};
}

std::vector<YAML::Node> OfKind(const std::vector<YAML::Node>& all, const std::string& kind) {
  std::vector<YAML::Node> found;
  for (const YAML::Node& m : all)
    if (m["kind"].as<std::string>() == kind) found.push_back(m);
  return found;
}

std::string Refused(const Topology& t) {
  const auto files = KubernetesManifests(t, {});
  return files.ok() ? "" : files.error().message;
}

TEST(DeploymentTest, PodsOfTheStatefulSetsAreExactlyTheNodesOfTheTopologyAtTheirAddresses) {
  const Topology t = Cluster();
  std::map<std::string, std::string> pods;  // name -> host:port
  for (const YAML::Node& set : OfKind(Manifests(t), "StatefulSet")) {
    const auto name = set["metadata"]["name"].as<std::string>();
    const YAML::Node container = set["spec"]["template"]["spec"]["containers"][0];
    for (int k = 0; k < set["spec"]["replicas"].as<int>(); ++k) {
      const std::string pod = name + "-" + std::to_string(k);
      pods[pod] = pod + "." + set["spec"]["serviceName"].as<std::string>() + ":" +
                  container["ports"][0]["containerPort"].as<std::string>();
    }
    const auto args = container["args"].as<std::vector<std::string>>();
    EXPECT_EQ(args.back(), "$(POD_NAME)");  // a pod is the node of its name
  }
  std::map<std::string, std::string> nodes;
  for (const NodeSpec& n : t.nodes) nodes[n.name] = n.listen.ToString();
  EXPECT_EQ(pods, nodes);
}

TEST(DeploymentTest, EveryRoleHasProbesAServiceAndADisruptionBudget) {
  const auto all = Manifests(Cluster());
  std::set<std::string> sets, budgets, services;
  for (const YAML::Node& set : OfKind(all, "StatefulSet")) {
    sets.insert(set["metadata"]["name"].as<std::string>());
    const YAML::Node container = set["spec"]["template"]["spec"]["containers"][0];
    for (const char* probe : {"startupProbe", "readinessProbe", "livenessProbe"}) EXPECT_TRUE(container[probe]) << probe;
    EXPECT_GT(set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as<int>(), 30);  // outlasts the drain
    EXPECT_EQ(container["volumeMounts"][1]["mountPath"].as<std::string>(), "/etc/foretoken/certs");
  }
  for (const YAML::Node& b : OfKind(all, "PodDisruptionBudget")) budgets.insert(b["metadata"]["name"].as<std::string>());
  for (const YAML::Node& s : OfKind(all, "Service")) services.insert(s["metadata"]["name"].as<std::string>());
  EXPECT_EQ(sets, (std::set<std::string>{"router", "gpu"}));
  EXPECT_EQ(budgets, sets);
  EXPECT_EQ(services, (std::set<std::string>{"router", "gpu", "router-gateway"}));
}

TEST(DeploymentTest, OnlyTheGatewayIsProbedByItsOwnWordAndOthersByTheirPort) {
  for (const YAML::Node& set : OfKind(Manifests(Cluster()), "StatefulSet")) {
    const YAML::Node probe = set["spec"]["template"]["spec"]["containers"][0]["readinessProbe"];
    const bool gateway = set["metadata"]["name"].as<std::string>() == "router";
    EXPECT_EQ(static_cast<bool>(probe["httpGet"]), gateway);
    EXPECT_EQ((gateway ? probe["httpGet"] : probe["tcpSocket"])["port"].as<int>(), gateway ? 8000 : 7401);
  }
}

TEST(DeploymentTest, TheTopologyTravelsUnchanged) {
  const auto maps = OfKind(Manifests(Cluster()), "ConfigMap");
  ASSERT_EQ(maps.size(), 1U);
  EXPECT_EQ(maps[0]["data"]["topology.yaml"].as<std::string>(), "version: 1\nseed: 7\n");
}

TEST(DeploymentTest, WhatNoStatefulSetCanGiveIsRefusedWithAWayOut) {
  Topology t = Cluster();
  t.nodes[2].name = "gpu-b";
  EXPECT_NE(Refused(t).find("NAME-0, NAME-1"), std::string::npos);
  t = Cluster();
  t.nodes[2].name = "gpu-5";
  EXPECT_NE(Refused(t).find("expected gpu-1"), std::string::npos);
  t = Cluster();
  t.nodes[1].listen.host = "127.0.0.1";
  EXPECT_NE(Refused(t).find("gpu-0.gpu"), std::string::npos);
  t = Cluster();
  t.nodes[3].scheduler = true;
  EXPECT_NE(Refused(t).find("differ in what they host"), std::string::npos);
  t = Cluster();
  t.nodes[3].listen.port = 1;
  EXPECT_NE(Refused(t).find("different ports"), std::string::npos);
  t = Cluster();
  t.gateway->listen.host = "127.0.0.1";
  EXPECT_NE(Refused(t).find("0.0.0.0"), std::string::npos);
  t = Cluster();
  t.tls->ca = "/etc/ssl/ca.pem";
  EXPECT_NE(Refused(t).find("together"), std::string::npos);
}

TEST(DeploymentTest, SystemdStartsEveryNodeOnceAndStopsNoneBeforeItsDrainIsOver) {
  const auto files = SystemdUnits(Cluster());
  ASSERT_EQ(files.size(), 2U);
  EXPECT_EQ(files[0].name, "foretoken@.service");
  EXPECT_NE(files[0].text.find("--node %i\n"), std::string::npos);
  EXPECT_NE(files[0].text.find("TimeoutStopSec=45s\n"), std::string::npos);
  EXPECT_EQ(files[1].name, "foretoken.target");
  for (const NodeSpec& n : Cluster().nodes) {
    const std::string want = "Wants=foretoken@" + n.name + ".service\n";
    const size_t at = files[1].text.find(want);
    EXPECT_NE(at, std::string::npos) << n.name;
    EXPECT_EQ(files[1].text.find(want, at + 1), std::string::npos);
  }
}

TEST(DeploymentTest, ATopologyWithoutNodesIsOneProcess) {
  Topology t;
  const auto units = SystemdUnits(t);
  ASSERT_EQ(units.size(), 1U);
  EXPECT_EQ(units[0].text.find("--node"), std::string::npos);
  const auto sets = OfKind(Manifests(t), "StatefulSet");
  ASSERT_EQ(sets.size(), 1U);
  EXPECT_EQ(sets[0]["spec"]["replicas"].as<int>(), 1);
}

}  // namespace
}  // namespace foretoken
