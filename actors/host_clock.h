// HostClock: the one way in which actors learn the time and are woken: Instants of the run's clock on top of CAF's clock, which is
// the monotonic one when live and SimCluster's in virtual time. Alarm: at most one pending wake-up of an actor.
//
// Order at one instant: an instant may be divided into slots, so that what falls on the same nanosecond happens in a defined order -
// engines first, then what links deliver, then timers, each by instance (of SCHEDULERs by number) - as in the plain virtual host. Live: one slot.
#pragma once

#include <algorithm>
#include <caf/actor_clock.hpp>
#include <caf/actor_system.hpp>
#include <caf/mailbox_element.hpp>
#include <caf/scheduled_actor.hpp>
#include <cstdint>
#include <utility>

#include "actors/protocol.h"
#include "runtime/base/units.h"

namespace foretoken {

enum class SlotClass : uint8_t { kEngine, kDelivery, kSimulatorTimer, kOther };

class HostClock {
 public:
  static constexpr int64_t kInstancesPerClass = 1024;
  static constexpr int64_t kSlots = 4 * kInstancesPerClass;  // int64 nanoseconds last 26 days

  // Instant 0 is now. `slots`: 1 or kSlots.
  HostClock(caf::actor_system& system, int64_t slots) : clock_(&system.clock()), zero_(clock_->now()), slots_(slots) {}

  // What CAF's clock said at Instant 0, in nanoseconds; live, that is the machine's monotonic clock.
  int64_t ZeroNanos() const { return Nanos(zero_.time_since_epoch()); }
  Instant Now() const { return Instant::FromNanos(Nanos(clock_->now() - zero_) / slots_); }

  // Delivers `element` at `at`, or as soon as possible when that has passed.
  void Deliver(Instant at, SlotClass slot, size_t instance, caf::strong_actor_ptr to, caf::mailbox_element_ptr element) const {
    clock_->schedule_message(PointOf(at, slot, instance), std::move(to), std::move(element));
  }
  caf::actor_clock::time_point PointOf(Instant at, SlotClass slot, size_t instance) const {
    const int64_t index = std::min<int64_t>(static_cast<int64_t>(instance), kInstancesPerClass - 1);
    const int64_t offset = slots_ == 1 ? 0 : static_cast<int64_t>(slot) * kInstancesPerClass + index;
    return zero_ + std::chrono::nanoseconds(at.nanos() * slots_ + offset);
  }
  // The last point of the instant.
  caf::actor_clock::time_point EndOf(Instant at) const {
    return zero_ + std::chrono::nanoseconds(at.nanos() * slots_ + slots_ - 1);
  }

 private:
  static int64_t Nanos(caf::actor_clock::duration_type d) { return std::chrono::nanoseconds(d).count(); }

  caf::actor_clock* clock_;
  caf::actor_clock::time_point zero_;
  int64_t slots_;
};

// A Tick comes at or before every instant asked for; the owner checks what is due and arms again. Arming costs nothing while an
// earlier Tick is pending.
class Alarm {
 public:
  Alarm(caf::scheduled_actor* self, HostClock clock, SlotClass slot, size_t instance)
      : self_(self), clock_(clock), slot_(slot), instance_(instance) {}

  void Arm(Instant at) {
    if (at >= pending_ || at == Instant::Max()) return;
    pending_ = at;
    const caf::strong_actor_ptr me(self_->ctrl());
    clock_.Deliver(at, slot_, instance_, me, caf::make_mailbox_element(me, caf::make_message_id(), caf::no_stages, Tick{at}));
  }
  void Fired(const Tick& tick) {
    if (tick.at == pending_) pending_ = Instant::Max();
  }
  void Rearm(const Tick& tick, Instant at) {
    Fired(tick);
    Arm(at);
  }

 private:
  caf::scheduled_actor* self_;
  HostClock clock_;
  SlotClass slot_;
  size_t instance_;
  Instant pending_ = Instant::Max();
};

}  // namespace foretoken
