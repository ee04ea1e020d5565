#include "runtime/cluster/roster.h"

#include <charconv>
#include <utility>

namespace foretoken {

Roster::Roster(std::vector<RosterMember> members, size_t nodes)
    : topology_(static_cast<uint32_t>(members.size())), nodes_(static_cast<uint32_t>(nodes)) {
  for (RosterMember& m : members) entries_.push_back({std::move(m), false});
}

Roster::Entry& Roster::At(InstanceId instance) {
  if (instance.value() >= entries_.size()) entries_.resize(instance.value() + 1);
  return entries_[instance.value()];
}

// Each node has the numbers of its own remainder, so that no two nodes give the same and tables stay dense.
Result<InstanceId> Roster::Fresh(NodeId self) const {
  const uint32_t used = size() > topology_ ? size() - topology_ : 0;  // numbers of all nodes up to the highest heard of
  const uint32_t round = (used + nodes_ - 1 - self.value()) / nodes_;
  if (round >= kNumbersPerNode)
    return Error{"all " + std::to_string(kNumbersPerNode) + " numbers have been given: restart the whole cluster"};
  return InstanceId(topology_ + round * nodes_ + self.value());
}

Result<bool> Roster::Join(const RosterMember& m) {
  const uint32_t number = m.instance.value();
  if (number >= limit() || m.engine.value() >= nodes_ || m.simulator.value() >= nodes_ || m.kind.value() >= topology_ ||
      m.name.empty() || m.name.size() > 200)
    return Error{"no such instance can be"};
  if (number < topology_) return Error{"instance " + std::to_string(number) + " is the topology's"};
  if ((number - topology_) % nodes_ != m.engine.value())
    return Error{"number " + std::to_string(number) + " is another node's to give"};
  Entry& e = At(m.instance);
  if (e.gone) return false;
  if (!e.member) {
    e.member = m;
    return true;
  }
  const RosterMember& known = *e.member;
  if (known.name != m.name || known.kind != m.kind || known.simulator != m.simulator)
    return Error{"number " + std::to_string(number) + " is that of " + known.name + ": " + m.name + " is not used"};
  return false;
}

bool Roster::Leave(InstanceId instance) {
  if (instance.value() >= limit()) return false;
  Entry& e = At(instance);
  if (e.gone) return false;
  e = {std::nullopt, true};
  return true;
}

const RosterMember* Roster::Find(InstanceId instance) const {
  if (instance.value() >= entries_.size() || !entries_[instance.value()].member) return nullptr;
  return &*entries_[instance.value()].member;
}

const RosterMember* Roster::Named(std::string_view text) const {
  for (const Entry& e : entries_)
    if (e.member && e.member->name == text) return &*e.member;
  uint32_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  return ec == std::errc() && end == text.data() + text.size() ? Find(InstanceId(number)) : nullptr;
}

bool Roster::IsGone(InstanceId instance) const { return instance.value() < entries_.size() && entries_[instance.value()].gone; }

std::vector<InstanceId> Roster::Gone() const {
  std::vector<InstanceId> out;
  for (uint32_t i = 0; i < entries_.size(); ++i)
    if (entries_[i].gone) out.emplace_back(i);
  return out;
}

}  // namespace foretoken
