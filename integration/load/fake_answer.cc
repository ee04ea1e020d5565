#include "integration/load/fake_answer.h"

#include <algorithm>
#include <utility>

namespace foretoken {
namespace {

constexpr int64_t kPromptTokens = 8;         // what `usage` says of every prompt
constexpr size_t kLargestBacklog = 1 << 18;  // bytes; a slow reader makes the engine wait, as a real one does

// Anything that is sent may find the client gone and destroy the answer: it touches nothing of its own afterwards.
class FakeAnswer final : public HttpExchange {
 public:
  FakeAnswer(FakeEngine& engine, HttpConnection& connection, EngineCall request, Instant received)
      : engine_(engine),
        connection_(connection),
        request_(std::move(request)),
        options_(engine.options()),
        received_(received),
        timer_(engine.loop(), [this] { OnTime(); }),
        text_(request_, (request_.chat ? "chatcmpl-" : "cmpl-") + std::to_string(received.nanos())) {
    FakeEngine::Counters& c = engine_.counters();
    c.max_active = std::max(c.max_active, ++c.active);
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
      const std::string chunk = text_.Chunk(Text());
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
    std::string last = text_.Chunk("", "\"stop\"");
    if (request_.include_usage) last += text_.UsageChunk(kPromptTokens, request_.tokens);
    connection_.EndStream(last + "data: [DONE]\n\n");
  }
  void AnswerWhole() {
    ended_ = true;
    ++engine_.counters().completed;
    const std::string body = text_.Whole(Text(), "\"stop\"", kPromptTokens, request_.tokens);
    engine_.counters().bytes_out += body.size();
    connection_.Reply(200, "application/json", body, NameField());
  }

  std::string Text() const {
    return "r" + std::to_string(received_.nanos()) + "s" + std::to_string(EventLoop::Now().nanos()) + " " +
           std::string(options_.pad, 'x');
  }

  FakeEngine& engine_;
  HttpConnection& connection_;
  EngineCall request_;
  FakeEngineOptions options_;  // as they were when the request came
  Instant received_;
  EventLoop::Timer timer_;
  AnswerText text_;
  int64_t sent_ = 0;  // tokens
  bool ended_ = false;
};

}  // namespace

void AnswerFake(FakeEngine& engine, HttpConnection& connection, EngineCall request, Instant received) {
  auto answer = std::make_unique<FakeAnswer>(engine, connection, std::move(request), received);
  FakeAnswer* held = answer.get();
  connection.Hold(std::move(answer));
  held->Begin();
}

}  // namespace foretoken
