//   A --any message--> LINK --the same, late, twice or not at all--> B
#include "actors/link.h"

#include <caf/all.hpp>
#include <utility>

#include "runtime/eval/message_bytes.h"

namespace foretoken {
namespace {

struct LinkState {
  std::unique_ptr<LinkActorOptions> options;
  Instant begun;        // of the present faults
  LinkCounters before;  // of those before
  static inline const char* name = "link";
};

int64_t BytesOf(const caf::message& message) {
  return message.match_elements<StreamCall>() ? MessageBytes(message.get_as<StreamCall>(0).message) : kSmallMessageBytes;
}

struct Setup {
  HostClock clock;
  LinkActorOptions options;
};

caf::behavior LinkBehavior(caf::stateful_actor<LinkState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.options = std::make_unique<LinkActorOptions>(std::move(setup->options));
  LinkActorOptions* options = self->state.options.get();
  self->set_default_handler(
      [self, options, clock = setup->clock](caf::scheduled_actor*, caf::message_view& view) -> caf::result<caf::message> {
        const caf::strong_actor_ptr sender = self->current_sender();
        const caf::message message = view.move_content_to_message();
        const auto to = caf::actor_cast<caf::strong_actor_ptr>(options->to);
        const Duration begun = self->state.begun - Instant();
        for (const Instant at : options->link.OnMessage(clock.Now() - begun, BytesOf(message)))
          clock.Deliver(at + begun, SlotClass::kDelivery, options->instance, to,
                        caf::make_mailbox_element(sender, caf::make_message_id(), caf::no_stages, message));
        return caf::delegated<caf::message>{};  // no answer from here
      });
  return {
      [self, options, clock = setup->clock](const FaultCall& call) {
        Add(self->state.before, options->link.counters());
        options->link = *call.link;
        self->state.begun = clock.Now();
      },
      [self, options](StatusQuery) {
        LinkCounters all = self->state.before;
        Add(all, options->link.counters());
        return all;
      },
  };
}

}  // namespace

caf::actor SpawnLink(caf::actor_system& system, const HostClock& clock, LinkActorOptions options) {
  return caf::actor(system.spawn(LinkBehavior, std::make_shared<Setup>(Setup{clock, std::move(options)})));
}

}  // namespace foretoken
