#include "integration/transport/sockets.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <caf/io/network/default_multiplexer.hpp>
#include <caf/io/network/doorman_impl.hpp>
#include <caf/io/network/stream_impl.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

namespace foretoken {
namespace {

namespace net = caf::io::network;
using Io = TlsSession::Io;

// How CAF's stream reads and writes: see network/stream.hpp, handle_event_impl. Both policies read once per wake-up where that took all
// there was: epoll is level-triggered, and asking again only to hear EAGAIN costs a system call per frame.
class PlainPolicy {
 public:
  void BeginRead() { drained_ = false; }
  net::rw_state read_some(size_t& done, net::native_socket fd, void* out, size_t length) {
    done = 0;
    if (drained_) return net::rw_state::indeterminate;
    const ssize_t got = recv(fd, out, length, 0);
    if (got > 0) {
      done = static_cast<size_t>(got);
      drained_ = done < length;
      return net::rw_state::success;
    }
    return got < 0 && Again() ? net::rw_state::indeterminate : net::rw_state::failure;
  }
  net::rw_state write_some(size_t& done, net::native_socket fd, const void* in, size_t length) {
    done = 0;
    const ssize_t sent = send(fd, in, length, MSG_NOSIGNAL);
    if (sent >= 0) done = static_cast<size_t>(sent);
    return sent >= 0 || Again() ? net::rw_state::success : net::rw_state::failure;
  }
  // Once it has been asked: a socket that is still connecting says so by EAGAIN.
  static bool MayWrite() { return true; }
  static bool must_read_more(net::native_socket, size_t) { return false; }

 private:
  static bool Again() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

  bool drained_ = false;
};

// An `indeterminate` write drops the write buffer, so it is given for an empty one only; nothing is written before the handshake is
// complete, or the loop would spin on a writable socket.
class TlsPolicy {
 public:
  TlsPolicy(std::shared_ptr<TlsSession> session, std::function<void()> on_ready)
      : session_(std::move(session)), on_ready_(std::move(on_ready)) {}

  void BeginRead() { drained_ = false; }
  net::rw_state read_some(size_t& done, net::native_socket, void* out, size_t length) {
    done = 0;
    if (drained_) return net::rw_state::indeterminate;
    if (!session_->ready()) {
      const Io io = Shake();
      if (io != Io::kDone) return io == Io::kFailed ? net::rw_state::failure : net::rw_state::indeterminate;
    }
    switch (session_->Read(out, length, done)) {
      case Io::kDone: drained_ = !session_->pending(); return net::rw_state::success;
      case Io::kFailed: return net::rw_state::failure;
      default: return net::rw_state::indeterminate;
    }
  }
  net::rw_state write_some(size_t& done, net::native_socket, const void* in, size_t length) {
    done = 0;
    if (!session_->ready() && Shake() == Io::kFailed) return net::rw_state::failure;
    if (length == 0) return net::rw_state::indeterminate;
    if (!session_->ready()) return net::rw_state::success;
    return session_->Write(in, length, done) == Io::kFailed ? net::rw_state::failure : net::rw_state::success;
  }
  bool MayWrite() const { return session_->ready(); }
  // What OpenSSL holds already does not wake epoll again.
  bool must_read_more(net::native_socket, size_t) { return session_->pending(); }

 private:
  Io Shake() {
    const Io io = session_->Handshake();
    if (io == Io::kDone) on_ready_();
    return io;
  }

  std::shared_ptr<TlsSession> session_;
  std::function<void()> on_ready_;
  bool drained_ = false;
};

// Writes at once what the socket takes, and leaves to the loop what it does not: CAF's own stream asks epoll for leave first, which is
// three system calls more for every frame.
template <class Policy>
class EagerStream final : public net::stream {
 public:
  template <class... Ts>
  EagerStream(net::default_multiplexer& mx, net::native_socket fd, Ts&&... xs)
      : net::stream(mx, fd), policy_(std::forward<Ts>(xs)...) {}

  void handle_event(net::operation op) override {
    if (op == net::operation::read) policy_.BeginRead();
    handle_event_impl(op, policy_);
  }
  void Flush(const manager_ptr& manager) {
    auto& out = wr_buf();
    size_t sent = 0;
    for (size_t done = 1; done > 0 && sent < out.size() && !state_.writing && policy_.MayWrite(); sent += done)
      if (policy_.write_some(done, fd(), out.data() + sent, out.size() - sent) != net::rw_state::success) break;
    out.erase(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(sent));
    flush(manager);  // the rest; it also finds out again, and tells, what is wrong with the socket
  }

 private:
  Policy policy_;
};

template <class Policy>
class EagerScribe final : public caf::io::scribe {
 public:
  template <class... Ts>
  EagerScribe(net::default_multiplexer& mx, net::native_socket fd, Ts&&... xs)
      : caf::io::scribe(net::conn_hdl_from_socket(fd)), stream_(mx, fd, std::forward<Ts>(xs)...) {}

  void configure_read(caf::io::receive_policy::config config) override {
    stream_.configure_read(config);
    if (started_) return;
    started_ = true;
    stream_.start(this);
    stream_.force_empty_write(this);  // under TLS the dialler speaks first; a socket that cannot connect says so
  }
  void ack_writes(bool) override {}
  std::vector<char>& wr_buf() override { return stream_.wr_buf(); }
  std::vector<char>& rd_buf() override { return stream_.rd_buf(); }
  void graceful_shutdown() override {
    stream_.graceful_shutdown();
    detach(&stream_.backend(), false);
  }
  void flush() override { stream_.Flush(this); }
  std::string addr() const override {
    const auto a = net::remote_addr_of_fd(stream_.fd());
    return a ? *a : "";
  }
  uint16_t port() const override {
    const auto p = net::remote_port_of_fd(stream_.fd());
    return p ? *p : uint16_t{0};
  }
  void add_to_loop() override { stream_.activate(this); }
  void remove_from_loop() override { stream_.passivate(); }

