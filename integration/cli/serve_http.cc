#include "integration/cli/serve_http.h"

#include <chrono>
#include <iostream>
#include <thread>

#include "integration/cli/commands.h"
#include "integration/cli/dashboard_option.h"
#include "integration/log/log.h"
#include "integration/serve/http_front.h"

namespace foretoken {

int ServeHttp(const Topology& topology, const ServeHttpOptions& options) {
  HttpFrontOptions front_options;
  front_options.topology = &topology;
  front_options.gateway = options.gateway;
  front_options.any_port = options.any_port;
  front_options.first_port = options.first_port;
  front_options.log = options.log;
  if (options.gateway && options.dashboard != "none") front_options.board = std::make_shared<ObservationBoard>();
  auto front = HttpFront::Start(front_options);
  if (!front.ok()) {
    options.log->Write(LogLevel::kError, "usage", front.error().message);
    return kExitUsage;
  }
  std::unique_ptr<Dashboard> dashboard;
  if (front_options.board) {
    // Beside the admin address, where the topology names one: what is for operators is in one place.
    const std::string host = topology.gateway && topology.gateway->admin ? topology.gateway->admin->host : "";
    auto started = StartDashboard(options.dashboard, {{"gateway", "Gateway", front_options.board, nullptr}}, host);
    if (!started.ok()) {
      options.log->Write(LogLevel::kError, "usage", started.error().message);
      return kExitUsage;
    }
    dashboard = std::move(started).value();
  }
  for (const auto& [name, url] : (*front)->instances()) std::cout << "  " << name << " at " << url << "\n";
  if (options.gateway) std::cout << "foretoken gateway: listening on " << (*front)->gateway_url() << "\n";
  if (dashboard)
    options.log->Write(LogLevel::kInfo, "dashboard", "dashboard at " + dashboard->url(), {{"url", dashboard->url()}});
  std::cout << "Try:\n  " << (*front)->Curl() << "\nCtrl-C drains and ends." << std::endl;
  const auto begun = std::chrono::steady_clock::now();
  const auto over = [&] {
    return options.seconds > 0 && std::chrono::steady_clock::now() - begun >= std::chrono::duration<double>(options.seconds);
  };
  while (!options.stop_requested() && !over()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if ((*front)->Stop()) return kExitOk;
  options.log->Write(LogLevel::kError, "not_drained", "not all requests had ended when the time to drain was over");
  return kExitFailed;
}

}  // namespace foretoken
