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

// How CAF's stream reads and writes: see network/stream.hpp, handle_event_impl. An `indeterminate` write drops the write buffer, so it is
// given for an empty one only; nothing is written before the handshake is complete, or the loop would spin on a writable socket.
class TlsPolicy {
 public:
  TlsPolicy(std::shared_ptr<TlsSession> session, std::function<void()> on_ready)
      : session_(std::move(session)), on_ready_(std::move(on_ready)) {}

  net::rw_state read_some(size_t& done, net::native_socket, void* out, size_t length) {
    done = 0;
    if (!session_->ready()) {
      const Io io = Shake();
      if (io != Io::kDone) return io == Io::kFailed ? net::rw_state::failure : net::rw_state::indeterminate;
    }
    switch (session_->Read(out, length, done)) {
      case Io::kDone: return net::rw_state::success;
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
  bool must_read_more(net::native_socket, size_t threshold) { return session_->pending() >= threshold; }

 private:
  Io Shake() {
    const Io io = session_->Handshake();
    if (io == Io::kDone) on_ready_();
    return io;
  }

  std::shared_ptr<TlsSession> session_;
  std::function<void()> on_ready_;
};

class TlsScribe final : public caf::io::scribe {
 public:
  TlsScribe(net::default_multiplexer& mx, net::native_socket fd, std::shared_ptr<TlsSession> session,
            std::function<void()> on_ready)
      : caf::io::scribe(net::conn_hdl_from_socket(fd)), stream_(mx, fd, std::move(session), std::move(on_ready)) {}

  void configure_read(caf::io::receive_policy::config config) override {
    stream_.configure_read(config);
    if (started_) return;
    started_ = true;
    stream_.start(this);
    stream_.force_empty_write(this);  // the dialler speaks first
  }
  void ack_writes(bool) override {}
  std::vector<char>& wr_buf() override { return stream_.wr_buf(); }
  std::vector<char>& rd_buf() override { return stream_.rd_buf(); }
  void graceful_shutdown() override {
    stream_.graceful_shutdown();
    detach(&stream_.backend(), false);
  }
  void flush() override { stream_.flush(this); }
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
  net::stream_impl<TlsPolicy> stream_;
};

net::default_multiplexer& MultiplexerOf(caf::io::broker* self) {
  return static_cast<net::default_multiplexer&>(self->system().middleman().backend());
}

void SetOptions(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

OpenedConnection AddTls(caf::io::abstract_broker* self, net::default_multiplexer& mx, int fd,
                        std::shared_ptr<TlsSession> session) {
  const auto handle = net::conn_hdl_from_socket(fd);
  const caf::actor_addr me = self->address();
  const auto on_ready = [me, handle] {
    if (const auto to = caf::actor_cast<caf::actor>(me)) caf::anon_send(to, TlsReady{handle});
  };
  auto scribe = caf::make_counted<TlsScribe>(mx, fd, session, on_ready);
  self->add_scribe(std::move(scribe));
  return {handle, std::move(session)};
}

class TlsDoorman final : public net::doorman_impl {
 public:
  TlsDoorman(net::default_multiplexer& mx, net::native_socket fd, std::shared_ptr<const TlsContext> tls,
             std::function<void(OpenedConnection)> on_session)
      : net::doorman_impl(mx, fd), tls_(std::move(tls)), on_session_(std::move(on_session)) {}

  bool new_connection() override {
    if (detached()) return false;
    const int fd = acceptor_.accepted_socket();
    net::nonblocking(fd, true);
    SetOptions(fd);
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
  if (tls == nullptr) {
    self->add_doorman(fd);
  } else {
    self->add_doorman(caf::make_counted<TlsDoorman>(MultiplexerOf(self), fd, std::move(tls), std::move(on_session)));
  }
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
  if (tls == nullptr) return OpenedConnection{self->add_scribe(fd), nullptr};
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
