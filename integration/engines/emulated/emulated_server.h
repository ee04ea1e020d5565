// EmulatedServer: an emulated engine behind the OpenAI HTTP API, in real time: what an instance of a topology would answer, when it
// would answer it. Any client, load generator or other router can be pointed at it. One token of output is one event of a stream, sent
// when the engine's step ends; the text is filler. A prompt's tokens: as given when it comes as token ids, else one per four bytes;
// equal beginnings of prompts share their cache blocks as far as the engine's prefix cache goes.
//
// Paths: POST /v1/chat/completions, /v1/completions; GET /v1/models, /health, /metrics (names of vLLM).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "integration/http/event_loop.h"
#include "integration/http/http_server.h"
#include "runtime/base/result.h"
#include "runtime/engine/emulated_engine.h"

namespace foretoken {

struct EmulatedServerOptions {
  std::string name;                 // X-Backend-Id
  std::vector<std::string> models;  // that it serves; the first one names its metrics
  EmulatedEngine::Options engine;   // its `start` is when the server is made
  int64_t default_tokens = 128;     // of output, when a request sets no limit
};

class EmulatedServer final : private EngineSink {
 public:
  static Result<std::unique_ptr<EmulatedServer>> Make(EventLoop& loop, EmulatedServerOptions options);
  ~EmulatedServer() override;

  // Port 0: the kernel chooses.
  Result<uint16_t> Listen(const std::string& host, uint16_t port);

 private:
  class Answer;

  EmulatedServer(EventLoop& loop, EmulatedServerOptions options);
  void OnRequest(HttpConnection& connection, const HttpServer::Request& request);
  void Generate(HttpConnection& connection, const HttpServer::Request& request, bool chat);
  std::string Metrics() const;
  // Lets the engine do what is due, and comes back when more is.
  void Advance();
  void Leave(RequestId request);  // its client has gone, or its answer has ended

  void OnStep(const BatchTrace& trace) override;
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId request, const BatchTrace::Finish& finish, Instant at) override;
  void OnRejected(RequestId request, OutcomeReason reason, Instant at) override;

  EmulatedServerOptions options_;
  EventLoop& loop_;
  std::unique_ptr<EmulatedEngine> engine_;
  EventLoop::Timer timer_;
  uint64_t next_request_ = 1;
  std::map<RequestId, Answer*> answers_;  // under way; the connections own them
  std::map<RequestId, bool> decoding_;    // past their prompt and running, as the traces say
  std::vector<EngineRequest> submitted_;  // and those that left: told to the engine in Advance()
  std::vector<RequestId> aborted_;
  bool advancing_ = false;
  uint64_t completed_ = 0;
  HttpServer server_;  // last: its connections' answers leave the members above
};

}  // namespace foretoken
