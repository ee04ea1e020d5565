//   NODE <==frames==> NODE     SCHEDULERs, INSTANCEs --their messages--> NODE     control <--ControlCall, ControlAnswer--> NODE
#include "integration/transport/node.h"

#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <future>
#include <utility>

#include "integration/transport/node_router.h"

namespace foretoken {
namespace {

struct NodeState {
  std::unique_ptr<NodeRouter> router;
  static inline const char* name = "node";
};

struct Setup {
  HostClock clock;
  NodeOptions options;
  std::promise<Status> started;
};

caf::behavior Node(caf::stateful_actor<NodeState, caf::io::broker>* self, const std::shared_ptr<Setup>& setup) {
  self->state.router = std::make_unique<NodeRouter>(self, setup->clock, std::move(setup->options));
  NodeRouter* router = self->state.router.get();
  Status started = router->Start();
  const bool ok = started.ok();
  setup->started.set_value(std::move(started));
  if (!ok) {
    self->quit();
    return {};
  }
  const auto sender = [self] { return caf::actor_cast<caf::actor>(self->current_sender()); };
  return {
      [router](const caf::io::new_data_msg& m) { router->links().On(m); },
      [router, sender](const PredictCall& call) { router->On(call, sender()); },
      [router, sender](const EnqueueCall& call) { router->On(call, sender()); },
      [router](StreamCall& call) { router->On(call); },
      [router, sender](const DispatchCall& call) { router->On(call, sender()); },
      [router](const TokenEvent& event) { router->On(event); },
      [router](const RequestOutcome& outcome) { router->On(outcome); },
      [router](const Cancel& cancel) { router->On(cancel); },
      [router, sender](const ScheduleCall& call) { router->On(call, sender()); },
      [router](const WithdrawCall& call) { router->On(call); },
      [router](const DecisionNote& note) { router->On(note); },
      [router](const RejectNote& note) { router->On(note); },
      [router](DrainCall) { router->On(DrainCall{}); },
      [router](FlushNote) { router->links().Flush(); },
      [router](const Tick& tick) { router->On(tick); },
      [router](const caf::io::new_connection_msg& m) { router->links().On(m); },
      [router](const caf::io::connection_closed_msg& m) { router->links().On(m); },
      [](const caf::io::acceptor_closed_msg&) {},
      [router](const TlsReady& ready) { router->links().On(ready); },
      [router](const ResolvedNote& note) { router->links().On(note); },
      [router](const ControlAnswer& answer) { router->On(answer); },
      [router](const AttachCall& call) { router->On(call); },
      [router](const MemberCall& call) { router->On(call); },
      [router](const AddInstanceCall& call) { return router->On(call); },
      [router](const LeftCall& call) { router->On(call); },
      [router](const FollowCall& call) { router->On(call); },
      [router](NodeQuery) { return router->Query(); },
      [router](WatchQuery) { return router->Watched(); },
  };
}

caf::behavior InNetworkThread(caf::io::broker* self, const std::function<caf::behavior(caf::scheduled_actor*)>& behavior) {
  return behavior(self);
}

}  // namespace

std::function<caf::actor(std::function<caf::behavior(caf::scheduled_actor*)>)> BesideNode(caf::actor_system& system) {
  return [&system](std::function<caf::behavior(caf::scheduled_actor*)> behavior) {
    return system.middleman().spawn_broker(InNetworkThread, std::move(behavior));
  };
}

Result<caf::actor> SpawnNode(caf::actor_system& system, const HostClock& clock, NodeOptions options) {
  auto setup = std::make_shared<Setup>(Setup{clock, std::move(options), {}});
  std::future<Status> started = setup->started.get_future();
  const caf::actor node = system.middleman().spawn_broker(Node, setup);
  const Status status = started.get();
  if (!status.ok()) return status.error();
  return node;
}

}  // namespace foretoken
