#include "integration/engines/emulated/emulated_fleet.h"

#include <future>
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
    fleet->urls_.push_back("http://" + host + ":" + std::to_string(*bound));
    fleet->servers_.emplace(fleet->urls_.back(), std::move(server).value());
  }
  fleet->host_ = host;
  fleet->thread_ = std::thread([loop = fleet->loop_.get()] { loop->Run(); });
  return fleet;
}

Result<std::string> EmulatedFleet::Add(EmulatedServerOptions engine) {
  std::promise<Result<std::string>> done;
  std::future<Result<std::string>> url = done.get_future();
  loop_->Post([this, &engine, &done] {
    auto server = EmulatedServer::Make(*loop_, std::move(engine));
    if (!server.ok()) return done.set_value(server.error());
    const auto bound = (*server)->Listen(host_, 0);
    if (!bound.ok()) return done.set_value(bound.error());
    const std::string name = "http://" + host_ + ":" + std::to_string(*bound);
    servers_.emplace(name, std::move(server).value());
    done.set_value(name);
  });
  return url.get();
}

void EmulatedFleet::Remove(const std::string& url) {
  loop_->Post([this, url] { servers_.erase(url); });
}

EmulatedFleet::~EmulatedFleet() {
  if (thread_.joinable()) {
    loop_->Stop();
    thread_.join();
  }
  servers_.clear();  // their connections are watched by the loop
}

}  // namespace foretoken
