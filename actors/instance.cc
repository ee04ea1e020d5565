//   SCHEDULER --DispatchCall, Cancel--> INSTANCE --StreamCall--> [LINK] --> SIMULATOR
//   INSTANCE --TokenEvent, RequestOutcome--> SCHEDULER of the request, its client; RequestOutcome also --> SIMULATOR
//   SIMULATOR --ResyncRequest, HeartbeatReply--> [LINK] --> INSTANCE
#include "actors/instance.h"

#include <caf/all.hpp>
#include <utility>

#include "runtime/base/id_map.h"

namespace foretoken {
namespace {

class InstanceShell final : private InstanceEffects {
 public:
  InstanceShell(caf::event_based_actor* self, const HostClock& clock, InstanceActorOptions options)
      : self_(self),
        clock_(clock),
        options_(std::move(options)),
        alarm_(self, clock, SlotClass::kEngine, options_.instance.value()) {}

  void On(const ConnectCall& call) {
    connected_ = call;
    Arm();
  }
  void On(const DispatchCall& call, const caf::strong_actor_ptr& scheduler) {
    const RequestId id = call.request->id;
    // Ids are the router's and unique; one that is held already is a repetition, or another SCHEDULER has taken it over before this one
    // has given it up: it is to place it elsewhere.
    const caf::actor from = caf::actor_cast<caf::actor>(scheduler);
    if (!owners_.Insert(id.value(), Owner{call.client, from})) {
      if (from && owners_.Find(id.value())->scheduler != from)
        self_->send(from, RequestOutcome{id, options_.instance, OutcomeKind::kFailed, OutcomeReason::kShed, {}, clock_.Now()});
      return;
    }
    Advance();
    core()->OnDispatch(options_.for_engine(*call.request), clock_.Now(), *this);
    Arm();
  }
  void On(const Cancel& cancel) {
    Advance();
    if (const Owner* owner = owners_.Find(cancel.request.value())) {
      core()->OnCancel(cancel.request, clock_.Now(), *this);
      End(*owner, {cancel.request, options_.instance, OutcomeKind::kCancelled, cancel.reason, TokenCount(), clock_.Now()},
          true);
    }
    Arm();
  }
  void On(const ResyncRequest&) {
    core()->OnResyncRequest(clock_.Now(), *this);
    Arm();
  }
  void On(const HeartbeatReply& reply) { core()->OnHeartbeatReply(reply.epoch, reply.sent, clock_.Now()); }
  void On(const RestartCall& call) {
    core()->OnRestart(clock_.Now(), call.downtime, *this);
    Arm();
  }
  void On(const Tick& tick) {
    alarm_.Fired(tick);
    Advance();
    Arm();
  }
  InstanceStatus Status() const { return {options_.core->counters()}; }

 private:
  struct Owner {
    caf::actor client;
    caf::actor scheduler;
  };

  InstanceCore* core() { return options_.core.get(); }
  void Advance() { core()->RunUntil(clock_.Now(), *this); }
  void Arm() { alarm_.Arm(core()->NextEvent()); }

  // InstanceEffects
  void Send(StreamMessage& message, Instant) override {
    if (connected_.stream) self_->send(connected_.stream, StreamCall{std::move(message)});
  }
  void FirstToken(InstanceId instance, RequestId request, Instant at) override {
    if (const Owner* owner = owners_.Find(request.value())) Tell(*owner, TokenEvent{request, instance, 0, 1, at}, true);
  }
  void Finished(InstanceId instance, RequestId request, TokenCount output, Instant at) override {
    const Owner* owner = owners_.Find(request.value());
    if (owner == nullptr) return;
    const RequestOutcome outcome{request, instance, OutcomeKind::kFinished, OutcomeReason::kStop, output, at};
    if (connected_.simulator) self_->send(connected_.simulator, outcome);
    End(*owner, outcome, true);
  }
  void Failed(InstanceId instance, RequestId request, OutcomeReason reason, Instant at) override {
    const Owner* owner = owners_.Find(request.value());
    if (owner == nullptr) return;
    End(*owner, {request, instance, OutcomeKind::kFailed, reason, TokenCount(), at}, false);  // its SCHEDULER decides again
  }

  template <class M>
  void Tell(const Owner& owner, const M& message, bool client_too) {
    if (owner.scheduler) self_->send(owner.scheduler, message);
    if (client_too && owner.client) self_->send(owner.client, message);
  }
  void End(const Owner& owner, const RequestOutcome& outcome, bool client_too) {
    Tell(owner, outcome, client_too);
    owners_.Erase(outcome.request.value());
  }

  caf::event_based_actor* self_;
  HostClock clock_;
  InstanceActorOptions options_;
  Alarm alarm_;
  ConnectCall connected_;
  IdMap<Owner> owners_;
};

struct InstanceState {
  std::unique_ptr<InstanceShell> shell;
  static inline const char* name = "instance";
};

struct Setup {
  HostClock clock;
  InstanceActorOptions options;
};

caf::behavior InstanceBehavior(caf::stateful_actor<InstanceState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.shell = std::make_unique<InstanceShell>(self, setup->clock, std::move(setup->options));
  InstanceShell* shell = self->state.shell.get();
  return {
      [shell](const ConnectCall& call) { shell->On(call); },
      [shell, self](const DispatchCall& call) { shell->On(call, self->current_sender()); },
      [shell](const Tick& tick) { shell->On(tick); },
      [shell](const Cancel& cancel) { shell->On(cancel); },
      [shell](const ResyncRequest& request) { shell->On(request); },
      [shell](const HeartbeatReply& reply) { shell->On(reply); },
      [shell](const RestartCall& call) { shell->On(call); },
      [shell](StatusQuery) { return shell->Status(); },
  };
}

}  // namespace

caf::actor SpawnInstance(caf::actor_system& system, const HostClock& clock, InstanceActorOptions options) {
  return caf::actor(system.spawn(InstanceBehavior, std::make_shared<Setup>(Setup{clock, std::move(options)})));
}

}  // namespace foretoken
