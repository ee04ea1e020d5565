// SyncListener: where engines' plugins (foretoken_vllm) connect to stream their progress. Frames of the project's schema over TCP or a
// unix socket, one message a frame; what comes back is ResyncRequests. On the gateway's thread.
//
// A connection that sends what is no frame, or no message of a stream, is closed and counted; nothing else is affected.
#pragma once

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "integration/engines/vllm/live_mirror.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/model/stream_message.h"

namespace foretoken {

// unix:PATH, tcp:HOST:PORT; HOST a numeric address. Port 0: the kernel's choice.
struct SyncAddress {
  std::string path;  // empty: TCP
  std::string host;
  uint16_t port = 0;

  static Result<SyncAddress> Parse(const std::string& text);
};

class SyncListener final : public LiveMirror::Effects {
 public:
  struct Counters {
    uint64_t connections = 0;
    uint64_t frames = 0;
    uint64_t bytes = 0;
    uint64_t malformed = 0;  // connections closed for what they sent
    uint64_t unknown = 0;    // messages of engines that there are not
  };
  class Owner {
   public:
    virtual ~Owner() = default;
    // False: there is no such engine.
    virtual bool OnSync(StreamMessage message) = 0;
    virtual void OnSyncClosed(InstanceId instance) = 0;
    virtual void OnSyncRefused(const std::string& why) = 0;
  };

  SyncListener(boost::asio::io_context& io, Owner& owner);
  ~SyncListener() override;

  Status Listen(const SyncAddress& address);
  // The TCP port, once it listens; 0: none.
  uint16_t port() const { return port_; }
  void Stop();
  void RequestSnapshot(InstanceId instance, Epoch epoch, uint64_t from_seq) override;

  const Counters& counters() const { return counters_; }

 private:
  using Protocol = boost::asio::generic::stream_protocol;
  class Session;
  class Door;

  void OnFrames(Session& session);
  void OnClosed(Session& session);

  boost::asio::io_context& io_;
  Owner& owner_;
  std::unique_ptr<Door> door_;
  std::map<uint32_t, std::weak_ptr<Session>> by_instance_;  // the latest connection of each
  std::vector<std::weak_ptr<Session>> sessions_;
  uint16_t port_ = 0;
  std::string path_;
  Counters counters_;
};

}  // namespace foretoken
