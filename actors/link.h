// The LINK actor: a fault model (runtime/fault) in front of any actor's mailbox. Whoever is given its handle instead of the
// receiver's sends through it: messages arrive late, out of order, twice or never, as the seeded plan says. Senders are kept, so
// replies go straight back; the reply direction is a LINK of its own. A message that arrives twice is shared, not copied.
#pragma once

#include <caf/fwd.hpp>
#include <memory>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "runtime/fault/link.h"

namespace foretoken {

struct LinkActorOptions {
  Link link;
  caf::actor to;
  size_t instance = 0;  // whose link: orders deliveries of one instant
};

// StatusQuery is answered with the link's LinkCounters.
// From the operator: other faults from now on; times in their windows count from now. What is on its way arrives as it would have.
struct FaultCall {
  std::shared_ptr<const Link> link;  // unused so far
};

caf::actor SpawnLink(caf::actor_system& system, const HostClock& clock, LinkActorOptions options);

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::FaultCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::LinkCounters)
