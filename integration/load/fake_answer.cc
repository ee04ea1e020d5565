#include "integration/load/fake_answer.h"

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

namespace foretoken {
namespace {

constexpr int64_t kPromptTokens = 8;         // what `usage` says of every prompt
constexpr size_t kLargestBacklog = 1 << 18;  // bytes; a slow reader makes the engine wait, as a real one does

// Anything that is sent may find the client gone and destroy the answer: it touches nothing of its own afterwards.
class FakeAnswer final : public HttpExchange {
 public:
  FakeAnswer(FakeEngine& engine, HttpConnection& connection, FakeRequest request, Instant received)
      : engine_(engine),
        connection_(connection),
        request_(std::move(request)),
        options_(engine.options()),
        received_(received),
        timer_(engine.loop(), [this] { OnTime(); }) {
    FakeEngine::Counters& c = engine_.counters();
    c.max_active = std::max(c.max_active, ++c.active);
    id_ = (request_.chat ? "chatcmpl-" : "cmpl-") + std::to_string(received.nanos());
  }
  ~FakeAnswer() override {
    --engine_.counters().active;
    if (ended_) return;
    ++engine_.counters().cancelled;
    engine_.counters().last_cancel = EventLoop::Now();
  }

  void Begin() {
    if (options_.mode == "hang") return;
    if (request_.stream && !connection_.BeginStream("text/event-stream; charset=utf-8",
                                                    options_.early_headers && Due() > EventLoop::Now(), NameField()))
      return;
    OnTime();
  }

 private:
  int64_t Next() const { return std::min(sent_ + options_.tokens_per_chunk, request_.tokens); }  // tokens after the next chunk
  Instant Due() const { return received_ + options_.ttft + options_.itl * ((request_.stream ? Next() : request_.tokens) - 1); }
  std::string NameField() const { return "X-Backend-Id: " + options_.name + "\r\n"; }

  void OnTime() {
    for (;;) {
      if (Due() > EventLoop::Now()) return timer_.Arm(Due());
      if (!request_.stream) return AnswerWhole();
      if (sent_ >= options_.die_after && options_.mode != "ok") return Fail();
      if (connection_.unsent() > kLargestBacklog) return timer_.Arm(EventLoop::Now() + Duration::Millis(1));
      sent_ = Next();
      const bool last = sent_ == request_.tokens;
      const std::string chunk = Chunk(Text(), "null");
      engine_.counters().bytes_out += chunk.size();
      if (!connection_.SendChunk(chunk)) return;
      if (last) return EndStream();
    }
  }
  void Fail() {
    if (options_.mode == "die") return connection_.Break(true);
    if (options_.mode == "stall") return;
    ended_ = true;
    connection_.EndStream("data: " + ErrorBody("internal_error", "fake engine error", 500) + "\n\n");
  }
  void EndStream() {
    ended_ = true;
    ++engine_.counters().completed;
    std::string last = Chunk("", "\"stop\"");
    if (request_.include_usage)
      last += "data: " + Opening(request_.chat ? "chat.completion.chunk" : "text_completion") + "\"choices\":[]," + Usage() +
              "}\n\n";
    connection_.EndStream(last + "data: [DONE]\n\n");
  }
  void AnswerWhole() {
    ended_ = true;
    ++engine_.counters().completed;
    std::string body = Opening(request_.chat ? "chat.completion" : "text_completion");
    body += request_.chat ? R"("choices":[{"index":0,"message":{"role":"assistant","content":")"
                          : R"("choices":[{"index":0,"text":")";
    body += Text() + (request_.chat ? "\"}" : "\"") + R"(,"logprobs":null,"finish_reason":"stop"}],)" + Usage() + "}";
    engine_.counters().bytes_out += body.size();
    connection_.Reply(200, "application/json", body, NameField());
  }

  std::string Opening(std::string_view object) const {
    std::string out = "{\"id\":\"" + id_ + "\",\"object\":\"";
    out.append(object).append("\",\"created\":1700000000,\"model\":\"").append(request_.model).append("\",");
    return out;
  }
  std::string Usage() const {
    return "\"usage\":{\"prompt_tokens\":" + std::to_string(kPromptTokens) +
           ",\"completion_tokens\":" + std::to_string(request_.tokens) +
           ",\"total_tokens\":" + std::to_string(kPromptTokens + request_.tokens) + "}";
  }
  std::string Text() const {
    return "r" + std::to_string(received_.nanos()) + "s" + std::to_string(EventLoop::Now().nanos()) + " " +
           std::string(options_.pad, 'x');
  }
  // One event; without text the delta is empty.
  std::string Chunk(const std::string& text, std::string_view finish) const {
    std::string out = "data: " + Opening(request_.chat ? "chat.completion.chunk" : "text_completion");
    if (!request_.chat) {
      out.append(R"("choices":[{"index":0,"text":")").append(text).append("\"");
    } else if (text.empty()) {
      out.append(R"("choices":[{"index":0,"delta":{})");
    } else {
      out.append(R"("choices":[{"index":0,"delta":{"role":"assistant","content":")").append(text).append("\"}");
    }
    out.append(R"(,"logprobs":null,"finish_reason":)").append(finish).append("}]}\n\n");
    return out;
  }

  FakeEngine& engine_;
  HttpConnection& connection_;
  FakeRequest request_;
  FakeEngineOptions options_;  // as they were when the request came
  Instant received_;
  EventLoop::Timer timer_;
  std::string id_;
  int64_t sent_ = 0;  // tokens
  bool ended_ = false;
};

}  // namespace

Result<FakeRequest> ParseFakeRequest(std::string_view body, bool chat, int64_t default_tokens) {
  boost::json::error_code failed;
  boost::json::monotonic_resource memory;
  const boost::json::value parsed = boost::json::parse(boost::json::string_view(body.data(), body.size()), failed, &memory);
  if (failed) return Error{"not JSON: " + failed.message()};
  const boost::json::object* o = parsed.if_object();
  if (o == nullptr) return Error{"the body must be a JSON object"};
  FakeRequest request;
  request.chat = chat;
  request.tokens = default_tokens;
  if (const auto* model = o->if_contains("model"); model != nullptr && model->is_string())
    request.model = model->as_string().c_str();
  if (const auto* stream = o->if_contains("stream"); stream != nullptr && stream->is_bool()) request.stream = stream->as_bool();
  for (const char* key : {"max_tokens", "max_completion_tokens"})
    if (const auto* n = o->if_contains(key); n != nullptr && n->is_int64())
      request.tokens = std::max<int64_t>(1, n->as_int64());
  if (const auto* options = o->if_contains("stream_options"); options != nullptr && options->is_object())
    if (const auto* usage = options->as_object().if_contains("include_usage"); usage != nullptr && usage->is_bool())
      request.include_usage = usage->as_bool();
  return request;
}

std::string ErrorBody(std::string_view type, std::string_view message, int code) {
  return boost::json::serialize(boost::json::object{{"error",
                                                     {{"message", boost::json::string_view(message.data(), message.size())},
                                                      {"type", boost::json::string_view(type.data(), type.size())},
                                                      {"param", nullptr},
                                                      {"code", code}}}});
}

void AnswerFake(FakeEngine& engine, HttpConnection& connection, FakeRequest request, Instant received) {
  auto answer = std::make_unique<FakeAnswer>(engine, connection, std::move(request), received);
  FakeAnswer* held = answer.get();
  connection.Hold(std::move(answer));
  held->Begin();
}

}  // namespace foretoken
