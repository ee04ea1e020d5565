#include "integration/serve/fault_switch.h"

#include <caf/send.hpp>
#include <memory>
#include <utility>

#include "actors/link.h"
#include "actors/protocol.h"
#include "integration/observe/observation_builder.h"
#include "runtime/base/nearest_name.h"
#include "runtime/fault/link.h"

namespace foretoken {
namespace {

constexpr Duration kDelayMost = Duration::Seconds(10);
constexpr Duration kKillMost = Duration::Seconds(600);
constexpr Duration kPassed = Duration::Millis(40);  // how long a message that is passed by others takes: some steps

Status Check(const FaultOrder& o) {
  if (o.delay && (*o.delay < Duration() || *o.delay > kDelayMost)) return Error{"delay must be 0 to 10 s"};
  for (const auto& [name, share] : {std::pair("reorder", o.reorder), std::pair("drop", o.drop)})
    if (share && !(*share >= 0 && *share <= 1)) return Error{std::string(name) + " must be a share from 0 to 1"};
  if (o.kill && (*o.kill <= Duration() || *o.kill > kKillMost)) return Error{"kill must be more than 0 s, at most 600"};
  if (!o.delay && !o.reorder && !o.drop && !o.kill && !o.heal)
    return Error{"nothing to do: give delay, reorder, drop, kill or heal"};
  return Status();
}

}  // namespace

void FaultSwitch::Attach(std::vector<std::string> names, std::vector<caf::actor> links, std::vector<caf::actor> instances) {
  const std::lock_guard lock(mutex_);
  names_ = std::move(names);
  links_ = std::move(links);
  instances_ = std::move(instances);
  faults_.assign(names_.size(), Faults());
}

void FaultSwitch::Detach() { Attach({}, {}, {}); }

Status FaultSwitch::Apply(const FaultOrder& order) {
  const Status checked = Check(order);
  if (!checked.ok()) return checked;
  const std::lock_guard lock(mutex_);
  bool found = false;
  for (size_t k = 0; k < names_.size(); ++k) {
    if (order.instance != "*" && order.instance != names_[k]) continue;
    found = true;
    Faults& f = faults_[k];
    if (order.heal) f = Faults{Duration(), 0, 0, f.down_until};
    f.delay = order.delay.value_or(f.delay);
    f.reorder = order.reorder.value_or(f.reorder);
    f.drop = order.drop.value_or(f.drop);
    LinkFaults faults;
    faults.delay.value = f.delay;
    faults.reorder_probability = f.reorder;
    faults.reorder_delay.value = kPassed;
    faults.drop_probability = f.drop;
    auto link = Link::Make(faults, ++seed_);
    if (!link.ok()) return link.error();
    caf::anon_send(links_[k], FaultCall{std::make_shared<const Link>(std::move(link).value())});
    if (!order.kill) continue;
    caf::anon_send(instances_[k], RestartCall{*order.kill});
    f.down_until = Clock::now() + std::chrono::nanoseconds(order.kill->nanos());
  }
  if (found) return Status();
  const std::string name = order.instance.substr(0, 80);
  return Error{"no instance \"" + name + "\": did you mean \"" +
               NearestName(name, std::vector<std::string_view>(names_.begin(), names_.end())) + "\"?"};
}

void FaultSwitch::Show(ObservationBuilder& builder) const {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  for (uint32_t k = 0; k < faults_.size() && k < builder.instances(); ++k) {
    const Faults& f = faults_[k];
    builder.SetFaults(InstanceId(k), f.delay, f.reorder, f.drop, now < f.down_until);
  }
}

}  // namespace foretoken
