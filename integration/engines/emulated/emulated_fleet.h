// EmulatedFleet: emulated engines as OpenAI servers on addresses of their own, all on one thread of this process.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "integration/engines/emulated/emulated_server.h"
#include "integration/http/event_loop.h"
#include "runtime/base/result.h"

namespace foretoken {

class EmulatedFleet {
 public:
  // Serves at once. `first_port` 0: the kernel chooses each port; else they are consecutive.
  static Result<std::unique_ptr<EmulatedFleet>> Start(std::vector<EmulatedServerOptions> engines, const std::string& host,
                                                      uint16_t first_port);
  ~EmulatedFleet();  // cuts what is under way

  const std::vector<std::string>& urls() const { return urls_; }  // in the order of the engines

 private:
  EmulatedFleet() = default;

  std::unique_ptr<EventLoop> loop_;
  std::vector<std::unique_ptr<EmulatedServer>> servers_;
  std::vector<std::string> urls_;
  std::thread thread_;
};

}  // namespace foretoken
