// GatewayServer: a gateway in this process, on a thread of its own. The one header that users of the gateway include.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "integration/gateway/gateway_config.h"
#include "runtime/base/result.h"

namespace foretoken {

class GatewayServer {
 public:
  explicit GatewayServer(GatewayConfig config);
  ~GatewayServer();  // stops without draining
  GatewayServer(const GatewayServer&) = delete;
  GatewayServer& operator=(const GatewayServer&) = delete;

  // Listens, asks the engines what they serve (waits at most a second for their answers), and begins to serve. Error: an address
  // in use, an unknown policy, a malformed URL, an unreadable certificate.
  Status Start();
  // Refuses new requests, lets those under way finish for at most the drain timeout, and ends. True: all had ended.
  bool Stop();
  // What the shadow policy's decisions would have changed, as text for people; empty without one. After Stop.
  std::string ShadowReport() const;

  uint16_t port() const;
  uint16_t prometheus_port() const;  // 0: none
  uint16_t admin_port() const;
  uint16_t sync_port() const;  // where sync streams come in over TCP; 0: nowhere       // 0: none

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace foretoken
