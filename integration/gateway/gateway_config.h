// GatewayConfig: everything that a gateway can be told (docs/gateway.md). Defaults are those of the command line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

class Log;
class ObservationBoard;

struct GatewayConfig {
  std::vector<std::string> worker_urls;
  std::vector<std::string> worker_labels;  // what people call them, in their order; may be shorter
  std::string workers_file;                // a URL a line, looked at again and again; empty: none
  std::string workers_dns;                 // http://NAME:PORT: every address of NAME is a worker; empty: none
  Duration dns_every = Duration::Seconds(5);
  // For hosts that can make engines: starts one of this kind and returns its URL. Empty: workers are named by URL only.
  std::function<Result<std::string>(const std::string& kind)> make_worker;
  // Where workers' plugins connect to stream their progress: unix:PATH or tcp:HOST:PORT; empty: nowhere.
  std::string sync_listen;
  std::function<void(const std::string& url)> on_left;  // a worker is gone, and nothing of it is under way
  std::string host = "127.0.0.1";
  uint16_t port = 30000;         // 0: the kernel's choice
  uint16_t prometheus_port = 0;  // 0: no metrics address of its own; /metrics is then on the main one
  std::string admin_host;        // where admin_port is; empty: as host
  uint16_t admin_port = 0;       // 0: workers are added and removed on the main address
  std::string policy = "auto";
  std::string shadow;  // a second policy that only predicts and is compared; empty: none
  uint64_t seed = 1;
  Duration slo_ttft = Duration::Seconds(1);
  Duration slo_tpot = Duration::Millis(50);
  double shed_above = 0;  // > 0: refuse when every engine's predicted P(SLO violation) exceeds it

  Duration dead_after = Duration::Seconds(2);
  Duration probe_every = Duration::Millis(200);  // of engines that are out; of serving ones five times that
  Duration request_timeout = Duration::Seconds(1800);
  Duration header_timeout = Duration::Seconds(10);  // for a whole head
  Duration body_timeout = Duration::Seconds(10);    // within which some hundred bytes of a body must come
  Duration send_timeout = Duration::Seconds(60);    // in which a client takes nothing of its answer
  Duration idle_timeout = Duration::Seconds(75);    // of a kept-alive client connection
  Duration pool_idle = Duration::Seconds(3);        // of a kept-alive engine connection
  Duration drain_timeout = Duration::Seconds(30);

  uint64_t max_payload_bytes = uint64_t{64} << 20;
  uint64_t max_buffered_bytes = uint64_t{512} << 20;  // request bodies held, all together
  size_t max_header_bytes = 32768;
  size_t max_connections = 20000;
  size_t max_concurrent_requests = 0;  // 0: no limit
  size_t queue_size = 100;             // requests that may wait for the limit
  Duration queue_timeout = Duration::Seconds(60);

  std::vector<std::string> api_keys;            // empty: anybody may ask
  std::vector<std::string> request_id_headers;  // besides x-request-id
  bool decision_headers = false;                // x-foretoken-instance and predictions in every answer
  std::string tls_cert, tls_key;                // PEM files; empty: plain HTTP
  std::shared_ptr<ObservationBoard> board;      // for those who watch (integration/observe); null: nobody can
  std::shared_ptr<Log> log;                     // engines that go and come, examples of slow requests; null: none
};

}  // namespace foretoken
