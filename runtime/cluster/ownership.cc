#include "runtime/cluster/ownership.h"

#include <algorithm>
#include <utility>

namespace foretoken {

OwnershipView::OwnershipView(const std::vector<NodeId>& homes) {
  for (uint32_t i = 0; i < homes.size(); ++i) now_.push_back({InstanceId(i), homes[i], 1});
}

void OwnershipView::Add(InstanceId instance, NodeId home) {
  while (now_.size() <= instance.value()) now_.push_back({InstanceId(static_cast<uint32_t>(now_.size())), home, 0});
  if (now_[instance.value()].term == 0) now_[instance.value()] = {instance, home, 1};
}

bool OwnershipView::Learn(const Ownership& claim) {
  Ownership& known = now_[claim.instance.value()];
  if (claim.term < known.term) ++refused_;
  if (claim.term <= known.term) return false;
  known = claim;
  return true;
}

bool OwnershipView::Accepts(InstanceId instance, NodeId from, uint64_t term) {
  const Ownership& known = Of(instance);
  if (known.owner == from && known.term == term) return true;
  ++refused_;
  return false;
}

OwnershipArbiter::OwnershipArbiter(Options options, std::vector<Hosted> hosted, Instant now)
    : options_(options), started_(now), peers_(options.nodes) {
  for (const Hosted& h : hosted) entries_.push_back({{h.instance, h.home, 1}, h.home, 0});
}

void OwnershipArbiter::Remove(InstanceId instance) {
  std::erase_if(entries_, [instance](const Entry& e) { return e.now.instance == instance; });
}

void OwnershipArbiter::OnPeerUp(NodeId node, Instant now) { peers_[node.value()] = {true, true, now}; }

void OwnershipArbiter::OnPeerDown(NodeId node, Instant now) { peers_[node.value()] = {false, true, now}; }

void OwnershipArbiter::OnHeard(InstanceId instance, uint64_t term) {
  for (Entry& e : entries_)
    if (e.now.instance == instance) e.heard = std::max(e.heard, term);
}

// A home that has not been seen since our start may still be starting.
bool OwnershipArbiter::Alive(NodeId node, Instant now) const {
  if (node == options_.self) return true;
  const Peer& peer = peers_[node.value()];
  return peer.up || (!peer.seen && now - started_ < options_.start_grace);
}

bool OwnershipArbiter::MayReturn(NodeId home, Instant now) const {
  const Peer& peer = peers_[home.value()];
  return peer.up && now - peer.since >= options_.return_after;
}

std::vector<Ownership> OwnershipArbiter::Decide(Instant now) {
  std::vector<Ownership> changed;
  for (Entry& e : entries_) {
    NodeId owner = e.now.owner;
    if (!Alive(owner, now)) {
      owner = options_.self;  // the stream begins here: nobody can be nearer to it
    } else if (owner != e.home && MayReturn(e.home, now)) {
      owner = e.home;
    }
    // A peer knows a term of ours that we do not remember: whoever owned under it must be outbid, even by the same owner.
    if (owner == e.now.owner && e.heard <= e.now.term) continue;
    e.now = {e.now.instance, owner, std::max(e.now.term, e.heard) + 1};
    changed.push_back(e.now);
  }
  return changed;
}

Instant OwnershipArbiter::Next() const {
  Instant next = Instant::Max();
  for (const Entry& e : entries_) {
    const Peer& home = peers_[e.home.value()];
    if (e.home == options_.self) continue;
    if (e.now.owner != e.home && home.up) next = std::min(next, home.since + options_.return_after);
    if (e.now.owner == e.home && !home.seen) next = std::min(next, started_ + options_.start_grace);
  }
  return next;
}

std::vector<Ownership> OwnershipArbiter::Standing() const {
  std::vector<Ownership> all;
  for (const Entry& e : entries_) all.push_back(e.now);
  return all;
}

}  // namespace foretoken
