#include "runtime/eval/control_links.h"

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

#include "runtime/eval/message_bytes.h"

namespace foretoken {

bool HasControlLinks(const FaultPlan& plan) {
  return plan.Reaches(LinkRole::kScheduler, LinkRole::kSimulator) || plan.Reaches(LinkRole::kSimulator, LinkRole::kScheduler);
}

Result<Link> MakeControlLink(const FaultPlan& plan, size_t scheduler, const std::string& instance, bool to_simulator,
                             uint64_t seed) {
  const std::string name = std::to_string(scheduler);
  const LinkEnd outer{LinkRole::kScheduler, name}, inner{LinkRole::kSimulator, instance};
  const LinkEnd& from = to_simulator ? outer : inner;
  const LinkEnd& to = to_simulator ? inner : outer;
  const LinkFaults* faults = plan.FaultsOf(from, to);
  auto link = Link::Make(faults != nullptr ? *faults : LinkFaults{}, LinkSeed(seed, from, to));
  if (!link.ok()) return Error{"scheduler " + name + ", " + instance + ": " + link.error().message};
  return link;
}

Result<std::unique_ptr<ControlLinks>> ControlLinks::Make(const FaultPlan& plan, const std::vector<std::string>& instances,
                                                         size_t schedulers, uint64_t seed) {
  auto links = std::make_unique<ControlLinks>();
  links->instances_ = instances.size();
  for (size_t s = 0; s < schedulers; ++s)
    for (const std::string& instance : instances)
      for (const bool forth : {true, false}) {
        auto link = MakeControlLink(plan, s, instance, forth, seed);
        if (!link.ok()) return link.error();
        (forth ? links->calls_ : links->replies_).push_back(std::move(link).value());
      }
  return links;
}

bool ControlLinks::Due::operator>(const Due& o) const { return std::tie(at, rank, order) > std::tie(o.at, o.rank, o.order); }

void ControlLinks::Push(Due due) {
  due.order = sent_++;
  due_.push_back(std::move(due));
  std::push_heap(due_.begin(), due_.end(), std::greater<>());
}

Deliveries ControlLinks::Call(size_t scheduler, InstanceId instance, Instant now) {
  const Deliveries deliveries = calls_[scheduler * instances_ + instance.value()].OnMessage(now, kSmallMessageBytes);
  for (const Instant at : deliveries) {
    call_times_.push_back(at);
    std::push_heap(call_times_.begin(), call_times_.end(), std::greater<>());
  }
  return deliveries;
}

void ControlLinks::Reply(InstanceId instance, const ControlEvent& reply, Instant now) {
  Link& link = replies_[reply.scheduler * instances_ + instance.value()];
  for (const Instant at : link.OnMessage(now, kSmallMessageBytes)) Push({at, instance.value(), 0, reply});
}

void ControlLinks::At(Instant at, ControlEvent deadline) {
  Push({at, static_cast<uint32_t>(instances_ + deadline.scheduler), 0, std::move(deadline)});
}

Instant ControlLinks::Next() const {
  const Instant call = call_times_.empty() ? Instant::Max() : call_times_.front();
  return due_.empty() ? call : std::min(call, due_.front().at);
}

void ControlLinks::CallsDelivered(Instant until) {
  while (!call_times_.empty() && call_times_.front() <= until) {
    std::pop_heap(call_times_.begin(), call_times_.end(), std::greater<>());
    call_times_.pop_back();
  }
}

bool ControlLinks::Take(Instant until, ControlEvent& event, Instant& at) {
  if (due_.empty() || due_.front().at > until) return false;
  std::pop_heap(due_.begin(), due_.end(), std::greater<>());
  at = due_.back().at;
  event = std::move(due_.back().event);
  due_.pop_back();
  return true;
}

LinkCounters ControlLinks::counters() const {
  LinkCounters sum;
  for (const auto* links : {&calls_, &replies_})
    for (const Link& l : *links) Add(sum, l.counters());
  return sum;
}

}  // namespace foretoken
