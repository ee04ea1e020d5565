#include "integration/http/http_fetch.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "integration/http/event_loop.h"
#include "integration/http/http_message.h"

namespace foretoken {
namespace {

// A descriptor that closes itself.
struct Socket {
  Socket() : fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd >= 0) close(fd);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd;
};

sockaddr_in AddressOf(const std::string& host, uint16_t port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(port);
  inet_pton(AF_INET, host.c_str(), &a.sin_addr);
  return a;
}

}  // namespace

Result<HttpAnswer> HttpFetch(const std::string& host, uint16_t port, const std::string& path, Duration limit) {
  return HttpFetch(host, port, HttpCall{"GET", path}, limit);
}

Result<HttpAnswer> HttpFetch(const std::string& host, uint16_t port, const HttpCall& call, Duration limit) {
  const std::string where = "http://" + host + ":" + std::to_string(port) + call.path;
  const Socket s;
  const Instant until = EventLoop::Now() + limit;
  timeval step{};
  step.tv_usec = 50'000;
  setsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &step, sizeof step);
  setsockopt(s.fd, SOL_SOCKET, SO_SNDTIMEO, &step, sizeof step);
  const sockaddr_in to = AddressOf(host, port);
  std::string request = call.method + " " + call.path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n";
  if (!call.api_key.empty()) request += "Authorization: Bearer " + call.api_key + "\r\n";
  if (!call.body.empty() || call.method == "POST")
    request += "Content-Type: application/json\r\nContent-Length: " + std::to_string(call.body.size()) + "\r\n";
  request += "\r\n" + call.body;
  if (connect(s.fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 ||
      send(s.fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
    return Error{where + ": " + std::strerror(errno)};
  std::string in;
  bool ended = false;
  while (!ended && EventLoop::Now() < until) {
    std::array<char, 65'536> buffer;
    const ssize_t n = recv(s.fd, buffer.data(), buffer.size(), 0);
    if (n < 0 && errno != EAGAIN && errno != EINTR) return Error{where + ": " + std::strerror(errno)};
    ended = n == 0;
    if (n > 0) in.append(buffer.data(), static_cast<size_t>(n));
    const auto head = ParseHead(in);
    if (!head.ok()) return Error{where + ": " + head.error().message};
    if (!head->has_value()) continue;
    BodyDecoder decoder = BodyDecoder::Of(**head, false);
    HttpAnswer answer{(*head)->status(), {}};
    decoder.Feed(std::string_view(in).substr((*head)->size), answer.body);
    if (decoder.done() || (ended && decoder.until_close())) return answer;
  }
  return Error{where + (ended ? ": the connection was closed before the answer was complete" : ": no answer in time")};
}

Result<uint16_t> FreePort(const std::string& host) {
  const Socket s;
  sockaddr_in a = AddressOf(host, 0);
  socklen_t size = sizeof a;
  if (bind(s.fd, reinterpret_cast<sockaddr*>(&a), size) != 0 || getsockname(s.fd, reinterpret_cast<sockaddr*>(&a), &size) != 0)
    return Error{host + ": " + std::strerror(errno)};
  return ntohs(a.sin_port);
}

}  // namespace foretoken
