// What a gateway adds, measured from outside: fake engines, the gateway and its peers run as processes of their own, the load comes from
// this process, and the direct connection to the same engines is measured in the same run. Contenders take turns within each repeat;
// the figures are medians over the repeats. Everything shares the machine's cores, so the figures hold for a machine of that size.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

struct GatewayBenchOptions {
  size_t engines = 4;
  Duration ttft = Duration::Millis(20);
  Duration itl = Duration::Millis(5);
  int64_t tokens = 16;
  double rate = 1'000;  // streams per second, open loop
  double seconds = 4;   // of it, per repeat and contender
  double saturated_seconds = 3;
  size_t connections = 64;  // of the saturating load
  size_t streams = 2'000;   // open at once
  int repeats = 3;
  std::string policy = "min_e2e";
  bool peers = false;                          // those installed: nginx, haproxy, vllm-router, smg
  std::vector<std::string> gateway_arguments;  // more of `foretoken gateway`
  std::function<void(const std::string&)> progress = [](const std::string&) {};
};

struct GatewayBenchRow {
  std::string name;
  std::string policy;
  double added_p50_us = 0;  // of the first token's way, over the direct connection's
  double added_p99_us = 0;
  double requests_per_second = 0;  // reached in the open loop
  double cpu_ms_per_1000_streams = 0;
  double saturated_requests_per_second = 0;  // whole answers, no engine delay
  double saturated_cpu_ms_per_1000 = 0;
  uint64_t concurrent_streams = 0;  // seen at the engines at one time
  double rss_mb = 0;                // peak over the whole run
  uint64_t errors = 0;
  std::map<std::string, uint64_t> error_kinds;
  std::vector<double> added_p50_us_repeats, added_p99_us_repeats;
};

struct GatewayBenchResult {
  GatewayBenchRow gateway;
  std::vector<GatewayBenchRow> peers;
  std::vector<std::string> peers_left_out;  // "name: why"
  double direct_p50_us = 0;                 // the first token's way on the direct connection
  double direct_p99_us = 0;
  double direct_saturated_requests_per_second = 0;
  double generator_late_p99_us = 0;  // the load generator's own lateness
  double load_before = 0;            // the machine's load average of the last minute, before the run
};

Result<GatewayBenchResult> RunGatewayBench(const GatewayBenchOptions& options);

}  // namespace foretoken
