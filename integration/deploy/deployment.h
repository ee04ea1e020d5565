// Deployment files made from a topology, so that what is deployed is what the topology says: systemd units for hosts, Kubernetes
// manifests for a cluster. One process per node of the topology; a topology without nodes is one process.
// Guarantee: every node is started exactly once, under its own name, on its own ports. Nothing is read or written here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/topology.h"
#include "runtime/base/result.h"

namespace foretoken {

struct DeployFile {
  std::string name;  // of the file, without a folder
  std::string text;
};

// foretoken.service, or foretoken@.service (an instance per node) and foretoken.target that starts this topology's nodes.
std::vector<DeployFile> SystemdUnits(const Topology& topology);

struct KubernetesOptions {
  std::string image = "foretoken:latest";
  std::string topology_text;  // the topology's file, as it is: goes into a ConfigMap
  Duration drain = Duration::Seconds(30);
};

// One file: a ConfigMap with the topology; per role (nodes NAME-0, NAME-1, ... of the same duties) a StatefulSet with probes, a
// headless Service that gives each node its address, and a PodDisruptionBudget; a Service in front of the gateways.
// Error: node names that no StatefulSet can give, or addresses that other pods could not reach.
Result<std::vector<DeployFile>> KubernetesManifests(const Topology& topology, const KubernetesOptions& options);

}  // namespace foretoken
