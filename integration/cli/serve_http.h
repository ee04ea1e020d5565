// The part of `serve` and `quickstart` that serves over HTTP: starts the front, says where it is, and waits.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "configs/topology.h"

namespace foretoken {

class Log;

struct ServeHttpOptions {
  bool gateway = false;      // also the gateway, not only the instances
  bool any_port = false;     // of the gateway, when its own is taken
  uint16_t first_port = 0;   // of the instances; 0: the kernel chooses
  std::string dashboard;     // of the gateway: as the option --dashboard
  std::shared_ptr<Log> log;  // never null
  double seconds = 0;        // serve so long; 0: until told to stop
  std::function<bool()> stop_requested;
};

// Blocks; addresses go to standard output. Returns the exit code.
int ServeHttp(const Topology& topology, const ServeHttpOptions& options);

}  // namespace foretoken
