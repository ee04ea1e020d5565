// Exchange: one request's way through the gateway: read, decided, sent to an engine, its answer relayed. Before the first token it
// may go to another engine unseen by the client: nothing of an answer is sent until output has come. After that, never.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "integration/gateway/chunked_body.h"
#include "integration/gateway/engine_link.h"
#include "integration/gateway/gateway.h"
#include "integration/gateway/http_head.h"
#include "integration/gateway/openai_answer.h"
#include "integration/gateway/openai_body.h"
#include "integration/gateway/openai_error.h"
#include "runtime/model/request.h"

namespace foretoken {

// Where an answer goes: a client's connection.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  // False: the socket did not take all at once; Exchange::OnSinkDrained is called when it has.
  virtual bool Send(std::span<const std::string_view> pieces) = 0;
  // A whole answer of the gateway's own, and the end of it.
  virtual void SendError(const GatewayError& error) = 0;
  // The answer is complete. keep_alive: the connection may take another request.
  virtual void Finish(bool keep_alive) = 0;
};

class Exchange final : public EngineLink::User, public EngineUse {
 public:
  Exchange(Gateway& gateway, AnswerSink& sink) : gateway_(gateway), sink_(sink) {}
  ~Exchange() override { Cancel(); }

  // `head` stays as it is until the answer is complete. reserved: bytes that the gateway has put aside for the body.
  void Start(const RequestHead& head, std::string body, uint64_t reserved, Endpoint endpoint);
  // The client has gone: the engine is told at once by the end of its connection.
  void Cancel();
  void OnSinkDrained();
  void Sweep(Instant now);
  bool active() const { return phase_ != Phase::kIdle; }
  // Waits for a first token, on an engine that has been found hung: goes elsewhere if it may.
  void OnEngineHung();
  // How long this request may hear nothing from its engine before the engine is suspect; how long it has heard nothing.
  Duration QuietBound(Instant now) const;
  Instant sent_at() const { return sent_at_; }
  bool streaming() const { return stream_; }
  bool waits_for_first() const { return !began_ && phase_ != Phase::kVerifying; }
  // It waits to know whether its engine is still the one that it was.
  bool verifying() const { return phase_ == Phase::kVerifying; }
  void OnVerified(bool ok);

 private:
  enum class Phase : uint8_t { kIdle, kQueued, kVerifying, kConnecting, kWaiting, kAnswering };
  enum class Failure : uint8_t { kRefused, kCrashed, kServerError, kHung, kReplaced };
  static constexpr size_t kMostHeld = 64 * 1024;   // of an answer, before anything of it is sent
  static constexpr size_t kMostTail = 256 * 1024;  // of an unfinished event
  static constexpr int64_t kMostTimeouts = 5;      // times dead_after that a broken-off stream is waited for

  void OnLinkOpen() override;
  void OnLinkBytes() override;
  void OnLinkClosed(const EngineLink::Code& code) override;

  void Admit();
  void Decide();
  void Attempt(bool fresh);
  void Dial(bool fresh);
  void SendRequest();
  bool ReadHead();
  void ReadBody();
  void OnPayload(char* data, size_t size, bool end);
  void OnEvents(std::string_view events, bool end);
  void CountOutput(std::string_view payload);
  void Hold(std::string_view payload);
  void Forward(std::string_view payload, bool end);
  std::string AnswerHead() const;
  bool Chunked() const { return !response_.content_length && !head_->http_1_0; }
  void Complete();
  void Fail(Failure failure, bool paid = false);  // paid: the budget has been asked
  bool MayRetry(Failure failure) const;
  void GiveUp(Failure failure);
  void CutStream();
  void Reject(OutcomeReason reason);
  void Refuse(const GatewayError& error);
  void DropLink();
  void End();
  void Judge(Instant now);
  void TellExample(Duration e2e) const;

  Gateway& gateway_;
  AnswerSink& sink_;
  Phase phase_ = Phase::kIdle;
  const RequestHead* head_ = nullptr;
  Endpoint endpoint_ = Endpoint::kChatCompletions;
  std::string body_;
  std::string model_;
  std::string wire_head_;  // of the request, as sent to the engine
  RequestMeta meta_;
  bool stream_ = false;
  bool has_place_ = false;
  TextClass text_class_ = TextClass::kProse;
  int64_t prompt_bytes_ = 0;
  int32_t prompt_parts_ = 0;
  int64_t sequences_ = 1;  // n x prompts
  uint64_t reserved_bytes_ = 0;
  std::shared_ptr<Gateway::Waiter> waiter_;

  // The attempt.
  Engine* engine_ = nullptr;
  std::shared_ptr<EngineLink> link_;
  Routing::Choice choice_;
  int32_t reached_ = 0;  // engines that have been sent the request
  int32_t crashed_ = 0;
  Instant hung_asked_;  // when it was last tried to leave a hung engine
  bool stale_retried_ = false;
  bool sent_ = false;
  Instant started_, sent_at_, first_at_, last_at_;
  Instant output_at_;  // of the latest piece of output

  // The answer.
  ResponseHead response_;
  bool have_head_ = false;
  bool began_ = false;  // something of it has been sent to the client
  bool scans_ = false;  // its events are read
  ChunkedDecoder decoder_;
  uint64_t left_ = 0;  // of a body with a length
  std::string held_;   // payload before the first token
  std::string tail_;   // of an event not complete yet
  int32_t events_ = 0;
  int64_t chunks_ = 0;  // with output
  std::optional<Usage> usage_;
  std::string usage_window_;  // the end of an answer that is not a stream
};

}  // namespace foretoken
