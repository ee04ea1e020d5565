#include "integration/gateway/sync_listener.h"

#include <unistd.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <cstring>
#include <functional>
#include <span>
#include <utility>
#include <variant>

#include "integration/transport/frame_assembler.h"
#include "schema/codec.h"

namespace foretoken {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kMostSessions = 4096;

}  // namespace

Result<SyncAddress> SyncAddress::Parse(const std::string& text) {
  const Error wrong{"sync address " + text + ": must be unix:PATH or tcp:HOST:PORT"};
  SyncAddress address;
  if (text.rfind("unix:", 0) == 0) {
    address.path = text.substr(5);
    if (address.path.empty() || address.path.size() > 100) return wrong;
    return address;
  }
  const size_t colon = text.rfind(':');
  if (text.rfind("tcp:", 0) != 0 || colon < 4) return wrong;
  address.host = text.substr(4, colon - 4);
  if (address.host == "localhost") address.host = "127.0.0.1";
  const char* end = text.data() + text.size();
  const auto read = std::from_chars(text.data() + colon + 1, end, address.port);
  error_code code;
  (void)asio::ip::make_address(address.host, code);
  if (read.ec != std::errc() || read.ptr != end || code) return wrong;
  return address;
}

class SyncListener::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(SyncListener& owner, Protocol::socket socket) : owner(&owner), socket_(std::move(socket)) {}

  void Read() {
    socket_.async_read_some(asio::buffer(buffer_), [self = shared_from_this()](const error_code& code, size_t n) {
      if (self->owner == nullptr) return;
      if (code) return self->owner->OnClosed(*self);
      self->frames.Append(std::as_bytes(std::span(self->buffer_.data(), n)));
      self->owner->counters_.bytes += n;
      self->owner->OnFrames(*self);
      if (self->owner != nullptr && self->socket_.is_open()) self->Read();
    });
  }
  // Small and seldom: what the socket does not take at once waits for its turn.
  void Send(Frame frame) {
    out_.push_back(std::move(frame));
    if (out_.size() == 1) Write();
  }
  void Close() {
    error_code ignored;
    socket_.close(ignored);
  }

  SyncListener* owner;  // null: it is gone
  FrameAssembler frames{kFrameBytesMax};
  std::optional<InstanceId> instance;

 private:
  void Write() {
    const auto done = [self = shared_from_this()](const error_code& code, size_t) {
      self->out_.erase(self->out_.begin());
      if (!code && !self->out_.empty()) self->Write();
    };
    asio::async_write(socket_, asio::buffer(out_.front().data(), out_.front().size()), done);
  }

  Protocol::socket socket_;
  std::array<char, kReadBytes> buffer_;
  std::vector<Frame> out_;
};

class SyncListener::Door {
 public:
  explicit Door(asio::io_context& io) : acceptor(io) {}
  asio::basic_socket_acceptor<Protocol> acceptor;
  std::function<void()> accept;
};

SyncListener::SyncListener(boost::asio::io_context& io, Owner& owner) : io_(io), owner_(owner) {}

SyncListener::~SyncListener() { Stop(); }

Status SyncListener::Listen(const SyncAddress& address) {
  door_ = std::make_unique<Door>(io_);
  auto& acceptor = door_->acceptor;
  error_code code;
  Protocol::endpoint at;
  if (address.path.empty()) {
    at = asio::ip::tcp::endpoint(asio::ip::make_address(address.host), address.port);
  } else {
    at = asio::local::stream_protocol::endpoint(address.path);
    ::unlink(address.path.c_str());  // left by one that was killed
    path_ = address.path;
  }
  acceptor.open(at.protocol(), code);
  if (!code && address.path.empty()) acceptor.set_option(asio::socket_base::reuse_address(true), code);
  if (!code) acceptor.bind(at, code);
  if (!code) acceptor.listen(128, code);
  const std::string name = address.path.empty() ? address.host + ":" + std::to_string(address.port) : address.path;
  if (code) return Error{"cannot listen for sync streams on " + name + ": " + code.message()};
  if (address.path.empty()) {
    asio::ip::tcp::endpoint local;
    const auto bound = acceptor.local_endpoint();
    std::memcpy(local.data(), bound.data(), bound.size());
    port_ = local.port();
  }
  door_->accept = [this] {
    door_->acceptor.async_accept([this](const error_code& failed, Protocol::socket socket) {
      if (failed == asio::error::operation_aborted || door_ == nullptr) return;
      if (!failed) {
        ++counters_.connections;
        std::erase_if(sessions_, [](const auto& s) { return s.expired(); });
        auto session = std::make_shared<Session>(*this, std::move(socket));
        if (sessions_.size() < kMostSessions) {
          sessions_.push_back(session);
          session->Read();
        }
      }
      door_->accept();
    });
  };
  door_->accept();
  return {};
}

void SyncListener::Stop() {
  if (door_ != nullptr) {
    error_code ignored;
    door_->acceptor.close(ignored);
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  for (const auto& weak : sessions_)
    if (const auto session = weak.lock()) {
      session->owner = nullptr;
      session->Close();
    }
  sessions_.clear();
}

void SyncListener::OnFrames(Session& session) {
  std::string why;
  for (auto frame = session.frames.Next(); !frame.empty() && why.empty(); frame = session.frames.Next()) {
    ++counters_.frames;
    auto message = Decode(frame);
    if (!message.ok()) {
      why = message.error().message;
    } else if (auto* m = std::get_if<StreamMessage>(&*message)) {
      session.instance = m->instance;
      by_instance_[m->instance.value()] = session.weak_from_this();
      if (!owner_.OnSync(std::move(*m))) ++counters_.unknown;
    } else {
      why = "only messages of a stream are expected";
    }
  }
  if (why.empty()) why = session.frames.broken_rule();
  if (why.empty()) return;
  ++counters_.malformed;
  owner_.OnSyncRefused(why);
  OnClosed(session);
  session.Close();
}

void SyncListener::OnClosed(Session& session) {
  if (!session.instance) return;
  const auto at = by_instance_.find(session.instance->value());
  if (at == by_instance_.end() || at->second.lock().get() != &session) return;  // it has another by now
  by_instance_.erase(at);
  owner_.OnSyncClosed(*session.instance);
}

void SyncListener::RequestSnapshot(InstanceId instance, Epoch epoch, uint64_t from_seq) {
  const auto at = by_instance_.find(instance.value());
  const auto session = at == by_instance_.end() ? nullptr : at->second.lock();
  if (session == nullptr) return;
  if (auto frame = Encode(ResyncRequest{instance, SourceId(0), epoch, from_seq, true}); frame.ok())
    session->Send(std::move(frame).value());
}

}  // namespace foretoken
