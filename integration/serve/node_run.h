// NodeRun: one node of a cluster in this process, on the real clock: what the topology says that it hosts - INSTANCEs over emulated
// engines, SIMULATORs, SCHEDULERs - and the NODE actor that joins it to the others. A built-in load, when given, is submitted to the
// SCHEDULERs here.
#pragma once

#include <functional>
#include <string>

#include "configs/topology.h"
#include "integration/serve/live_run.h"
#include "integration/transport/node.h"
#include "runtime/base/result.h"

namespace foretoken {

// Ids of a cluster's requests are unique: the node's place in the topology is in front.
inline constexpr int kNodeIdShift = 40;

struct NodeRunOptions {
  const Topology* topology = nullptr;
  std::string node;
  LiveOptions live;                                      // its load, if any, needs a SCHEDULER here
  Duration ready_within = Duration::Seconds(10);         // how long the load waits for the other nodes
  std::function<void(const std::string&)> log;           // called in actors
  std::function<void(const std::string& url)> fronting;  // the gateway serves there; may be empty
};

struct NodeRunResult {
  LiveResult live;
  NodeStatus node;  // at the end
};

// Blocks, as RunLive. Error: what cannot be run, or listened on.
Result<NodeRunResult> RunNode(const NodeRunOptions& options);

// Where the topology puts each instance, and what its configuration is known by. The topology has nodes.
std::vector<InstancePlace> PlacesOf(const Topology& topology);
// One SCHEDULER in all: nobody else reserves at the SIMULATORs.
bool SoleScheduler(const Topology& topology);
std::vector<NodeAddress> NodeAddressesOf(const Topology& topology);

}  // namespace foretoken
