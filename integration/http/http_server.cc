#include "integration/http/http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace foretoken {
namespace {

constexpr size_t kLargestHead = 256 * 1024;

void AppendChunk(std::string& out, std::string_view data) {
  std::array<char, 20> size;
  const int n = std::snprintf(size.data(), size.size(), "%zx\r\n", data.size());
  out.append(size.data(), static_cast<size_t>(n));
  out.append(data);
  out.append("\r\n");
}

}  // namespace

std::string_view ReasonOf(int status) {
  switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Content Too Large";
    case 429: return "Too Many Requests";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    default: return "Status";
  }
}

HttpConnection::~HttpConnection() {
  exchange_.reset();
  if (fd_ >= 0) close(fd_);
}

void HttpConnection::Reply(int status, std::string_view content_type, std::string_view body, std::string_view fields) {
  if (!open()) return;
  out_.append("HTTP/1.1 ").append(std::to_string(status)).append(" ").append(ReasonOf(status));
  out_.append("\r\nContent-Type: ").append(content_type).append("\r\n").append(fields);
  out_.append("Content-Length: ").append(std::to_string(body.size()));
  out_.append(closing_ ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n").append(body);
  AnswerEnded();
}

bool HttpConnection::BeginStream(std::string_view content_type, bool at_once, std::string_view fields) {
  if (!open()) return false;
  out_.append("HTTP/1.1 200 OK\r\nContent-Type: ").append(content_type).append("\r\n").append(fields);
  out_.append("Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
  if (at_once) Flush();
  return open();
}

bool HttpConnection::SendChunk(std::string_view data) {
  if (!open() || data.empty()) return open();
  AppendChunk(out_, data);
  Flush();
  return open();
}

void HttpConnection::EndStream(std::string_view last) {
  if (!open()) return;
  if (!last.empty()) AppendChunk(out_, last);
  out_.append("0\r\n\r\n");
  AnswerEnded();
}

void HttpConnection::AnswerEnded() {
  busy_ = false;
  exchange_.reset();
  Flush();
  if (!open()) return;
  if (closing_ && unsent() == 0) return Close();
  if (!advancing_ && !in_.empty()) Advance();  // what came meanwhile
}

void HttpConnection::Break(bool reset) {
  if (!open()) return;
  if (reset) {
    const linger now{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  Close();
}

void HttpConnection::Close() {
  const int fd = fd_;
  server_.loop_.Unwatch(fd);
  close(fd);
  fd_ = -1;
  exchange_.reset();
  auto found = server_.connections_.find(fd);
  std::unique_ptr<HttpConnection> self = std::move(found->second);
  server_.connections_.erase(found);
  server_.loop_.Retire(std::move(self));
}

void HttpConnection::Flush() {
  while (sent_ < out_.size()) {
    const ssize_t n = send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
    if (n >= 0) {
      sent_ += static_cast<size_t>(n);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return Close();
    if (sent_ > 1 << 20) {
      out_.erase(0, sent_);
      sent_ = 0;
    }
    if (!writing_) server_.loop_.Rewatch(fd_, EPOLLIN | EPOLLOUT, this);
    writing_ = true;
    return;
  }
  out_.clear();
  sent_ = 0;
  if (writing_) server_.loop_.Rewatch(fd_, EPOLLIN, this);
  writing_ = false;
}

void HttpConnection::OnEvents(uint32_t epoll_events) {
  if (!open()) return;
  if ((epoll_events & EPOLLOUT) != 0) {
    Flush();
    if (open() && closing_ && !busy_ && unsent() == 0) return Close();
  }
  if (open() && (epoll_events & ~static_cast<uint32_t>(EPOLLOUT)) != 0) Read();
}

void HttpConnection::Read() {
  std::array<char, 65'536> buffer;
  const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return Close();
  in_.append(buffer.data(), static_cast<size_t>(n));
  Advance();
}

void HttpConnection::Advance() {
  advancing_ = true;
  TakeRequests();
  advancing_ = false;
}

void HttpConnection::TakeRequests() {
  while (open() && !busy_ && !closing_) {
    if (!have_head_) {
      const auto head = ParseHead(in_);
      if (!head.ok() || (!head->has_value() && in_.size() > kLargestHead)) {
        closing_ = true;
        return Reply(400, "text/plain", "malformed request\n");
      }
      if (!head->has_value()) return;
      head_ = in_.substr(0, (*head)->size);
      in_.erase(0, (*head)->size);
      request_ = **ParseHead(head_);  // the views must point into head_
      decoder_ = BodyDecoder::Of(request_, true);
      have_head_ = true;
      body_.clear();
    }
    in_.erase(0, decoder_.Feed(in_, body_));
    if (decoder_.malformed() || body_.size() > server_.body_limit_) {
      closing_ = true;
      return Reply(decoder_.malformed() ? 400 : 413, "text/plain", "malformed or oversized body\n");
    }
    if (!decoder_.done()) return;
    have_head_ = false;
    busy_ = true;
    closing_ = request_.close;
    server_.handler_(*this, HttpServer::Request{request_, body_, EventLoop::Now()});
  }
}

HttpServer::~HttpServer() {
  connections_.clear();
  if (fd_ >= 0) close(fd_);
}

Result<uint16_t> HttpServer::Listen(const std::string& host, uint16_t port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(port);
  if (inet_pton(AF_INET, host.c_str(), &a.sin_addr) != 1)
    return Error{"\"" + host + "\" is not an IPv4 address, such as 127.0.0.1"};
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int yes = 1;
  socklen_t size = sizeof a;
  if (fd_ < 0 || setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
      bind(fd_, reinterpret_cast<sockaddr*>(&a), size) != 0 || listen(fd_, 4'096) != 0 ||
      getsockname(fd_, reinterpret_cast<sockaddr*>(&a), &size) != 0)
    return Error{"cannot listen on " + host + ":" + std::to_string(port) + ": " + std::strerror(errno)};
  loop_.Watch(fd_, EPOLLIN, this);
  return ntohs(a.sin_port);
}

void HttpServer::OnEvents(uint32_t) {
  for (;;) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    const int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    auto connection = std::make_unique<HttpConnection>(*this, fd);
    loop_.Watch(fd, EPOLLIN, connection.get());
    connections_.emplace(fd, std::move(connection));
  }
}

}  // namespace foretoken
