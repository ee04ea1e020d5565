// LoadClient: requests to an OpenAI-compatible server from one thread, cheaply: as they come (Poisson, an open loop: late answers do
// not slow the arrivals), as fast as they go over a fixed number of connections, or many streams held open at once. Understands the
// stamps of a FakeEngine and so reports what lies between client and engine apart from the engine's own delay.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "integration/http/event_loop.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

struct LoadTarget {
  std::string host = "127.0.0.1";  // IPv4
  uint16_t port = 0;
};

// "http://127.0.0.1:8000", or without the scheme.
Result<LoadTarget> ParseTarget(const std::string& url);

struct LoadOptions {
  std::vector<LoadTarget> targets;  // several: in turn
  std::string path = "/v1/chat/completions";
  std::string model = "fake-model";
  bool stream = true;
  int64_t tokens = 16;        // max_tokens
  size_t prompt_bytes = 200;  // of the part that is one of `groups` texts
  size_t groups = 64;         // distinct beginnings of prompts
  Duration timeout = Duration::Seconds(20);
  uint64_t seed = 1;
  std::string api_key;
};

struct LoadResult {
  uint64_t offered = 0;
  uint64_t ok = 0;                         // complete answers with status 200; a stream's with [DONE]
  std::map<std::string, uint64_t> errors;  // what was wrong -> requests
  double seconds = 0;                      // first send to last end
  uint64_t peak_in_flight = 0;
  uint64_t dials = 0;
  std::map<std::string, uint64_t> engines;  // X-Backend-Id -> answers
  // Nanoseconds, one per answer (or chunk); stamps only where the engine gave them.
  std::vector<int64_t> ttft, e2e;
  std::vector<int64_t> transit;        // of the first token: TTFT at the client less the engine's own
  std::vector<int64_t> chunk_transit;  // from the engine's sending to the client's receiving, of every chunk
  std::vector<int64_t> late;           // the sending behind its schedule: the generator's own error

  uint64_t failed() const;
};

// The q-quantile (0..1) of `values`, which get sorted; 0 if there are none.
int64_t QuantileOf(std::vector<int64_t>& values, double q);

// Poisson arrivals at `rate` per second for `lasts`; returns when all have ended.
LoadResult RunOpenLoop(EventLoop& loop, const LoadOptions& options, double rate, Duration lasts);

// `connections` requests always under way for `lasts`; counts what ends after `warm_up`.
LoadResult RunSaturated(EventLoop& loop, const LoadOptions& options, size_t connections, Duration warm_up, Duration lasts);

// Starts `streams` evenly over `ramp` and waits for all to end.
LoadResult RunBurst(EventLoop& loop, const LoadOptions& options, size_t streams, Duration ramp);

}  // namespace foretoken
