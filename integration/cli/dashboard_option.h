// What commands that run a system have in common for whoever watches it: the option --dashboard, and the page behind it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "configs/topology.h"
#include "integration/dashboard/dashboard.h"
#include "integration/observe/observation.h"
#include "runtime/base/result.h"

namespace foretoken {

inline constexpr const char* kDashboardHelp =
    "Where the dashboard listens: HOST:PORT, a port (on 127.0.0.1), or none (default: 127.0.0.1:30080, or any port when that "
    "is taken)";

// `given`: the option's text; empty: the default. Null: none is wanted. Error: a bad address, or one that is taken.
// `host`: of the default; empty: loopback.
Result<std::unique_ptr<Dashboard>> StartDashboard(const std::string& given, std::vector<DashboardSource> sources,
                                                  const std::string& host = {});

// "host": how it runs, as in Observation.
SystemFacts FactsOf(const Topology& topology, const std::string& host, const std::string& name);
std::vector<std::string> EngineKindsOf(const Topology& topology);  // by InstanceId
std::vector<std::string> FirstModelsOf(const Topology& topology);  // by InstanceId; empty: it serves none

}  // namespace foretoken
