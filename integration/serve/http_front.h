// HttpFront: the HTTP side of a live system. Emulated instances of a topology become OpenAI servers on addresses of their own; the gateway,
// when asked for, stands in front of them and of the topology's real engines. Any OpenAI client, load generator or other router can be
// pointed at either. The engines here are HTTP's own: the built-in load of `serve` runs over others.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "configs/topology.h"
#include "runtime/base/result.h"

namespace foretoken {

class EmulatedFleet;
class ObservationBoard;
class GatewayServer;
class Log;
struct GatewayConfig;

struct HttpFrontOptions {
  const Topology* topology = nullptr;       // for the call only
  bool gateway = false;                     // with the topology's settings, or the defaults where it has none
  std::string host = "127.0.0.1";           // of the emulated engines
  uint16_t first_port = 0;                  // of the emulated engines; 0: the kernel chooses
  bool any_port = false;                    // of the gateway, when its own is taken
  std::shared_ptr<ObservationBoard> board;  // of the gateway; may be null
  std::shared_ptr<Log> log;                 // of the gateway; may be null
};

// The gateway that a topology asks for, in front of these: name and URL. Error: a file of keys that cannot be read.
Result<GatewayConfig> GatewayConfigOf(const Topology& topology,
                                      const std::vector<std::pair<std::string, std::string>>& instances);

class HttpFront {
 public:
  // Serves when it returns. Error: an address in use, an engine that cannot be emulated, a file of keys that cannot be read.
  static Result<std::unique_ptr<HttpFront>> Start(const HttpFrontOptions& options);
  ~HttpFront();

  // Name and URL of every instance, in the topology's order.
  const std::vector<std::pair<std::string, std::string>>& instances() const { return instances_; }
  const std::string& gateway_url() const { return gateway_url_; }  // empty: none
  // A command line that asks for a stream, from the gateway or else the first instance.
  std::string Curl() const;
  // Refuses new requests and lets those under way end, for a limited time. False: some had not ended.
  bool Stop();

 private:
  HttpFront();
  void MakeWorkersOf(const Topology& topology, GatewayConfig& config);

  std::vector<std::pair<std::string, std::string>> instances_;
  std::string gateway_url_;
  std::string model_;
  std::unique_ptr<EmulatedFleet> fleet_;
  std::unique_ptr<GatewayServer> gateway_;
};

}  // namespace foretoken
