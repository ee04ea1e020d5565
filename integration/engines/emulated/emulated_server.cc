#include "integration/engines/emulated/emulated_server.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "integration/engines/emulated/prompt_segments.h"
#include "integration/load/openai_text.h"

namespace foretoken {
// One request's answer: fed by the engine's steps, owned by its connection.
class EmulatedServer::Answer final : public HttpExchange {
 public:
  Answer(EmulatedServer& server, HttpConnection& connection, const EngineCall& call, RequestId id, int64_t prompt_tokens)
      : server_(server),
        connection_(connection),
        stream_(call.stream),
        include_usage_(call.include_usage),
        id_(id),
        prompt_tokens_(prompt_tokens),
        text_(call, (call.chat ? "chatcmpl-" : "cmpl-") + std::to_string(id.value())) {}
  ~Answer() override { server_.Leave(id_); }

  bool Begin() {
    return !stream_ ||
           connection_.BeginStream("text/event-stream; charset=utf-8", true, "X-Backend-Id: " + server_.options_.name + "\r\n");
  }
  // Each may find the client gone and destroy this.
  void OnToken() {
    ++tokens_;
    if (stream_) connection_.SendChunk(text_.Chunk("tok "));
  }
  void End(FinishReason reason) {
    const std::string_view finish = reason == FinishReason::kStop ? "\"stop\"" : "\"length\"";
    if (!stream_) {
      std::string all;
      for (int64_t i = 0; i < tokens_; ++i) all += "tok ";
      return connection_.Reply(200, "application/json", text_.Whole(all, finish, prompt_tokens_, tokens_),
                               "X-Backend-Id: " + server_.options_.name + "\r\n");
    }
    std::string last = text_.Chunk("", finish);
    if (include_usage_) last += text_.UsageChunk(prompt_tokens_, tokens_);
    connection_.EndStream(last + "data: [DONE]\n\n");
  }
  void Fail(std::string_view type, const std::string& message, int status) {
    const std::string body = ErrorBody(type, message, status);
    if (!stream_) return connection_.Reply(status, "application/json", body);
    connection_.EndStream("data: " + body + "\n\n");
  }

