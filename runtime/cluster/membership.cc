#include "runtime/cluster/membership.h"

#include <algorithm>
#include <charconv>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

constexpr size_t kNamesKept = 1000;

std::optional<uint32_t> NumberOf(std::string_view text) {
  uint32_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  return ec == std::errc() && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

}  // namespace

Membership::Member* Membership::Get(InstanceId id) {
  const auto at = members_.find(id);
  return at == members_.end() ? nullptr : &at->second;
}

const Membership::Member* Membership::Find(InstanceId id) const {
  const auto at = members_.find(id);
  return at == members_.end() ? nullptr : &at->second;
}

const Membership::Member* Membership::Find(std::string_view name) const {
  const Member* leaving = nullptr;
  for (const auto& [id, m] : members_) {
    if (m.name != name) continue;
    if (!m.leaving) return &m;
    leaving = &m;
  }
  return leaving;
}

Result<InstanceId> Membership::Named(std::string_view text) const {
  if (const Member* m = Find(text)) return m->id;
  const std::optional<uint32_t> number = NumberOf(text);
  if (number && Find(InstanceId(*number)) != nullptr) return InstanceId(*number);
  ++counters_.refused;
  const std::string what(text.substr(0, 200));
  if (HasLeft(text)) return Error{"worker " + what + " has left; its number is not used again"};
  std::string known;
  for (const auto& [id, m] : members_) {
    if (known.size() > 300) {
      known += ", ...";
      break;
    }
    known += (known.empty() ? "" : ", ") + std::to_string(id.value()) + " = " + m.name;
  }
  return Error{"there is no worker \"" + what + "\": there are " + (known.empty() ? "none" : known)};
}

bool Membership::HasLeft(std::string_view text) const {
  if (const auto number = NumberOf(text); number && *number < next_ && Find(InstanceId(*number)) == nullptr) return true;
  return Find(text) == nullptr && std::find(left_names_.begin(), left_names_.end(), text) != left_names_.end();
}

Membership::Change Membership::Add(const std::string& name, MemberSource source, InstanceId fresh_id) {
  if (const Member* there = Find(name)) {
    Member& m = *Get(there->id);
    const bool changed = m.leaving;
    if (changed) {
      m.leaving = false;
      m.state = InstanceState::kServing;
      ++counters_.joined;
    } else {
      ++counters_.repeated;
    }
    m.wanted_by |= Bit(source);
    return {m.id, changed, false};
  }
  FT_CHECK(fresh_id.value() >= next_);  // an id is one member's for ever
  next_ = fresh_id.value() + 1;
  members_.emplace(fresh_id, Member{fresh_id, name, InstanceState::kServing, Bit(source), false});
  ++counters_.joined;
  return {fresh_id, true, true};
}

Membership::Change Membership::Remove(InstanceId id, MemberSource source) {
  Member* m = Get(id);
  if (m == nullptr || m->leaving) {
    ++counters_.repeated;
    return {id, false, false};
  }
  m->wanted_by = source == MemberSource::kCommand ? 0 : m->wanted_by & ~Bit(source);
  if (m->wanted_by != 0) return {id, false, false};
  m->leaving = true;
  m->state = InstanceState::kDraining;
  ++counters_.left;
  return {id, true, false};
}

Result<Membership::Change> Membership::SetState(InstanceId id, InstanceState state) {
  Member* m = Get(id);
  FT_CHECK(m != nullptr);
  if (m->leaving && state != InstanceState::kDraining) {
    ++counters_.refused;
    return Error{"worker " + m->name + " is leaving: add it again if it is to stay"};
  }
  const bool changed = m->state != state;
  if (!changed) ++counters_.repeated;
  m->state = state;
  return Change{id, changed, false};
}

bool Membership::OnEmpty(InstanceId id) {
  Member* m = Get(id);
  if (m == nullptr || !m->leaving) return false;
  left_names_.push_back(m->name);
  if (left_names_.size() > kNamesKept) left_names_.pop_front();
  members_.erase(id);
  ++counters_.gone;
  return true;
}

void Membership::OnReplaced(InstanceId id) {
  Member* m = Get(id);
  if (m == nullptr) return;
  if (!m->leaving) ++counters_.left;
  m->leaving = true;
  m->state = InstanceState::kDraining;
  m->wanted_by = 0;
  m->name += " (replaced)";  // its name is another's now
}

Membership::Difference Membership::Compare(const std::vector<std::string>& names, MemberSource source) const {
  Difference d;
  for (const auto& [id, m] : members_)
    if (!m.leaving && (m.wanted_by & Bit(source)) != 0 && std::find(names.begin(), names.end(), m.name) == names.end())
      d.leave.push_back(id);
  for (const std::string& name : names) {
    const Member* m = Find(name);
    if (m == nullptr || m->leaving || (m->wanted_by & Bit(source)) == 0) d.join.push_back(name);
  }
  return d;
}

}  // namespace foretoken
