// LoadConnection: one keep-alive connection of a load generator and the request under way on it. Reports one LoadCall per request.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "integration/http/event_loop.h"
#include "integration/http/http_message.h"
#include "integration/load/load_client.h"

namespace foretoken {

// One request as the client saw it. Times on the loop's clock; zero where nothing came.
struct LoadCall {
  Instant scheduled, sent, first, end;
  Instant engine_received, engine_sent;  // stamps of the first token
  std::vector<int64_t> chunk_transit;    // ns
  std::string engine;                    // X-Backend-Id
  std::string error;                     // empty: complete, status 200
  bool stale = false;                    // a kept connection was closed before any byte of the answer: not the server's failure
};

class LoadConnection final : public EventLoop::Source {
 public:
  using Ended = std::function<void(LoadConnection&)>;  // call() is complete; the connection is idle if reusable()

  LoadConnection(EventLoop& loop, const LoadTarget& target, size_t target_index, bool stream, Ended ended);
  ~LoadConnection() override;

  void Send(std::string request, Instant scheduled);  // only when idle
  // Ends the request under way with this error.
  void GiveUp(const std::string& error);

  const LoadCall& call() const { return call_; }
  const std::string& request() const { return out_; }
  bool reusable() const { return fd_ >= 0 && !busy_; }
  bool busy() const { return busy_; }
  size_t target_index() const { return target_index_; }

  void OnEvents(uint32_t epoll_events) override;

 private:
  bool Connect();
  void Write();
  void Read();
  void TakeAnswer(Instant now);
  void TakeLines(Instant now);
  void OnLine(std::string_view line, Instant now);
  void Complete();
  void Fail(const std::string& error);
  void Disconnect();

  EventLoop& loop_;
  const LoadTarget& target_;
  size_t target_index_;
  bool stream_;
  Ended ended_;
  int fd_ = -1;
  bool busy_ = false;
  bool used_ = false;     // has carried an answer
  bool writing_ = false;  // waits to be connected or for the socket to take more
  std::string out_;
  size_t sent_ = 0;
  std::string in_;
  std::string body_;
  bool have_head_ = false;
  bool close_ = false;
  int status_ = 0;
  bool done_ = false;  // [DONE] came
  BodyDecoder decoder_;
  LoadCall call_;
};

}  // namespace foretoken
