// ClientSession: one connection of a client: reads requests, answers what the gateway knows itself, and hands completions to its
// Exchange. It keeps itself alive while it is open; closed, it leaves nothing behind.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "integration/gateway/chunked_body.h"
#include "integration/gateway/exchange.h"
#include "integration/gateway/gateway.h"
#include "integration/gateway/http_head.h"
#include "integration/gateway/openai_error.h"

namespace foretoken {

class ClientSession final : public Swept, public AnswerSink, public std::enable_shared_from_this<ClientSession> {
 public:
  ClientSession(Gateway& gateway, boost::asio::ip::tcp::socket socket, GatewayDoor door);
  ~ClientSession() override;

  void Start();

  void Sweep(Instant now) override;
  void Drain() override;
  void Abort() override { Close(); }

  bool Send(std::span<const std::string_view> pieces) override;
  void SendError(const GatewayError& error) override;
  void Finish(bool keep_alive) override;

 private:
  using Code = boost::system::error_code;
  enum class State : uint8_t { kHead, kBody, kBusy, kLinger, kClosed };
  static constexpr size_t kSmallBuffer = 2048;
  static constexpr size_t kLargeBuffer = 65536;

  void Read();
  void OnRead(const Code& code, size_t n);
  void Process();
  bool StepHead();
  bool StepBody();
  bool OnHead();
  bool TakeBody(const char* data, size_t size);
  void Handle();
  void HandleMetrics();
  void HandleWorkers();
  void ShowWorkers(const std::string& worker);
  void AddWorker();
  void ChangeWorker(std::string worker, const std::string& verb);
  void AnswerWorker(InstanceId id, int status, std::string_view what);
  void HandleModels(std::string_view path);
  void Answer(std::string_view body, AnswerOptions options);
  void RefuseAndClose(GatewayError error);
  void WriteOn();
  void OnWritten(const Code& code, size_t n);
  void Linger();
  void Close();
  bool MayAdminister() const;

  Gateway& gateway_;
  boost::asio::ip::tcp::socket socket_;
  std::unique_ptr<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> tls_;
  GatewayDoor door_;
  State state_ = State::kHead;
  std::vector<char> in_;
  size_t begin_ = 0, end_ = 0;
  size_t head_seen_ = 0;  // bytes of the head that were looked at
  RequestHead head_;
  std::string body_;
  uint64_t body_left_ = 0;
  uint64_t reserved_ = 0;
  ChunkedDecoder decoder_;
  std::optional<Endpoint> endpoint_;  // of a completion
  std::string out_, queued_;          // what the socket did not take; what came after that
  size_t out_sent_ = 0;
  bool reading_ = false, writing_ = false, processing_ = false, close_after_ = false, linger_after_ = false;
  Instant since_;      // of the state's clock: head begun, body window begun, idle since
  Instant out_since_;  // the client has taken nothing since
  uint64_t window_bytes_ = 0;
  Exchange exchange_;
};

}  // namespace foretoken
