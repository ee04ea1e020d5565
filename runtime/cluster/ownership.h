// Ownership of SIMULATORs between nodes. The node that runs an INSTANCE is the only one that says who owns its SIMULATOR, and says so
// under a term that grows: so there is never more than one owner of a term, and of two claims the higher term is right, in whatever
// order they are heard. No vote is needed: without its INSTANCE a SIMULATOR has nothing to mirror.
//
// OwnershipView: what a node has heard. OwnershipArbiter: the decisions of the node that runs INSTANCEs.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"

namespace foretoken {

// Index of a node in the topology.
using NodeId = Id<struct NodeIdTag, uint32_t>;

struct Ownership {
  InstanceId instance;
  NodeId owner;
  uint64_t term = 1;
  bool operator==(const Ownership&) const = default;
};

class OwnershipView {
 public:
  // `homes`: by instance, the owner that the topology names; it owns under term 1.
  explicit OwnershipView(const std::vector<NodeId>& homes);

  // One that joins at run time.
  void Add(InstanceId instance, NodeId home);
  // True: it is news. False: known already, or older than what is known (counted).
  bool Learn(const Ownership& claim);
  const Ownership& Of(InstanceId instance) const { return now_[instance.value()]; }
  // Whether an answer of `from` under `term` is the owner's. An older term's is counted.
  bool Accepts(InstanceId instance, NodeId from, uint64_t term);

  uint64_t refused_by_term() const { return refused_; }

 private:
  std::vector<Ownership> now_;
  uint64_t refused_ = 0;
};

class OwnershipArbiter {
 public:
  struct Options {
    NodeId self;
    size_t nodes = 1;
    Duration start_grace = Duration::Seconds(2);  // how long a home may take to appear after our start
    // How long a home must have been back before it owns again: one that restarts in a loop does not drag the mirror with it.
    Duration return_after = Duration::Seconds(2);
  };
  struct Hosted {
    InstanceId instance;
    NodeId home;
  };

  // `now`: of the node's start.
  OwnershipArbiter(Options options, std::vector<Hosted> hosted, Instant now);

  // One that joins here at run time, or has left.
  void Add(Hosted hosted) { entries_.push_back({{hosted.instance, hosted.home, 1}, hosted.home, 0}); }
  void Remove(InstanceId instance);
  void OnPeerUp(NodeId node, Instant now);
  void OnPeerDown(NodeId node, Instant now);
  // A peer has heard of a term: after a restart of ours, what we say next must be above it.
  void OnHeard(InstanceId instance, uint64_t term);

  // What has changed: to be told to all, in this order. Call after every event and when Next() has come.
  std::vector<Ownership> Decide(Instant now);
  // When Decide may have something to say without another event; Instant::Max(): never.
  Instant Next() const;
  // What stands, for a peer that has just come.
  std::vector<Ownership> Standing() const;

 private:
  struct Entry {
    Ownership now;
    NodeId home;
    uint64_t heard = 0;
  };
  struct Peer {
    bool up = false;
    bool seen = false;
    Instant since;
  };

  bool Alive(NodeId node, Instant now) const;
  bool MayReturn(NodeId home, Instant now) const;

  Options options_;
  Instant started_;
  std::vector<Entry> entries_;
  std::vector<Peer> peers_;
};

}  // namespace foretoken
