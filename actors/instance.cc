//   SCHEDULER --DispatchCall, Cancel--> INSTANCE --StreamCall--> [LINK] --> SIMULATOR
//   INSTANCE --TokenEvent, RequestOutcome--> SCHEDULER of the request, its client; RequestOutcome also --> SIMULATOR
//   SIMULATOR --ResyncRequest, HeartbeatReply--> [LINK] --> INSTANCE
#include "actors/instance.h"

#include <caf/all.hpp>
#include <deque>
#include <optional>
#include <utility>

#include "runtime/base/id_map.h"

namespace foretoken {
namespace {

constexpr size_t kEarlyFollows = 256;

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
    if (!admits_) {  // decided before its SCHEDULER had heard
      if (from)
        self_->send(from, RequestOutcome{id, options_.instance, OutcomeKind::kFailed, OutcomeReason::kShed, {}, clock_.Now()});
      return;
    }
    if (!owners_.Insert(id.value(), Owner{call.client, from})) {
      if (from && owners_.Find(id.value())->scheduler != from)
        self_->send(from, RequestOutcome{id, options_.instance, OutcomeKind::kFailed, OutcomeReason::kShed, {}, clock_.Now()});
      return;
    }
    if (std::erase(early_follows_, id) > 0) {
      owners_.Find(id.value())->told = 1;
      ++followed_;
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
  void On(const AdmitCall& call) { admits_ = call.admits && !leave_to_; }
  void On(const LeaveCall&, const caf::strong_actor_ptr& node) {
    leave_to_ = caf::actor_cast<caf::actor>(node);
    admits_ = false;
  }
  // It was told to leave, and nothing is under way: whoever asked hears of it, and this is no longer needed.
  bool HasLeft() {
    if (!leave_to_ || owners_.size() > 0) return false;
    self_->send(leave_to_, LeftCall{options_.instance});
    return true;
  }
  void On(const FollowCall& call) {
    Owner* owner = owners_.Find(call.request.value());
    if (owner == nullptr) {  // the wish may come before the request
      early_follows_.push_back(call.request);
      if (early_follows_.size() > kEarlyFollows) early_follows_.pop_front();
      return;
    }
    if (owner->told) return;
    owner->told = 1;  // the first one is told of anyway
    ++followed_;
    TellFollowers();
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
    if (followed_ > 0) TellFollowers();
    Arm();
  }
  InstanceStatus Status() const { return {options_.core->counters(), owners_.size()}; }
  InstanceId instance() const { return options_.instance; }

 private:
  struct Owner {
    caf::actor client;
    caf::actor scheduler;
    std::optional<int32_t> told = {};  // tokens that the client knows of; absent: it is not followed
  };

  InstanceCore* core() { return options_.core.get(); }
  void Advance() { core()->RunUntil(clock_.Now(), *this); }
  void Arm() { alarm_.Arm(core()->NextEvent()); }
  void TellFollowers() {
    const Snapshot now = core()->engine().TakeSnapshot(false);
    for (const auto* list : {&now.running, &now.waiting})
      for (const Snapshot::Request& r : *list) {
        Owner* owner = owners_.Find(r.request.value());
        if (owner == nullptr || !owner->told || r.generated_tokens <= *owner->told) continue;
        const TokenEvent more{r.request, options_.instance, *owner->told, r.generated_tokens - *owner->told, clock_.Now()};
        const caf::actor& to = owner->client ? owner->client : owner->scheduler;  // of one elsewhere: its NODE
        if (to) self_->send(to, more);
        owner->told = r.generated_tokens;
      }
  }

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
    if (owner.told) --followed_;
    owners_.Erase(outcome.request.value());
  }

  caf::event_based_actor* self_;
  HostClock clock_;
  InstanceActorOptions options_;
  Alarm alarm_;
  ConnectCall connected_;
  IdMap<Owner> owners_;
  bool admits_ = true;
  caf::actor leave_to_;  // null: it stays
  size_t followed_ = 0;  // of owners_
  std::deque<RequestId> early_follows_;
};

struct InstanceState {
  std::unique_ptr<InstanceShell> shell;
  static inline const char* name = "instance";
};

struct Setup {
  HostClock clock;
  InstanceActorOptions options;
};

// What is left of one that has left: what is still on its way to it goes elsewhere.
caf::behavior Refuse(caf::event_based_actor* self, const HostClock& clock, InstanceId instance, const InstanceStatus& last) {
  self->set_default_handler(caf::drop);
  return {[self, clock, instance](const DispatchCall& call) {
            if (const auto from = caf::actor_cast<caf::actor>(self->current_sender()))
              self->send(from, RequestOutcome{
                                   call.request->id, instance, OutcomeKind::kFailed, OutcomeReason::kShed, {}, clock.Now()});
          },
          [last](StatusQuery) { return last; }};
}

caf::behavior InstanceBehavior(caf::stateful_actor<InstanceState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.shell = std::make_unique<InstanceShell>(self, setup->clock, std::move(setup->options));
  InstanceShell* shell = self->state.shell.get();
  const auto leave = [self, shell, clock = setup->clock] {
    if (!shell->HasLeft()) return;
    self->become(Refuse(self, clock, shell->instance(), shell->Status()));
    self->state.shell.reset();
  };
  return {
      [shell](const ConnectCall& call) { shell->On(call); },
      [shell, self](const DispatchCall& call) { shell->On(call, self->current_sender()); },
      [shell, leave](const Tick& tick) {
        shell->On(tick);
        leave();
      },
      [shell, leave](const Cancel& cancel) {
        shell->On(cancel);
        leave();
      },
      [shell](const AdmitCall& call) { shell->On(call); },
      [shell, self, leave](const LeaveCall& call) {
        shell->On(call, self->current_sender());
        leave();
      },
      [shell](const FollowCall& call) { shell->On(call); },
      [shell](const ResyncRequest& request) { shell->On(request); },
      [shell](const HeartbeatReply& reply) { shell->On(reply); },
      [shell, leave](const RestartCall& call) {
        shell->On(call);
        leave();
      },
      [shell](StatusQuery) { return shell->Status(); },
  };
}

}  // namespace

caf::actor SpawnInstance(caf::actor_system& system, const HostClock& clock, InstanceActorOptions options) {
  return caf::actor(system.spawn(InstanceBehavior, std::make_shared<Setup>(Setup{clock, std::move(options)})));
}

}  // namespace foretoken