 private:
  EmulatedServer& server_;
  HttpConnection& connection_;
  bool stream_;
  bool include_usage_;
  RequestId id_;
  int64_t prompt_tokens_;
  int64_t tokens_ = 0;
  AnswerText text_;
};

Result<std::unique_ptr<EmulatedServer>> EmulatedServer::Make(EventLoop& loop, EmulatedServerOptions options) {
  std::unique_ptr<EmulatedServer> server(new EmulatedServer(loop, std::move(options)));
  EmulatedEngine::Options e = server->options_.engine;
  e.traces = true;  // they say which request got a token in which step
  e.start = EventLoop::Now();
  auto engine = EmulatedEngine::Make(std::move(e));
  if (!engine.ok()) return engine.error();
  server->engine_ = std::move(engine).value();
  return server;
}

EmulatedServer::EmulatedServer(EventLoop& loop, EmulatedServerOptions options)
    : options_(std::move(options)),
      loop_(loop),
      timer_(loop, [this] { Advance(); }),
      server_(loop, [this](HttpConnection& c, const HttpServer::Request& r) { OnRequest(c, r); }) {}

EmulatedServer::~EmulatedServer() = default;

Result<uint16_t> EmulatedServer::Listen(const std::string& host, uint16_t port) { return server_.Listen(host, port); }

void EmulatedServer::OnRequest(HttpConnection& connection, const HttpServer::Request& request) {
  const std::string_view target = request.head.target();
  const std::string_view path = target.substr(0, target.find('?'));
  if (path == "/v1/chat/completions" || path == "/v1/completions")
    return Generate(connection, request, path == "/v1/chat/completions");
  if (path == "/health") return connection.Reply(200, "text/plain", "");
  if (path == "/metrics") return connection.Reply(200, "text/plain; version=0.0.4", Metrics());
  if (path == "/v1/models")
    return connection.Reply(200, "application/json", ModelsBody(options_.models, engine_->core().config().max_model_len));
  connection.Reply(404, "application/json", ErrorBody("not_found", "no such path", 404));
}

void EmulatedServer::Generate(HttpConnection& connection, const HttpServer::Request& request, bool chat) {
  const auto refuse = [&connection](int status, std::string_view type, const std::string& why) {
    connection.Reply(status, "application/json", ErrorBody(type, why, status));
  };
  if (request.head.method() != "POST") return refuse(405, "invalid_request_error", "method not allowed");
  const auto call = ParseEngineCall(request.body, chat, options_.default_tokens, true);
  if (!call.ok()) return refuse(400, "BadRequestError", call.error().message);
  if (std::find(options_.models.begin(), options_.models.end(), call->model) == options_.models.end())
    return refuse(404, "NotFoundError", "The model `" + call->model + "` does not exist.");
  EngineRequest e;
  e.id = RequestId(next_request_++);
  e.priority = call->priority;
  e.arrival_key = request.received.seconds();
  e.prompt_tokens = PromptTokensOf(*call);
  e.max_tokens = e.output_tokens = call->tokens;
  e.segments = SegmentsOf(*call, e.prompt_tokens);
  e.output_named_later = false;
  if (engine_->Refusal(e))
    return refuse(400, "BadRequestError",
                  "This model's maximum context length is " + std::to_string(engine_->core().config().max_model_len) +
                      " tokens; the prompt has " + std::to_string(e.prompt_tokens) +
                      ", or it needs more KV cache than there is.");
  auto answer = std::make_unique<Answer>(*this, connection, *call, e.id, e.prompt_tokens);
  Answer* held = answer.get();
  answers_.emplace(e.id, held);
  connection.Hold(std::move(answer));
  if (!held->Begin()) return;
  submitted_.push_back(std::move(e));
  Advance();
}

std::string EmulatedServer::Metrics() const {
  const EngineCore& core = engine_->core();
  const double usable = static_cast<double>(core.usable_blocks());
  std::string out = VllmGauge("num_requests_running", options_.models.front(), core.running());
  out += VllmGauge("num_requests_waiting", options_.models.front(), core.waiting());
  out += VllmGauge("kv_cache_usage_perc", options_.models.front(), 1 - static_cast<double>(core.free_blocks()) / usable);
  return out + VllmGauge("request_success_total", options_.models.front(), static_cast<double>(completed_));
}

void EmulatedServer::Advance() {
  if (advancing_) return;
  advancing_ = true;
  do {  // what answers and clients do meanwhile is told to the engine once it stands
    engine_->RunUntil(EventLoop::Now(), *this);
    const Instant now = EventLoop::Now();
    for (const EngineRequest& request : std::exchange(submitted_, {})) engine_->Submit(request, now);
    for (const RequestId request : std::exchange(aborted_, {})) engine_->Abort(request, now);
  } while (engine_->NextEvent() <= EventLoop::Now());
  advancing_ = false;
  const Instant next = engine_->NextEvent();
  if (next != Instant::Max()) timer_.Arm(next);
}

void EmulatedServer::Leave(RequestId request) {
  if (answers_.erase(request) == 0) return;  // it had ended in the engine
  decoding_.erase(request);
  aborted_.push_back(request);
  Advance();
}

void EmulatedServer::OnStep(const BatchTrace& trace) {
  for (const RequestId request : trace.preempted) decoding_.erase(request);
  for (const RequestId request : trace.cancelled) decoding_.erase(request);
  std::vector<RequestId> got;
  for (const auto& [request, decodes] : decoding_)
    if (std::find(trace.skipped.begin(), trace.skipped.end(), request) == trace.skipped.end()) got.push_back(request);
  for (const BatchTrace::Chunk& chunk : trace.chunks) {
    std::erase(got, chunk.request);
    if (!chunk.samples) continue;
    got.push_back(chunk.request);
    decoding_[chunk.request] = true;
  }
  for (const BatchTrace::Finish& finish : trace.finished) decoding_.erase(finish.request);
  for (const RequestId request : got)
    if (const auto found = answers_.find(request); found != answers_.end()) found->second->OnToken();
}

void EmulatedServer::OnFinished(RequestId request, const BatchTrace::Finish& finish, Instant) {
  const auto found = answers_.find(request);
  if (found == answers_.end()) return;
  Answer* answer = found->second;
  answers_.erase(found);  // before the answer's end: it leaves nothing to abort
  ++completed_;
  answer->End(finish.reason);
}

void EmulatedServer::OnRejected(RequestId request, OutcomeReason, Instant) {
  const auto found = answers_.find(request);
  if (found == answers_.end()) return;
  Answer* answer = found->second;
  answers_.erase(found);
  decoding_.erase(request);
  answer->Fail("BadRequestError", "the engine cannot hold this request: too long for its KV cache", 400);
}

}  // namespace foretoken
