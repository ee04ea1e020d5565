// FakeEngine: an OpenAI-compatible server shaped like vLLM that computes nothing, for measuring and testing what stands in front of
// engines. Its pace is set (first token after `ttft`, the k-th `itl` later), and so are its faults. Every token's text carries
// "r<ns>s<ns> ": when the request was received and the token sent, on the host's monotonic clock, so that a client of the same
// host tells the way through a gateway from the engine's own delay. One process per engine, so that each can be killed alone.
//
// Paths: POST /v1/chat/completions, /v1/completions; GET /v1/models, /health, /metrics (names of vLLM), /version;
// /_ctl?key=value&... sets options while it runs, /_stats tells what came, /_reset forgets it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "integration/http/event_loop.h"
#include "integration/http/http_server.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

struct FakeEngineOptions {
  std::string name;  // X-Backend-Id; empty: host:port
  std::string model = "fake-model";
  Duration ttft;
  Duration itl;
  int64_t tokens = 16;  // when the request sets no limit
  int64_t tokens_per_chunk = 1;
  // ok; 500, 503, 429, 400: that answer; hang: no answer; close: reset at once; die, stall, errevent: reset, silence, an error
  // event after `die_after` tokens of a stream.
  std::string mode = "ok";
  int64_t die_after = 0;
  size_t pad = 0;             // more bytes in each chunk
  bool early_headers = true;  // a stream's head at once, as vLLM sends it
  bool healthy = true;        // what /health says
  std::string poison;         // the process ends by SIGKILL when a request's body has this text
};

// Sets one option from text, as in /_ctl and on the command line: ttft=20ms, mode=die, health=bad, early=0.
Status SetFakeEngineOption(FakeEngineOptions& options, std::string_view key, std::string_view value);

// A duration with its unit: 20ms, 500us, 1.5s, 0.
Result<Duration> ParseDelay(std::string_view text);

class FakeEngine {
 public:
  struct Counters {
    uint64_t received = 0, completed = 0, cancelled = 0, active = 0, max_active = 0, bytes_in = 0, bytes_out = 0;
    Instant last_cancel;
  };

  FakeEngine(EventLoop& loop, FakeEngineOptions options);

  Result<uint16_t> Listen(const std::string& host, uint16_t port);
  const FakeEngineOptions& options() const { return options_; }
  Counters& counters() { return counters_; }
  EventLoop& loop() { return server_.loop(); }

 private:
  void OnRequest(HttpConnection& connection, const HttpServer::Request& request);
  void Generate(HttpConnection& connection, const HttpServer::Request& request, bool chat);
  bool Misbehave(HttpConnection& connection, const HttpServer::Request& request);  // true: that was the answer
  void Control(HttpConnection& connection, std::string_view query);
  void Stats(HttpConnection& connection);
  std::string Metrics() const;

  FakeEngineOptions options_;
  Counters counters_;
  std::map<std::string, uint64_t> paths_;  // "GET /health" -> requests
  std::string last_head_, last_body_;      // of the last request for tokens, its body's first 512 bytes
  HttpServer server_;                      // last: its connections count in the members above
};

}  // namespace foretoken
