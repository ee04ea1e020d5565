#include "integration/transport/node_links.h"

#include <algorithm>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <span>
#include <utility>

namespace foretoken {
namespace {

constexpr size_t kReadBytes = 16 << 10;  // per read: many frames at once when they come fast; CAF clears as much each time
constexpr Duration kControlIdle = Duration::Seconds(60);
constexpr int64_t kTimeBound = int64_t{1} << 61;  // 73 years: sums of two such times do not overflow

bool Sane(Instant at) { return at.nanos() > -kTimeBound && at.nanos() < kTimeBound; }

// Asks the system's resolver, in a thread of its own: it may block for seconds.
caf::behavior Resolver(caf::event_based_actor* self, const Address& address, NodeId peer, const caf::actor& asker) {
  self->send(asker, ResolvedNote{peer, ResolveAddress(address)});
  self->quit();
  return {};
}

}  // namespace

NodeLinks::NodeLinks(caf::io::broker* self, HostClock clock, Options options, Events& events)
    : self_(self), clock_(clock), options_(std::move(options)), events_(events), peers_(options_.nodes.size()) {}

Result<uint16_t> NodeLinks::Listen() {
  next_ = clock_.Now();
  return ListenOn(self_, options_.nodes[options_.self.value()].listen, options_.tls,
                  [this](OpenedConnection opened) { connections_[opened.handle].tls = std::move(opened.tls); });
}

void NodeLinks::Tick(Instant now) {
  std::vector<std::pair<Handle, std::string>> drop;
  for (auto& [handle, c] : connections_) {
    if (!c.peer) {
      if (now - (c.control ? c.heard : c.opened) >= (c.control ? kControlIdle : options_.dead_after))
        drop.emplace_back(handle, "");
    } else if (now - c.heard >= options_.dead_after) {
      ++counts_.silent;
      drop.emplace_back(handle, "node " + options_.nodes[c.peer->value()].name + " is silent");
    } else if (now >= c.next_beat) {
      Beat(handle, c, now);
    }
  }
  for (const auto& [handle, why] : drop) Drop(handle, why);
  // The later one of a pair dials.
  for (uint32_t p = 0; p < options_.self.value(); ++p)
    if (!peers_[p].connection && !peers_[p].dialling && now >= peers_[p].next_dial) Dial(p, now);
  next_ = now + Duration::Nanos(std::min(options_.heartbeat.nanos(), options_.redial_max.nanos()) / 4);
  for (uint32_t p = 0; p < options_.self.value(); ++p)
    if (!peers_[p].connection && !peers_[p].dialling) next_ = std::min(next_, std::max(now, peers_[p].next_dial));
}

void NodeLinks::Dial(uint32_t peer, Instant now) {
  Peer& p = peers_[peer];
  p.dialling = true;
  p.pause = std::min(options_.redial_max, std::max(options_.redial_min, p.pause * 2));
  p.next_dial = now + p.pause;
  const Address& to = options_.nodes[peer].listen;
  if (IsNumeric(to)) return OnResolved(NodeId(peer), ResolveAddress(to));
  self_->system().spawn<caf::detached>(Resolver, to, NodeId(peer), caf::actor_cast<caf::actor>(self_));
}

void NodeLinks::OnResolved(NodeId peer, const Result<Endpoint>& endpoint) {
  Peer& p = peers_[peer.value()];
  if (p.connection) return;
  auto opened = endpoint.ok() ? DialTo(self_, *endpoint, options_.tls, options_.nodes[peer.value()].name)
                              : Result<OpenedConnection>(endpoint.error());
  if (!opened.ok()) {
    p.dialling = false;
    return Log("node " + options_.nodes[peer.value()].name + ": " + opened.error().message);
  }
  const Instant now = clock_.Now();
  Connection& c = connections_[opened->handle];
  c.tls = opened->tls;
  c.dialled = peer;
  c.opened = c.heard = now;
  self_->configure_read(opened->handle, caf::io::receive_policy::at_most(kReadBytes));
  if (c.tls == nullptr) SayHello(opened->handle, now);
}

void NodeLinks::On(const caf::io::new_connection_msg& m) {
  const auto strangers = std::count_if(connections_.begin(), connections_.end(),
                                       [](const auto& c) { return !c.second.peer && !c.second.dialled; });
  Connection& c = connections_[m.handle];
  c.opened = c.heard = clock_.Now();
  if (static_cast<size_t>(strangers) >= options_.strangers_max) {
    ++counts_.refused;
    return Drop(m.handle, "too many connections that do not say who they are");
  }
  self_->configure_read(m.handle, caf::io::receive_policy::at_most(kReadBytes));
  if (c.tls == nullptr) SayHello(m.handle, c.opened);
}

void NodeLinks::On(const TlsReady& ready) {
  const auto at = connections_.find(ready.handle);
  if (at != connections_.end() && at->second.tls != nullptr && at->second.tls->ready()) SayHello(ready.handle, clock_.Now());
}

void NodeLinks::On(const caf::io::connection_closed_msg& m) { Forget(m.handle); }

void NodeLinks::On(const caf::io::new_data_msg& m) {
  reading_ = true;
  Read(m.handle, m.buf);
  reading_ = false;
  Flush();
}

void NodeLinks::Read(Handle handle, const std::vector<char>& bytes) {
  const auto at = connections_.find(handle);
  if (at == connections_.end()) return;
  const Instant now = clock_.Now();
  at->second.heard = now;
  counts_.bytes_in += bytes.size();
  at->second.assembler.Append(std::as_bytes(std::span(bytes)));
  for (;;) {
    // What a frame brings about may have ended the connection.
    const auto here = connections_.find(handle);
    if (here == connections_.end()) return;
    Connection& c = here->second;
    const std::span<const std::byte> frame = c.assembler.Next();
    if (frame.empty()) {
      if (c.assembler.broken_rule().empty()) return;
      ++counts_.malformed;
      return Drop(handle, "not a frame: " + std::string(c.assembler.broken_rule()));
    }
    ++counts_.frames_in;
    auto message = Decode(frame, options_.limits);
    if (!message.ok()) {
      ++counts_.malformed;
      return Drop(handle, message.error().message);
    }
    Take(handle, c, *message, now);
  }
}

void NodeLinks::Take(Handle handle, Connection& c, Message& message, Instant now) {
  if (const auto* hello = std::get_if<NodeHello>(&message)) return TakeHello(handle, c, *hello, now);
  if (c.control) {
    if (auto* request = std::get_if<ControlRequest>(&message)) return events_.OnControl(handle, *request);
  } else if (c.peer) {
    if (const auto* beat = std::get_if<NodeHeartbeat>(&message)) {
      if (Sane(beat->at) && (!beat->echo || Sane(*beat->echo))) return TakeBeat(c, *beat, now);
    } else {
      ShiftTimes(message, c.offset);
      return events_.OnMessage(*c.peer, message);
    }
  }
  ++counts_.refused;
  Drop(handle, "a " + std::string(NameOf(message)) + " where none may come");
}

void NodeLinks::TakeHello(Handle handle, Connection& c, const NodeHello& hello, Instant now) {
  const auto refuse = [&](const std::string& why) {
    ++counts_.refused;
    Drop(handle, "node \"" + hello.node.substr(0, 64) + "\": " + why);
  };
  if (c.peer || c.control) return refuse("a second hello");
  if (hello.protocol_version != kNodeProtocolVersion)
    return refuse("speaks protocol version " + std::to_string(hello.protocol_version) + ", this one " +
                  std::to_string(kNodeProtocolVersion) + ": run the same release");
  if (!Sane(hello.at)) return refuse("an impossible time");
  SayHello(handle, now);
  if (hello.roles.size() == 1 && hello.roles.front() == "control") {
    c.control = true;
    return;
  }
  const auto known = std::find_if(options_.nodes.begin(), options_.nodes.end(),
                                  [&hello](const NodeAddress& n) { return n.name == hello.node; });
  if (known == options_.nodes.end()) return refuse("not in the topology");
  const NodeId peer(static_cast<uint32_t>(known - options_.nodes.begin()));
  if (c.dialled ? *c.dialled != peer : peer <= options_.self) return refuse("another node was meant");
  if (c.tls != nullptr && !c.tls->PeerIs(hello.node)) return refuse("its certificate is not issued to that name");
  if (const auto older = peers_[peer.value()].connection) Drop(*older, "node " + hello.node + " has come anew");
  Connection& mine = connections_[handle];  // unmoved by the drop; looked up again all the same
  mine.peer = peer;
  mine.heard = now;
  mine.clock.OnReceived(hello.at, now);
  mine.offset = mine.clock.ToRouter(Instant(), now) - Instant();
  mine.next_beat = now;
  Peer& p = peers_[peer.value()];
  p.connection = handle;
  p.dialling = false;
  p.pause = Duration();
  ++counts_.connects;
  Log("connected to node " + hello.node);
  Beat(handle, mine, now);
  events_.OnPeerUp(peer, hello);
}

void NodeLinks::TakeBeat(Connection& c, const NodeHeartbeat& beat, Instant now) {
  c.clock.OnReceived(beat.at, now);
  if (beat.echo) {
    c.clock.OnEcho(*beat.echo, beat.at - beat.echo_held, now);
    c.round_trip = now - *beat.echo - beat.echo_held;
  }
  c.offset = c.clock.ToRouter(Instant(), now) - Instant();
  c.last_beat = beat;
  c.last_beat_at = now;
}

void NodeLinks::Beat(Handle handle, Connection& c, Instant now) {
  NodeHeartbeat beat;
  beat.count = c.beats++;
  beat.at = now;
  if (c.last_beat) {
    beat.echo = c.last_beat->at;
    beat.echo_held = now - c.last_beat_at;
  }
  c.next_beat = now + options_.heartbeat;
  Write(handle, beat);
}

// Once per connection, before anything else: a peer's hello may come before our TlsReady does.
void NodeLinks::SayHello(Handle handle, Instant now) {
  if (std::exchange(connections_[handle].greeted, true)) return;
  NodeHello hello = events_.Hello();
  hello.protocol_version = kNodeProtocolVersion;
  hello.node = options_.nodes[options_.self.value()].name;
  hello.at = now;
  Write(handle, hello);
}

bool NodeLinks::MayPredict(NodeId peer) {
  const auto& connection = peers_[peer.value()].connection;
  if (!connection) return false;
  if (self_->wr_buf(*connection).size() < options_.shed_bytes) return true;
  ++counts_.predicts_shed;
  return false;
}

bool NodeLinks::Send(NodeId peer, const Message& message) {
  const auto& connection = peers_[peer.value()].connection;
  if (connection && Write(*connection, message)) return true;
  ++counts_.unsent;
  return false;
}

void NodeLinks::Reply(Handle to, const ControlReply& reply) {
  const auto at = connections_.find(to);
  if (at != connections_.end() && at->second.control) Write(to, reply);
}

bool NodeLinks::Write(Handle handle, const Message& message) {
  const auto frame = Encode(message);
  if (!frame.ok()) {
    Log("a " + std::string(NameOf(message)) + " is not sent: " + frame.error().message);
    return false;
  }
  std::vector<char>& out = self_->wr_buf(handle);
  if (out.size() + frame->size() > options_.write_bytes_max) {
    ++counts_.buffers_overflown;
    Drop(handle, "does not read what it is sent");
    return false;
  }
  const char* begin = reinterpret_cast<const char*>(frame->data());
  out.insert(out.end(), begin, begin + frame->size());
  ++counts_.frames_out;
  counts_.bytes_out += frame->size();
  Connection& c = connections_[handle];
  if (std::exchange(c.unflushed, true)) return true;
  if (unflushed_.empty() && !reading_) self_->send(self_, FlushNote{});
  unflushed_.push_back(handle);
  return true;
}

void NodeLinks::Flush() {
  for (const Handle& handle : unflushed_) {
    const auto at = connections_.find(handle);
    if (at == connections_.end()) continue;
    at->second.unflushed = false;
    self_->flush(handle);
  }
  unflushed_.clear();
}

void NodeLinks::Drop(Handle handle, const std::string& why) {
  if (!why.empty()) Log("connection closed: " + why);
  self_->flush(handle);  // it may be told why, or who we are
  self_->close(handle);
  Forget(handle);
}

void NodeLinks::Forget(Handle handle) {
  const auto at = connections_.find(handle);
  if (at == connections_.end()) return;
  const std::optional<NodeId> dialled = at->second.dialled, peer = at->second.peer;
  connections_.erase(at);
  if (dialled) peers_[dialled->value()].dialling = false;
  if (!peer) return;
  peers_[peer->value()].connection.reset();
  peers_[peer->value()].next_dial = clock_.Now();
  next_ = clock_.Now();
  ++counts_.disconnects;
  Log("lost node " + options_.nodes[peer->value()].name);
  events_.OnPeerDown(*peer);
}

std::vector<PeerStatus> NodeLinks::Peers() const {
  std::vector<PeerStatus> all;
  for (uint32_t p = 0; p < peers_.size(); ++p) {
    if (NodeId(p) == options_.self) continue;
    PeerStatus s{options_.nodes[p].name, peers_[p].connection.has_value(), {}, 0};
    if (s.connected) {
      s.round_trip = connections_.at(*peers_[p].connection).round_trip;
      s.waiting_bytes = self_->wr_buf(*peers_[p].connection).size();
    }
    all.push_back(std::move(s));
  }
  return all;
}

void NodeLinks::Log(const std::string& line) {
  if (options_.log) options_.log(line);
}

}  // namespace foretoken
