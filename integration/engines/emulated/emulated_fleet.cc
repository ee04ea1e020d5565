#include "integration/engines/emulated/emulated_fleet.h"

#include <utility>

namespace foretoken {

Result<std::unique_ptr<EmulatedFleet>> EmulatedFleet::Start(std::vector<EmulatedServerOptions> engines, const std::string& host,
                                                            uint16_t first_port) {
  std::unique_ptr<EmulatedFleet> fleet(new EmulatedFleet);
  auto loop = EventLoop::Make();
  if (!loop.ok()) return loop.error();
  fleet->loop_ = std::move(loop).value();
  for (EmulatedServerOptions& e : engines) {
    const std::string name = e.name;
    auto server = EmulatedServer::Make(*fleet->loop_, std::move(e));
    if (!server.ok()) return Error{name + ": " + server.error().message};
    const uint16_t port = first_port == 0 ? uint16_t{0} : static_cast<uint16_t>(first_port + fleet->urls_.size());
    const auto bound = (*server)->Listen(host, port);
    if (!bound.ok()) return Error{name + ": " + bound.error().message};
    fleet->servers_.push_back(std::move(server).value());
    fleet->urls_.push_back("http://" + host + ":" + std::to_string(*bound));
  }
  fleet->thread_ = std::thread([loop = fleet->loop_.get()] { loop->Run(); });
  return fleet;
}

EmulatedFleet::~EmulatedFleet() {
  if (thread_.joinable()) {
    loop_->Stop();
    thread_.join();
  }
  servers_.clear();  // their connections are watched by the loop
}

}  // namespace foretoken
