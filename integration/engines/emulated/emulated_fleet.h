// EmulatedFleet: emulated engines as OpenAI servers on addresses of their own, all on one thread of this process.
#pragma once

#include <map>
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

  const std::vector<std::string>& urls() const { return urls_; }  // of those that it began with, in their order
  // One more, on a port of the kernel's choice. Its URL. Any thread but the fleet's own.
  Result<std::string> Add(EmulatedServerOptions engine);
  // Ends it; what is under way there is cut. Nothing happens if there is none.
  void Remove(const std::string& url);

 private:
  EmulatedFleet() = default;

  std::unique_ptr<EventLoop> loop_;
  std::map<std::string, std::unique_ptr<EmulatedServer>> servers_;  // by URL
  std::vector<std::string> urls_;
  std::string host_;
  std::thread thread_;
};

}  // namespace foretoken
