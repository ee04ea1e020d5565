#include "integration/cli/dashboard_option.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "integration/metrics/observation_metrics.h"

namespace foretoken {
namespace {

constexpr uint16_t kDefaultPort = 30080;

// What is watched is scraped as well: /metrics at the page's address, of the source that `?source=NAME` names, or the first.
WebAnswer Metrics(const std::vector<DashboardSource>& sources, const WebRequest& request, const WebCounters& web) {
  const auto source = std::find_if(sources.begin(), sources.end(), [&](const DashboardSource& s) {
    return request.query.empty() || request.query == "source=" + s.name;
  });
  if (source != sources.end() && source->remote) {
    const char* why = "the nodes have their own: scrape each of them\n";
    return {404, "text/plain; charset=utf-8", std::make_shared<const std::string>(why), false, {}};
  }
  const auto latest = source == sources.end() ? nullptr : source->board->Latest();
  if (latest == nullptr) {
    const char* why = source == sources.end() ? "no such source: /sources.json lists them\n" : "nothing was observed yet\n";
    return {
        source == sources.end() ? 404 : 503, "text/plain; charset=utf-8", std::make_shared<const std::string>(why), false, {}};
  }
  MetricSet set;
  AddTotals(*latest, set);
  AddObservation(*latest, set);
  set.Gauge("foretoken:dashboard_pages", "Pages that are open.", static_cast<double>(web.pages));
  set.Counter("foretoken:dashboard_requests_total", "Requests at the dashboard's address.", web.requests);
  set.Counter("foretoken:dashboard_refused_total", "Of these, malformed, too large, too slow or beyond a limit.", web.refused);
  set.Counter("foretoken:dashboard_frames_skipped_total", "Frames that a page was too slow for.", web.frames_skipped);
  set.Counter("foretoken:dashboard_pages_stalled_total", "Pages closed for taking nothing.", web.pages_stalled);
  return {200, kMetricsContentType, std::make_shared<const std::string>(set.Text()), false, {}};
}

}  // namespace

Result<std::unique_ptr<Dashboard>> StartDashboard(const std::string& given, std::vector<DashboardSource> sources,
                                                  const std::string& host) {
  Dashboard::Options o;
  o.sources = std::move(sources);
  if (given.empty()) {
    if (!host.empty()) o.web.host = host;
    o.web.port = kDefaultPort;
    o.web.any_port = true;
  } else {
    const auto address = ParseDashboardAddress(given);
    if (!address.ok()) return address.error();
    if (!address->has_value()) return std::unique_ptr<Dashboard>();
    o.web = **address;
  }
  o.routes["/metrics"] = [sources = o.sources](const WebRequest& r, const WebCounters& c) { return Metrics(sources, r, c); };
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

std::vector<std::string> FirstModelsOf(const Topology& topology) {
  std::vector<std::string> models;
  for (const InstanceSpec& s : topology.instances)
    models.push_back(s.instance.models.empty() ? "" : topology.models[s.instance.models.front().value()]);
  return models;
}

}  // namespace foretoken
