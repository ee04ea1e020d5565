#include "integration/cli/dashboard_option.h"

#include <filesystem>
#include <utility>

namespace foretoken {
namespace {

constexpr uint16_t kDefaultPort = 30080;

}  // namespace

Result<std::unique_ptr<Dashboard>> StartDashboard(const std::string& given, std::vector<DashboardSource> sources) {
  Dashboard::Options o;
  o.sources = std::move(sources);
  if (given.empty()) {
    o.web.port = kDefaultPort;
    o.web.any_port = true;
  } else {
    const auto address = ParseDashboardAddress(given);
    if (!address.ok()) return address.error();
    if (!address->has_value()) return std::unique_ptr<Dashboard>();
    o.web = **address;
  }
  return Dashboard::Start(std::move(o));
}

SystemFacts FactsOf(const Topology& topology, const std::string& host, const std::string& name) {
  SystemFacts f;
  f.host = host;
  f.name = name.empty() ? std::filesystem::path(topology.file).stem().string() : name;
  f.policy = topology.scheduler.policy;
  f.predictor = NameOf(topology.predictor.kind);
  f.sync_level = NameOf(topology.sync.level);
  f.slo = topology.slo;
  return f;
}

std::vector<std::string> EngineKindsOf(const Topology& topology) {
  std::vector<std::string> kinds;
  for (const InstanceSpec& s : topology.instances) kinds.push_back(topology.engines[s.engine].name);
  return kinds;
}

}  // namespace foretoken
