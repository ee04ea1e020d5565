// Dashboard: the page of a running system, and the addresses that scripts read (docs/dashboard.md). It has a thread of its own and reads
// boards only: however many pages are open, and whatever is sent to its port, the system that it shows is asked nothing by it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "integration/dashboard/observation_feed.h"
#include "integration/dashboard/web_server.h"
#include "runtime/base/result.h"

namespace foretoken {

class Dashboard {
 public:
  struct Options {
    WebServer::Options web;
    std::vector<DashboardSource> sources;  // the first is shown when none is asked for; not empty
    // More addresses, by path ("/metrics"); called on the dashboard's thread. Page counters are handed in.
    std::map<std::string, std::function<WebAnswer(const WebRequest&, const WebCounters&)>, std::less<>> routes;
  };

  // Serves when it returns. Error: as WebServer::Start.
  static Result<std::unique_ptr<Dashboard>> Start(Options options);
  ~Dashboard();

  std::string url() const;  // "http://127.0.0.1:30080/"

 private:
  class Impl;
  explicit Dashboard(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// "HOST:PORT", "PORT" (loopback) or "none" (absent). Error: what is wrong with it.
Result<std::optional<WebServer::Options>> ParseDashboardAddress(const std::string& text);

}  // namespace foretoken
