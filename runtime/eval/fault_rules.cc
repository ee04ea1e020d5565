// Which rules of a fault plan the hosts of a run can follow.
#include <cmath>

#include "runtime/eval/virtual_host.h"
#include "runtime/sync/clock_map.h"

namespace foretoken {
namespace {

bool MayBe(const std::optional<LinkRole>& role, LinkRole is) { return role ? *role == is : is != LinkRole::kScheduler; }

// Between these two, in either direction.
bool Joins(const LinkRule& rule, LinkRole a, LinkRole b) {
  return (MayBe(rule.from, a) && MayBe(rule.to, b)) || (MayBe(rule.from, b) && MayBe(rule.to, a));
}

bool Loses(const LinkFaults& f) { return f.drop_probability > 0 || f.burst_loss || !f.partitions.empty(); }

Status CheckRule(const LinkRule& rule) {
  const bool known_ends = !(rule.from && (*rule.from == LinkRole::kGateway || *rule.from == LinkRole::kNode)) &&
                          !(rule.to && (*rule.to == LinkRole::kGateway || *rule.to == LinkRole::kNode));
  const bool stream = known_ends && Joins(rule, LinkRole::kInstance, LinkRole::kSimulator);
  const bool control = known_ends && Joins(rule, LinkRole::kScheduler, LinkRole::kSimulator);
  if (!stream && !control)
    return Error{": faults act on links between instance and simulator, and between scheduler and simulator, only"};
  if (control && Loses(rule.faults))
    return Error{": what a scheduler and a simulator say to each other is repeated until it arrives: give it a delay instead"};
  const ClockSkew& clock = rule.faults.clock;
  if (clock == ClockSkew{}) return Status();
  if (control || !MayBe(rule.from, LinkRole::kInstance))
    return Error{".clock: only an instance has a clock of its own: put it on the link from instance to simulator"};
  if (std::abs(clock.ppm) > kClockDriftMaxPpm)
    return Error{".clock.ppm: must be between -500 and 500, which is what the clock map allows for"};
  return Status();
}

}  // namespace

Status CheckFaultPlan(const FaultPlan& plan) {
  for (size_t k = 0; k < plan.links.size(); ++k) {
    const Status rule = CheckRule(plan.links[k]);
    if (!rule.ok()) return Error{"fault plan " + plan.name + ": links[" + std::to_string(k) + "]" + rule.error().message};
  }
  return Status();
}

}  // namespace foretoken
