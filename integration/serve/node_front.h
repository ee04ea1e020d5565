// NodeFront: the HTTP gateway of a cluster of nodes, in the process of a node that hosts `gateway`. OpenAI requests become ScheduleCalls to the
// SCHEDULERs here, or through the NODE to those of others (FrontDesk), so that a lost SCHEDULER is made up for by another; every token
// of a stream is sent when it is told of.
//   client --HTTP--> gateway (limits, keys, queue, time-outs) --HTTP on loopback--> NodeFront --ScheduleCall--> SCHEDULER or NODE
//   client <--------------------------------------------------------------------- NodeFront <--DecisionNote, TokenEvent, RequestOutcome--
// The text of answers is filler, as that of all emulated engines.
#pragma once

#include <caf/actor.hpp>
#include <caf/fwd.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "actors/host_clock.h"
#include "configs/topology.h"
#include "runtime/base/result.h"

namespace foretoken {

class ObservationBoard;

struct NodeFrontOptions {
  const Topology* topology = nullptr;  // outlives it
  caf::actor node;
  std::vector<caf::actor> schedulers;       // here; empty: the NODE asks those elsewhere
  uint64_t first_request = 1;               // ids count from here; no other client's are among them
  std::shared_ptr<ObservationBoard> board;  // of the gateway; may be null
};

class NodeFront {
 public:
  // Serves when it returns. Error: an address in use, a file of keys that cannot be read.
  static Result<std::unique_ptr<NodeFront>> Start(caf::actor_system& system, const HostClock& clock, NodeFrontOptions options);
  ~NodeFront();

  const std::string& url() const;
  // Refuses new requests and lets those under way end, for a limited time. False: some had not ended.
  bool Stop();

 private:
  class Impl;
  explicit NodeFront(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace foretoken
