// EngineProbe: one small request to an engine on a connection of its own, with a deadline: its health, its models, its metrics, a token.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "integration/gateway/chunked_body.h"
#include "integration/gateway/engine.h"
#include "integration/gateway/engine_link.h"
#include "integration/gateway/http_head.h"
#include "runtime/base/units.h"

namespace foretoken {

struct ProbeQuestion {
  std::string path;
  std::string body;  // JSON, sent by POST; empty: a GET
};

struct ProbeAnswer {
  bool reached = false;  // it took the connection
  bool closed = false;   // and ended it without an answer: it is no longer there
  bool silent() const { return reached && !closed; }
  int status = 0;  // 0: no answer in time
  std::string body;
};

class EngineProbe final : public EngineLink::User, public EngineLink::Pool, public std::enable_shared_from_this<EngineProbe> {
 public:
  using Done = std::function<void(const ProbeAnswer&)>;

  // `done` is called exactly once, unless the io_context ends before.
  static void Run(boost::asio::io_context& io, const Engine& engine, const ProbeQuestion& question, Duration deadline,
                  Done done);

  explicit EngineProbe(boost::asio::io_context& io) : timer_(io) {}

 private:
  static constexpr size_t kMostBytes = 4 << 20;

  void OnLinkOpen() override;
  void OnLinkBytes() override;
  void OnLinkClosed(const EngineLink::Code& code) override;
  void OnIdleClosed(EngineLink&) override {}
  void End();

  boost::asio::steady_timer timer_;
  std::shared_ptr<EngineLink> link_;
  std::shared_ptr<EngineProbe> self_;  // until it is done
  std::string request_;
  Done done_;
  ProbeAnswer answer_;
  ResponseHead head_;
  bool have_head_ = false;
  ChunkedDecoder decoder_;
};

}  // namespace foretoken
