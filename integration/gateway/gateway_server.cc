#include "integration/gateway/gateway_server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdio>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "integration/gateway/client_session.h"
#include "integration/gateway/gateway.h"
#include "integration/gateway/worker_sources.h"

namespace foretoken {

namespace asio = boost::asio;
using boost::system::error_code;

class GatewayServer::Impl {
 public:
  explicit Impl(GatewayConfig config) : config(std::move(config)) {}

  struct Door {
    GatewayDoor kind;
    asio::ip::tcp::acceptor acceptor;
    asio::steady_timer pause;
  };

  Status Listen(GatewayDoor kind, uint16_t port) {
    error_code code;
    const std::string& host = kind == GatewayDoor::kAdmin && !config.admin_host.empty() ? config.admin_host : config.host;
    const auto address = asio::ip::make_address(host == "localhost" ? "127.0.0.1" : host, code);
    if (code) return Error{"--host " + host + ": must be an IP address"};
    const asio::ip::tcp::endpoint at(address, port);
    asio::ip::tcp::acceptor acceptor(io);
    acceptor.open(at.protocol(), code);
    if (!code) acceptor.set_option(asio::socket_base::reuse_address(true), code);
    if (!code) acceptor.bind(at, code);
    if (!code) acceptor.listen(4096, code);
    if (code) return Error{"cannot listen on " + host + ":" + std::to_string(port) + ": " + code.message()};
    doors.push_back(std::make_unique<Door>(Door{kind, std::move(acceptor), asio::steady_timer(io)}));
    return {};
  }

  void Accept(Door& door) {
    door.acceptor.async_accept([this, &door](const error_code& code, asio::ip::tcp::socket socket) {
      if (code == asio::error::operation_aborted || !door.acceptor.is_open()) return;
      if (code) {  // out of descriptors: those open must end first
        door.pause.expires_after(std::chrono::milliseconds(20));
        door.pause.async_wait([this, &door](const error_code& cancelled) {
          if (!cancelled) Accept(door);
        });
        return;
      }
      if (gateway->open_connections() >= config.max_connections) {
        ++gateway->counters().connections_refused;
      } else {
        std::make_shared<ClientSession>(*gateway, std::move(socket), door.kind)->Start();
      }
      Accept(door);
    });
  }

  void ArmSweep() {
    sweep.expires_after(std::chrono::milliseconds(20));
    sweep.async_wait([this](const error_code& code) {
      if (code) return;
      gateway->Sweep();
      if (draining && (gateway->open_connections() == 0 || gateway->Now() >= drain_until)) {
        drained = gateway->open_connections() == 0;
        gateway->AbortAll();
        io.stop();
        return;
      }
      ArmSweep();
    });
  }

  void BeginDrain(Duration at_most) {
    draining = true;
    if (sources != nullptr) sources->Stop();
    drain_until = gateway->Now() + at_most;
    error_code ignored;
    for (const auto& door : doors) door->acceptor.close(ignored);
    gateway->BeginDrain();
  }

  uint16_t PortOf(GatewayDoor kind) const {
    for (const auto& [k, port] : ports)
      if (k == kind) return port;
    return 0;
  }

  GatewayConfig config;
  asio::io_context io{1};
  std::unique_ptr<Gateway> gateway;
  std::unique_ptr<WorkerSources> sources;
  std::vector<std::unique_ptr<Door>> doors;
  std::vector<std::pair<GatewayDoor, uint16_t>> ports;
  asio::steady_timer sweep{io};
  std::thread thread;
  bool draining = false, drained = false;
  Instant drain_until;
};

GatewayServer::GatewayServer(GatewayConfig config) : impl_(std::make_unique<Impl>(std::move(config))) {}

GatewayServer::~GatewayServer() {
  if (!impl_->thread.joinable()) return;
  asio::post(impl_->io, [impl = impl_.get()] { impl->BeginDrain(Duration()); });
  impl_->thread.join();
}

Status GatewayServer::Start() {
  auto gateway = Gateway::Make(impl_->io, impl_->config);
  if (!gateway.ok()) return gateway.error();
  impl_->gateway = std::move(gateway).value();
  std::vector<std::pair<GatewayDoor, uint16_t>> wanted = {{GatewayDoor::kPublic, impl_->config.port}};
  if (impl_->config.prometheus_port != 0) wanted.emplace_back(GatewayDoor::kMetrics, impl_->config.prometheus_port);
  if (impl_->config.admin_port != 0) wanted.emplace_back(GatewayDoor::kAdmin, impl_->config.admin_port);
  for (const auto& [kind, port] : wanted) {
    if (const Status listens = impl_->Listen(kind, port); !listens.ok()) return listens;
    impl_->ports.emplace_back(kind, impl_->doors.back()->acceptor.local_endpoint().port());
  }
  impl_->sources = std::make_unique<WorkerSources>(impl_->io, *impl_->gateway);
  if (const Status found = impl_->sources->Start(); !found.ok()) return found;
  // The first look at the engines, before anybody is let in.
  const Instant until = impl_->gateway->Now() + Duration::Seconds(1);
  while (!impl_->gateway->AllAsked() && impl_->gateway->Now() < until) {
    impl_->gateway->Sweep();
    impl_->io.run_one_for(std::chrono::milliseconds(10));
  }
  for (const auto& door : impl_->doors) impl_->Accept(*door);
  impl_->ArmSweep();
  impl_->thread = std::thread([impl = impl_.get()] { impl->io.run(); });
  return {};
}

bool GatewayServer::Stop() {
  if (!impl_->thread.joinable()) return true;
  asio::post(impl_->io, [impl = impl_.get()] { impl->BeginDrain(impl->config.drain_timeout); });
  impl_->thread.join();
  return impl_->drained;
}

std::string GatewayServer::ShadowReport() const {
  if (impl_->gateway == nullptr || impl_->gateway->routing().shadow() == nullptr) return "";
  const ShadowStatistics::Report r = impl_->gateway->routing().shadow()->report();
  const GatewayCounters& c = impl_->gateway->counters();
  const double n = c.judged == 0 ? 1 : static_cast<double>(c.judged);
  char text[600];
  std::snprintf(text, sizeof text,
                "shadow %s beside %s: %llu decisions, %.1f %% of them otherwise; expected gain %.1f ms of E2E (95 %% interval "
                "%.1f ... %.1f)"
                " of a predicted %.1f ms; prediction error of %llu requests: TTFT %.1f %%, E2E %.1f %% (mean absolute)",
                impl_->config.shadow.c_str(), impl_->config.policy.c_str(), static_cast<unsigned long long>(r.decisions),
                100 * r.differ_share, 1e3 * r.gain_s, 1e3 * r.gain_low_s, 1e3 * r.gain_high_s, 1e3 * r.mean_e2e_s,
                static_cast<unsigned long long>(c.judged), 100 * c.ttft_ape / n, 100 * c.e2e_ape / n);
  return text;
}

uint16_t GatewayServer::port() const { return impl_->PortOf(GatewayDoor::kPublic); }
uint16_t GatewayServer::prometheus_port() const { return impl_->PortOf(GatewayDoor::kMetrics); }
uint16_t GatewayServer::sync_port() const {
  const SyncListener* sync = impl_->gateway == nullptr ? nullptr : impl_->gateway->sync();
  return sync == nullptr ? 0 : sync->port();
}
uint16_t GatewayServer::admin_port() const { return impl_->PortOf(GatewayDoor::kAdmin); }

}  // namespace foretoken
