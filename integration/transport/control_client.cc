#include "integration/transport/control_client.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <utility>
#include <variant>
#include <vector>

#include "integration/transport/frame_assembler.h"
#include "integration/transport/node_links.h"
#include "integration/transport/sockets.h"
#include "schema/codec.h"

namespace foretoken {
namespace {

class Call {
 public:
  Call(int fd, const AskOptions& options) : fd_(fd), options_(options) {}
  ~Call() {
    tls_.reset();
    close(fd_);
  }

  Result<ControlReply> Ask(const ControlRequest& request) {
    if (options_.tls != nullptr) {
      tls_ = options_.tls->Connect(fd_, options_.node);
      if (tls_ == nullptr || tls_->Handshake() != TlsSession::Io::kDone)
        return Broken("no TLS with it: its certificate, or ours, does not suit");
    }
    NodeHello hello;
    hello.protocol_version = kNodeProtocolVersion;
    hello.node = "command";
    hello.roles = {"control"};
    if (!Send(hello) || !Send(request)) return Broken("it does not take our question");
    std::vector<std::byte> buffer(64 << 10);
    for (;;) {
      for (auto frame = assembler_.Next(); !frame.empty(); frame = assembler_.Next()) {
        auto message = Decode(frame);
        if (!message.ok()) return Broken(message.error().message);
        if (auto* reply = std::get_if<ControlReply>(&*message); reply != nullptr && reply->id == request.id)
          return std::move(*reply);
      }
      if (!assembler_.broken_rule().empty()) return Broken("it does not speak our protocol");
      size_t got = 0;
      if (!Read(buffer, got)) return Broken("no answer");
      assembler_.Append({buffer.data(), got});
    }
  }

 private:
  Error Broken(const std::string& what) const {
    return Error{"node " + options_.node + " at " + options_.address.ToString() + ": " + what};
  }
  bool Send(const Message& message) {
    const auto frame = Encode(message);
    if (!frame.ok()) return false;
    for (size_t at = 0; at < frame->size();) {
      size_t done = 0;
      if (tls_ != nullptr) {
        if (tls_->Write(frame->data() + at, frame->size() - at, done) != TlsSession::Io::kDone) return false;
      } else {
        const ssize_t n = send(fd_, frame->data() + at, frame->size() - at, MSG_NOSIGNAL);
        if (n <= 0) return false;
        done = static_cast<size_t>(n);
      }
      at += done;
    }
    return true;
  }
  bool Read(std::vector<std::byte>& into, size_t& got) {
    if (tls_ != nullptr) return tls_->Read(into.data(), into.size(), got) == TlsSession::Io::kDone;
    const ssize_t n = recv(fd_, into.data(), into.size(), 0);
    got = n > 0 ? static_cast<size_t>(n) : 0;
    return n > 0;
  }

  int fd_;
  const AskOptions& options_;
  std::shared_ptr<TlsSession> tls_;
  FrameAssembler assembler_{kFrameBytesMax};
};

}  // namespace

Result<ControlReply> AskNode(const AskOptions& options, const ControlRequest& request) {
  const auto endpoint = ResolveAddress(options.address);
  if (!endpoint.ok()) return endpoint.error();
  const auto fd = ConnectBlocking(*endpoint, options.seconds);
  if (!fd.ok()) return Error{"node " + options.node + " at " + options.address.ToString() + ": " + fd.error().message};
  return Call(*fd, options).Ask(request);
}

}  // namespace foretoken
