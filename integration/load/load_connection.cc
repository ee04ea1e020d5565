#include "integration/load/load_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

namespace foretoken {
namespace {

// "r<ns>s<ns> " in a chunk's text; false: there is none.
bool ParseStamp(std::string_view line, Instant& received, Instant& sent) {
  for (size_t at = line.find("\"r"); at != line.npos; at = line.find("\"r", at + 2)) {
    int64_t r = 0, s = 0;
    const char* end = line.data() + line.size();
    const auto first = std::from_chars(line.data() + at + 2, end, r);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != 's') continue;
    if (std::from_chars(first.ptr + 1, end, s).ec != std::errc()) continue;
    received = Instant::FromNanos(r);
    sent = Instant::FromNanos(s);
    return true;
  }
  return false;
}

std::string NameOf(int error) {
  return error == ECONNRESET || error == EPIPE ? "reset" : error == ECONNREFUSED ? "refused" : std::strerror(error);
}

}  // namespace

LoadConnection::LoadConnection(EventLoop& loop, const LoadTarget& target, size_t target_index, bool stream, Ended ended)
    : loop_(loop), target_(target), target_index_(target_index), stream_(stream), ended_(std::move(ended)) {}

LoadConnection::~LoadConnection() { Disconnect(); }

void LoadConnection::Disconnect() {
  if (fd_ < 0) return;
  loop_.Unwatch(fd_);
  close(fd_);
  fd_ = -1;
}

bool LoadConnection::Connect() {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(target_.port);
  inet_pton(AF_INET, target_.host.c_str(), &a.sin_addr);  // checked by ParseTarget
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd_ < 0) return false;
  const int yes = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  writing_ = connect(fd_, reinterpret_cast<sockaddr*>(&a), sizeof a) != 0;
  if (writing_ && errno != EINPROGRESS) {
    close(std::exchange(fd_, -1));
    return false;
  }
  loop_.Watch(fd_, writing_ ? EPOLLIN | EPOLLOUT : EPOLLIN, this);
  return true;
}

void LoadConnection::Send(std::string request, Instant scheduled) {
  out_ = std::move(request);
  sent_ = 0;
  in_.clear();
  body_.clear();
  have_head_ = close_ = done_ = false;
  status_ = 0;
  call_ = LoadCall();
  call_.scheduled = scheduled;
  busy_ = true;
  if (fd_ < 0 && !Connect()) return Fail(NameOf(errno));
  if (!writing_) Write();
}

void LoadConnection::Write() {
  if (sent_ == 0) call_.sent = EventLoop::Now();
  while (sent_ < out_.size()) {
    const ssize_t n = send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
    if (n >= 0) {
      sent_ += static_cast<size_t>(n);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return Fail(NameOf(errno));
    if (!writing_) loop_.Rewatch(fd_, EPOLLIN | EPOLLOUT, this);
    writing_ = true;
    return;
  }
  if (writing_) loop_.Rewatch(fd_, EPOLLIN, this);
  writing_ = false;
}

void LoadConnection::OnEvents(uint32_t epoll_events) {
  if (fd_ < 0) return;
  if (!busy_) return Disconnect();  // an idle connection was closed by the server
  if (writing_ && (epoll_events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return Fail(NameOf(error));
    Write();
  }
  if (busy_ && fd_ >= 0 && (epoll_events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) Read();
}

void LoadConnection::Read() {
  std::array<char, 32'768> buffer;
  const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) return Fail(NameOf(errno));
  if (n == 0) {
    if (have_head_ && decoder_.until_close()) {
      close_ = true;
      return Complete();
    }
    return Fail("eof");
  }
  in_.append(buffer.data(), static_cast<size_t>(n));
  TakeAnswer(EventLoop::Now());
}

void LoadConnection::TakeAnswer(Instant now) {
  if (!have_head_) {
    const auto head = ParseHead(in_);
    if (!head.ok()) return Fail("malformed");
    if (!head->has_value()) return;
    status_ = (*head)->status();
    if (status_ == 0) return Fail("malformed");
    close_ = (*head)->close;
    call_.engine = (*head)->Field("x-backend-id");
    decoder_ = BodyDecoder::Of(**head, false);
    in_.erase(0, (*head)->size);
    have_head_ = true;
  }
  in_.erase(0, decoder_.Feed(in_, body_));
  if (decoder_.malformed()) return Fail("malformed");
  if (status_ == 200) TakeLines(now);
  if (decoder_.done()) Complete();
}

void LoadConnection::TakeLines(Instant now) {
  size_t begin = 0;
  for (size_t end = body_.find('\n'); end != body_.npos; end = body_.find('\n', begin)) {
    OnLine(std::string_view(body_).substr(begin, end - begin), now);
    begin = end + 1;
  }
  if (decoder_.done() && begin < body_.size()) {
    OnLine(std::string_view(body_).substr(begin), now);
    begin = body_.size();
  }
  body_.erase(0, begin);
}

void LoadConnection::OnLine(std::string_view line, Instant now) {
  if (stream_ && !line.starts_with("data:")) return;
  if (line.starts_with("data: [DONE]")) {
    done_ = true;
  } else if (line.starts_with("data: {\"error\"")) {
    call_.error = "error event";
  } else if (Instant received, sent; ParseStamp(line, received, sent)) {
    if (call_.first == Instant()) {
      call_.first = now;
      call_.engine_received = received;
      call_.engine_sent = sent;
    }
    call_.chunk_transit.push_back((now - sent).nanos());
  } else if (call_.first == Instant()) {
    call_.first = now;
  }
}

void LoadConnection::Complete() {
  call_.end = EventLoop::Now();
  if (status_ != 200) {
    call_.error = "status " + std::to_string(status_);
  } else if (stream_ && !done_ && call_.error.empty()) {
    call_.error = "no [DONE]";
  }
  busy_ = false;
  used_ = true;
  if (close_) Disconnect();
  ended_(*this);
}

void LoadConnection::Fail(const std::string& error) {
  call_.end = EventLoop::Now();
  call_.error = error;
  call_.stale = used_ && !have_head_ && in_.empty() && error != "timeout";
  busy_ = writing_ = false;
  Disconnect();
  ended_(*this);
}

void LoadConnection::GiveUp(const std::string& error) { Fail(error); }

}  // namespace foretoken
