#include "integration/gateway/engine_link.h"

#include <array>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>

namespace foretoken {

namespace asio = boost::asio;

void EngineLink::Connect(const asio::ip::tcp::endpoint& to, User& user) {
  user_ = &user;
  Code code;
  socket_.open(to.protocol(), code);
  if (!code) socket_.non_blocking(true, code);
  socket_.async_connect(to, [self = shared_from_this()](const Code& connected) {
    if (self->user_ == nullptr) return;
    if (connected) return self->Fail(connected);
    Code ignored;
    self->socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    self->open_ = true;
    self->user_->OnLinkOpen();
    self->Read();
  });
}

void EngineLink::Detach(Instant now) {
  user_ = nullptr;
  idle_since_ = now;
  paused_ = false;
  if (buffer_.size() > kSmallBuffer) std::vector<char>().swap(buffer_);
  begin_ = end_ = 0;
  Read();
}

void EngineLink::Send(std::string_view head, std::string_view body) {
  const std::array<asio::const_buffer, 2> both = {asio::const_buffer(head.data(), head.size()),
                                                  asio::const_buffer(body.data(), body.size())};
  Code code;
  const size_t n = socket_.write_some(both, code);
  if (code && code != asio::error::would_block) return;  // the read that is under way tells why
  if (n == head.size() + body.size()) return;
  unsent_head_ = n < head.size() ? head.substr(n) : std::string_view();
  unsent_ = n < head.size() ? body : body.substr(n - head.size());
  if (unsent_.empty()) std::swap(unsent_, unsent_head_);
  WriteOn();
}

void EngineLink::WriteOn() {
  const std::array<asio::const_buffer, 2> both = {asio::const_buffer(unsent_head_.data(), unsent_head_.size()),
                                                  asio::const_buffer(unsent_.data(), unsent_.size())};
  socket_.async_write_some(both, [self = shared_from_this()](const Code& code, size_t n) {
    if (code || self->user_ == nullptr) {
      self->unsent_ = self->unsent_head_ = {};
      return;  // the read that is under way tells why
    }
    const size_t of_head = std::min(n, self->unsent_head_.size());
    self->unsent_head_.remove_prefix(of_head);
    self->unsent_.remove_prefix(n - of_head);
    if (!self->unsent_.empty()) self->WriteOn();
  });
}

void EngineLink::Close() {
  user_ = nullptr;
  open_ = false;
  Code ignored;
  socket_.close(ignored);
}

void EngineLink::Resume() {
  paused_ = false;
  Read();
}

void EngineLink::Consume(size_t n) {
  begin_ += n;
  if (begin_ == end_) begin_ = end_ = 0;
}

void EngineLink::Read() {
  if (reading_ || paused_ || !open_) return;
  if (buffer_.empty()) buffer_.resize(kSmallBuffer);
  if (end_ == buffer_.size()) {
    if (begin_ > 0) {
      std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_), buffer_.begin() + static_cast<std::ptrdiff_t>(end_),
                buffer_.begin());
      end_ -= begin_;
      begin_ = 0;
    } else {
      buffer_.resize(buffer_.size() * 4);
    }
  }
  reading_ = true;
  socket_.async_read_some(asio::mutable_buffer(buffer_.data() + end_, buffer_.size() - end_),
                          [self = shared_from_this()](const Code& code, size_t n) { self->OnRead(code, n); });
}

void EngineLink::OnRead(const Code& code, size_t n) {
  reading_ = false;
  if (!open_) return;
  if (user_ == nullptr) {  // idle, and it closed or spoke unasked
    Close();
    if (pool_ != nullptr) pool_->OnIdleClosed(*this);
    return;
  }
  if (code) return Fail(code);
  const bool was_full = end_ + n == buffer_.size();
  end_ += n;
  user_->OnLinkBytes();
  // A large answer is read in large pieces.
  if (was_full && begin_ == end_ && buffer_.size() < kLargeBuffer && !reading_) buffer_.resize(kLargeBuffer);
  Read();
}

void EngineLink::Fail(const Code& code) {
  User* user = user_;
  Close();
  if (user != nullptr) user->OnLinkClosed(code);
}

}  // namespace foretoken
