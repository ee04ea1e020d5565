// NodeLinks: a node's connections to the others: dialled and accepted, with their hellos, heartbeats and bounded write buffers. A
// connection is a session: whatever was under way in it ends with it (OnPeerDown), and nothing of it comes later.
// Of two nodes the one later in the topology dials. A peer that is silent for dead_after, or sends what is no frame, is dropped; dialled
// ones are dialled again, with a growing pause. All calls are the broker's, in its thread.
//
// What is written is sent when Flush is called, all of a peer's frames at once: after every wake-up by the network, and otherwise when the
// broker comes to its FlushNote, behind what was in its mailbox already.
//
// Overload: while more than shed_bytes wait to be sent to a peer, predictions are no longer asked of it (MayPredict; counted). Sync messages
// and what belongs to a dispatched request are never shed: beyond write_bytes_max the connection is given up, which the streams' gaps and
// the retries put right.
#pragma once

#include <caf/io/broker.hpp>
#include <caf/io/connection_handle.hpp>
#include <caf/io/system_messages.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "actors/host_clock.h"
#include "configs/topology.h"
#include "integration/transport/frame_assembler.h"
#include "integration/transport/sockets.h"
#include "runtime/cluster/ownership.h"
#include "runtime/sync/clock_map.h"
#include "schema/codec.h"

namespace foretoken {

inline constexpr uint32_t kNodeProtocolVersion = 1;

struct NodeAddress {
  std::string name;
  Address listen;
};

struct LinkCounts {
  uint64_t frames_in = 0, frames_out = 0, bytes_in = 0, bytes_out = 0;
  uint64_t connects = 0;           // sessions begun
  uint64_t disconnects = 0;        // sessions ended, for whatever reason
  uint64_t silent = 0;             // of those: no sign of life for dead_after
  uint64_t malformed = 0;          // connections that sent what is no frame
  uint64_t refused = 0;            // connections whose hello was wrong or missing
  uint64_t predicts_shed = 0;      // not asked for: the peer's buffer was full
  uint64_t buffers_overflown = 0;  // connections given up for that
  uint64_t unsent = 0;             // messages for a peer that is not connected
};

struct PeerStatus {
  std::string name;
  bool connected = false;
  std::optional<Duration> round_trip;
  size_t waiting_bytes = 0;
};

// Sent to the broker: what the resolver says of a peer's address.
struct ResolvedNote {
  NodeId peer;
  Result<Endpoint> endpoint;
};

// By the links to their broker: nothing more is in its mailbox, so that what is written by now should go.
struct FlushNote {};

class NodeLinks {
 public:
  struct Options {
    std::vector<NodeAddress> nodes;  // in the topology's order
    NodeId self;
    std::shared_ptr<const TlsContext> tls;  // null: plain
    Duration heartbeat = Duration::Millis(250);
    Duration dead_after = Duration::Seconds(2);
    Duration redial_min = Duration::Millis(20);
    Duration redial_max = Duration::Seconds(1);
    size_t shed_bytes = 1 << 20;
    size_t write_bytes_max = 16 << 20;
    size_t strangers_max = 64;  // connections that have not said who they are
    DecodeLimits limits;
    // Limits how many lines it writes: a hostile peer must not fill a disk.
    std::function<void(const std::string&)> log;
  };
  class Events {
   public:
    virtual ~Events() = default;
    virtual NodeHello Hello() = 0;  // what we say of ourselves; name, version and time are filled in by the links
    virtual void OnPeerUp(NodeId peer, const NodeHello& hello) = 0;
    virtual void OnPeerDown(NodeId peer) = 0;
    // Times are on our clock already.
    virtual void OnMessage(NodeId peer, Message& message) = 0;
    virtual void OnControl(caf::io::connection_handle from, ControlRequest& request) = 0;
  };

  NodeLinks(caf::io::broker* self, HostClock clock, Options options, Events& events);

  // Error: the address, and why not. The port.
  Result<uint16_t> Listen();
  // Begins to dial, and to beat. Call Tick when Next() has come.
  void Tick(Instant now);
  Instant Next() const { return next_; }

  bool Connected(NodeId peer) const { return peers_[peer.value()].connection.has_value(); }
  bool MayPredict(NodeId peer);
  // False: it is not connected (counted), or the message does not fit in a frame.
  bool Send(NodeId peer, const Message& message);
  void Reply(caf::io::connection_handle to, const ControlReply& reply);

  void On(const caf::io::new_connection_msg& m);
  void On(const caf::io::new_data_msg& m);
  void On(const caf::io::connection_closed_msg& m);
  void On(const TlsReady& ready);
  void On(const ResolvedNote& note) { OnResolved(note.peer, note.endpoint); }
  void Flush();

  const LinkCounts& counts() const { return counts_; }
  std::vector<PeerStatus> Peers() const;

 private:
  using Handle = caf::io::connection_handle;
  struct Connection {
    FrameAssembler assembler{kFrameBytesMax};
    std::shared_ptr<TlsSession> tls;
    std::optional<NodeId> dialled;  // whom we meant to reach
    std::optional<NodeId> peer;     // who it is: its hello was right
    bool control = false;           // a command, not a node
    bool greeted = false;           // our hello is on its way
    bool unflushed = false;         // listed in unflushed_
    Instant opened;
    Instant heard;
    ClockMap clock;
    Duration offset;  // ours - theirs
    uint64_t beats = 0;
    Instant next_beat;
    std::optional<NodeHeartbeat> last_beat;
    Instant last_beat_at;
    std::optional<Duration> round_trip;
  };
  struct Peer {
    std::optional<Handle> connection;  // with a right hello
    bool dialling = false;
    Instant next_dial;
    Duration pause;
  };

  void Dial(uint32_t peer, Instant now);
  void OnResolved(NodeId peer, const Result<Endpoint>& endpoint);
  void SayHello(Handle handle, Instant now);
  void Beat(Handle handle, Connection& c, Instant now);
  bool Write(Handle handle, const Message& message);
  void Take(Handle handle, Connection& c, Message& message, Instant now);
  void TakeHello(Handle handle, Connection& c, const NodeHello& hello, Instant now);
  void TakeBeat(Connection& c, const NodeHeartbeat& beat, Instant now);
  // Says why in the log and forgets the connection.
  void Drop(Handle handle, const std::string& why);
  void Read(Handle handle, const std::vector<char>& bytes);
  void Forget(Handle handle);
  void Log(const std::string& line);

  caf::io::broker* self_;
  HostClock clock_;
  Options options_;
  Events& events_;
  std::unordered_map<Handle, Connection> connections_;
  std::vector<Peer> peers_;
  std::vector<Handle> unflushed_;  // written to since the last Flush
  bool reading_ = false;           // a Flush follows anyway
  Instant next_;
  LinkCounts counts_;
};

// Adds `offset` to every time in the message, without overflow. Hellos and heartbeats are left as they are.
void ShiftTimes(Message& message, Duration offset);

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::FlushNote)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::ResolvedNote)
