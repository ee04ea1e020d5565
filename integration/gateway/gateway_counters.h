// GatewayCounters: what a gateway counts, and the distributions that it keeps; shown as Prometheus text by gateway_metrics.
#pragma once

#include <cstdint>

#include "runtime/metrics/latency_histogram.h"

namespace foretoken {

// Beside what Membership counts.
struct MembershipCounters {
  uint64_t replaced = 0;        // addresses that another engine had taken
  uint64_t verified = 0;        // engines asked what they serve before a request went there
  uint64_t unknown_model = 0;   // answers 404 for a model that the engine was believed to serve
  uint64_t lists_refused = 0;   // files and DNS answers that changed nothing because something was wrong with them
  uint64_t lists_followed = 0;  // that named other workers than before
};

struct GatewayCounters {
  uint64_t requests = 0;        // that reached routing
  uint64_t finished = 0;        // answered in full, 2xx
  uint64_t failed = 0;          // for want of an engine, or under a dying one
  uint64_t cancelled = 0;       // the client left
  uint64_t refused = 0;         // 4xx by the gateway itself
  uint64_t shed = 0;            // by admission
  uint64_t retried = 0;         // sent again, to another engine
  uint64_t retries_denied = 0;  // by the budget
  uint64_t cut_streams = 0;     // ended by an error event
  uint64_t timed_out = 0;
  uint64_t slow_clients = 0;  // closed for sending or taking too slowly
  uint64_t connections = 0;
  uint64_t connections_refused = 0;
  uint64_t output_chunks = 0;
  uint64_t output_tokens = 0;    // as engines report them
  LatencyHistogram ttft;         // request read to first output
  LatencyHistogram inter_token;  // between two pieces of output of a stream
  LatencyHistogram e2e;
  LatencyHistogram decision;  // time that a decision took
  // Prediction against what came, of requests that ended well: sum of |predicted/actual - 1|, and of its signed form.
  uint64_t judged = 0;
  double ttft_ape = 0, ttft_bias = 0, e2e_ape = 0, e2e_bias = 0;
};

}  // namespace foretoken
