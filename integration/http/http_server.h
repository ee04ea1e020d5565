// HttpServer: a small HTTP/1.1 server on an EventLoop, for fake and emulated engines: keep-alive, whole bodies in, answers whole or
// as a stream of chunks out, one write each. Loopback use: no TLS, no time limits; a body limit only.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "integration/http/event_loop.h"
#include "integration/http/http_message.h"
#include "runtime/base/result.h"

namespace foretoken {

class HttpServer;

// What a handler keeps while it answers a request; destroyed when the answer ended or the client left.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
};

class HttpConnection final : public EventLoop::Source {
 public:
  HttpConnection(HttpServer& server, int fd) : server_(server), fd_(fd) {}
  ~HttpConnection() override;

  // `fields`: more header fields, each with its line end.
  void Reply(int status, std::string_view content_type, std::string_view body, std::string_view fields = {});
  // A stream: the head goes out with the first chunk unless `at_once`. False: as SendChunk.
  bool BeginStream(std::string_view content_type, bool at_once, std::string_view fields = {});
  bool SendChunk(std::string_view data);       // false: the client is gone, and what was held with it
  void EndStream(std::string_view last = {});  // `last`: data of a last chunk; may be empty
  void Hold(std::unique_ptr<HttpExchange> exchange) { exchange_ = std::move(exchange); }
  // Ends the connection in the middle of whatever it does; with `reset` the peer sees ECONNRESET.
  void Break(bool reset);

  bool open() const { return fd_ >= 0; }
  size_t unsent() const { return out_.size() - sent_; }  // bytes that the client has not taken yet

  void OnEvents(uint32_t epoll_events) override;

 private:
  friend class HttpServer;
  void Read();
  void Advance();  // takes complete requests out of what came
  void TakeRequests();
  void Flush();
  void AnswerEnded();
  void Close();

  HttpServer& server_;
  int fd_;
  bool busy_ = false;       // a request is being answered
  bool advancing_ = false;  // inside Advance()
  bool closing_ = false;    // after the present answer
  bool writing_ = false;    // waits for the socket to take more
  std::string in_;
  std::string head_;  // of the request under way; its views point here
  HttpHead request_;
  bool have_head_ = false;
  BodyDecoder decoder_;
  std::string body_;
  std::string out_;
  size_t sent_ = 0;
  std::unique_ptr<HttpExchange> exchange_;
};

class HttpServer final : public EventLoop::Source {
 public:
  // Valid during the call of the handler only.
  struct Request {
    const HttpHead& head;
    std::string_view body;
    Instant received;  // when its last byte was read
  };
  // Answers now through the connection, or later from what it gave to Hold().
  using Handler = std::function<void(HttpConnection&, const Request&)>;

  HttpServer(EventLoop& loop, Handler handler) : loop_(loop), handler_(std::move(handler)) {}
  ~HttpServer() override;

  // Port 0: the kernel chooses. The value is the port.
  Result<uint16_t> Listen(const std::string& host, uint16_t port);
  void set_body_limit(size_t bytes) { body_limit_ = bytes; }
  EventLoop& loop() const { return loop_; }
  size_t connections() const { return connections_.size(); }

  void OnEvents(uint32_t epoll_events) override;

 private:
  friend class HttpConnection;

  EventLoop& loop_;
  Handler handler_;
  int fd_ = -1;
  size_t body_limit_ = size_t{1} << 30;
  std::map<int, std::unique_ptr<HttpConnection>> connections_;
};

// The reason phrase of the codes that are used here.
std::string_view ReasonOf(int status);

}  // namespace foretoken