 private:
  bool started_ = false;
  EagerStream<Policy> stream_;
};

net::default_multiplexer& MultiplexerOf(caf::io::broker* self) {
  return static_cast<net::default_multiplexer&>(self->system().middleman().backend());
}

void SetOptions(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

OpenedConnection AddPlain(caf::io::abstract_broker* self, net::default_multiplexer& mx, int fd) {
  self->add_scribe(caf::make_counted<EagerScribe<PlainPolicy>>(mx, fd));
  return {net::conn_hdl_from_socket(fd), nullptr};
}

OpenedConnection AddTls(caf::io::abstract_broker* self, net::default_multiplexer& mx, int fd,
                        std::shared_ptr<TlsSession> session) {
  const auto handle = net::conn_hdl_from_socket(fd);
  const caf::actor_addr me = self->address();
  const auto on_ready = [me, handle] {
    if (const auto to = caf::actor_cast<caf::actor>(me)) caf::anon_send(to, TlsReady{handle});
  };
  self->add_scribe(caf::make_counted<EagerScribe<TlsPolicy>>(mx, fd, session, on_ready));
  return {handle, std::move(session)};
}

class Doorman final : public net::doorman_impl {
 public:
  Doorman(net::default_multiplexer& mx, net::native_socket fd, std::shared_ptr<const TlsContext> tls,
          std::function<void(OpenedConnection)> on_session)
      : net::doorman_impl(mx, fd), tls_(std::move(tls)), on_session_(std::move(on_session)) {}

  bool new_connection() override {
    if (detached()) return false;
    const int fd = acceptor_.accepted_socket();
    net::nonblocking(fd, true);
    SetOptions(fd);
    if (tls_ == nullptr)
      return doorman::new_connection(&acceptor_.backend(), AddPlain(parent(), acceptor_.backend(), fd).handle);
    auto session = tls_->Accept(fd);
    if (session == nullptr) {
      net::close_socket(fd);
      return true;  // goes on listening
    }
    const OpenedConnection opened = AddTls(parent(), acceptor_.backend(), fd, std::move(session));
    on_session_(opened);
    return doorman::new_connection(&acceptor_.backend(), opened.handle);
  }

 private:
  std::shared_ptr<const TlsContext> tls_;
  std::function<void(OpenedConnection)> on_session_;
};

const sockaddr* SockaddrOf(const Endpoint& e) { return reinterpret_cast<const sockaddr*>(e.bytes.data()); }

std::string Reason() { return std::strerror(errno); }

}  // namespace

bool IsNumeric(const Address& address) {
  in6_addr scratch;
  return inet_pton(AF_INET, address.host.c_str(), &scratch) == 1 || inet_pton(AF_INET6, address.host.c_str(), &scratch) == 1;
}

Result<Endpoint> ResolveAddress(const Address& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (IsNumeric(address) ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (failed != 0) return Error{address.ToString() + ": " + gai_strerror(failed)};
  const auto* begin = reinterpret_cast<const std::byte*>(found->ai_addr);
  Endpoint out{{begin, begin + found->ai_addrlen}, found->ai_family};
  freeaddrinfo(found);
  return out;
}

Result<uint16_t> ListenOn(caf::io::broker* self, const Address& address, std::shared_ptr<const TlsContext> tls,
                          std::function<void(OpenedConnection)> on_session) {
  const auto endpoint = ResolveAddress(address);
  if (!endpoint.ok()) return endpoint.error();
  const int fd = socket(endpoint->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Error{"cannot open a socket: " + Reason()};
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, SockaddrOf(*endpoint), static_cast<socklen_t>(endpoint->bytes.size())) != 0 || listen(fd, 128) != 0) {
    const Error e{"cannot listen on " + address.ToString() + ": " + Reason()};
    close(fd);
    return e;
  }
  const auto bound = net::local_port_of_fd(fd);
  const uint16_t port = bound ? *bound : address.port;
  self->add_doorman(caf::make_counted<Doorman>(MultiplexerOf(self), fd, std::move(tls), std::move(on_session)));
  return port;
}

Result<OpenedConnection> DialTo(caf::io::broker* self, const Endpoint& to, const std::shared_ptr<const TlsContext>& tls,
                                const std::string& peer) {
  const int fd = socket(to.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Error{"cannot open a socket: " + Reason()};
  SetOptions(fd);
  if (connect(fd, SockaddrOf(to), static_cast<socklen_t>(to.bytes.size())) != 0 && errno != EINPROGRESS) {
    const Error e{"cannot connect: " + Reason()};
    close(fd);
    return e;
  }
  if (tls == nullptr) return AddPlain(self, MultiplexerOf(self), fd);
  auto session = tls->Connect(fd, peer);
  if (session == nullptr) {
    close(fd);
    return Error{"TLS: no session for " + peer};
  }
  return AddTls(self, MultiplexerOf(self), fd, std::move(session));
}

Result<int> ConnectBlocking(const Endpoint& to, int seconds) {
  const int fd = socket(to.family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return Error{"cannot open a socket: " + Reason()};
  const timeval limit{seconds, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  SetOptions(fd);
  if (connect(fd, SockaddrOf(to), static_cast<socklen_t>(to.bytes.size())) == 0) return fd;
  const Error e{"cannot connect: " + Reason()};
  close(fd);
  return e;
}

}  // namespace foretoken
