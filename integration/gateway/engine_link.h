// EngineLink: one connection to an engine: connect, send a request, hand what comes to its user, go back to the pool. Not
// thread-safe; it keeps itself alive while an operation is under way.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/base/units.h"

namespace foretoken {

class EngineLink : public std::enable_shared_from_this<EngineLink> {
 public:
  using Code = boost::system::error_code;

  class User {
   public:
    virtual ~User() = default;
    virtual void OnLinkOpen() = 0;
    // New bytes are in pending(). The user takes what it can.
    virtual void OnLinkBytes() = 0;
    // The engine closed, or an operation failed; no more calls come. While connecting: it was not reached.
    virtual void OnLinkClosed(const Code& code) = 0;
  };
  // Owns idle links.
  class Pool {
   public:
    virtual ~Pool() = default;
    // An idle link was closed by the engine.
    virtual void OnIdleClosed(EngineLink& link) = 0;
  };

  EngineLink(boost::asio::io_context& io, Pool& pool) : socket_(io), pool_(&pool) {}

  void Connect(const boost::asio::ip::tcp::endpoint& to, User& user);
  // Takes an idle link into use.
  void Attach(User& user) {
    user_ = &user;
    reused_ = true;
  }
  // It is idle again.
  void Detach(Instant now);
  // Both views stay valid until the answer begins or the link is closed.
  void Send(std::string_view head, std::string_view body);
  // No calls come any more; the engine sees the connection end.
  void Close();

  void Pause() { paused_ = true; }
  void Resume();

  std::string_view pending() const { return {buffer_.data() + begin_, end_ - begin_}; }
  char* pending_data() { return buffer_.data() + begin_; }
  void Consume(size_t n);

  bool open() const { return open_; }
  bool reused() const { return reused_; }
  bool sent_all() const { return unsent_.empty(); }
  Instant idle_since() const { return idle_since_; }
  // The pool goes away before the link.
  void Orphan() { pool_ = nullptr; }

 private:
  static constexpr size_t kSmallBuffer = 4096;
  static constexpr size_t kLargeBuffer = 65536;

  void Read();
  void OnRead(const Code& code, size_t n);
  void WriteOn();
  void Fail(const Code& code);

  boost::asio::ip::tcp::socket socket_;
  Pool* pool_;
  User* user_ = nullptr;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  std::string_view unsent_head_, unsent_;  // what the socket has not taken yet
  bool open_ = false, reused_ = false, reading_ = false, paused_ = false;
  Instant idle_since_;
};

}  // namespace foretoken
