// A running system, as commands reach it: the nodes that a topology names, and the dashboard of a process.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "configs/topology.h"
#include "integration/transport/control_client.h"
#include "runtime/base/result.h"

namespace foretoken {

// One connection per question: commands are rare.
class RunningNodes {
 public:
  // Error: the topology's errors, or that it has no nodes.
  static Result<RunningNodes> Of(const std::string& topology, const std::vector<std::string>& set);
  static Result<RunningNodes> Of(Topology topology);
  const std::vector<NodeSpec>& nodes() const { return topology_.nodes; }
  Result<ControlReply> Ask(const NodeSpec& node, const std::string& verb, std::vector<std::string> arguments) const;
  // Of the first node that answers: any passes on what concerns others. Error: none does.
  Result<ControlReply> AskAny(const std::string& verb, const std::vector<std::string>& arguments) const;

 private:
  Topology topology_;
  std::shared_ptr<const TlsContext> tls_;
};

// The JSON text of its latest observation. `dashboard`: "http://127.0.0.1:30080/", "127.0.0.1:30080" or "30080".
Result<std::string> FetchStatus(const std::string& dashboard);

}  // namespace foretoken
