// Other gateways and routers to compare with, as they are started in front of given engines. Only those that are installed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "integration/load/child_process.h"
#include "integration/load/load_client.h"
#include "runtime/base/result.h"

namespace foretoken {

struct RunningPeer {
  std::string name;
  std::string policy;
  std::unique_ptr<ChildProcess> process;
  LoadTarget target;
};

// nginx, haproxy, vllm-router, smg.
std::vector<std::string> PeerNames();

// Starts it and waits until it serves `model`. `folder`: for its configuration and logs. Error: not installed, or why it does not run.
Result<RunningPeer> StartPeer(const std::string& name, const std::vector<LoadTarget>& engines, const std::string& model,
                              const std::string& folder);

}  // namespace foretoken
