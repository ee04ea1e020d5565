//   INSTANCE --StreamCall--> [LINK] --> SIMULATOR --ResyncRequest, HeartbeatReply--> [LINK] --> INSTANCE
//   SCHEDULER --PredictCall, EnqueueCall, Cancel--> SIMULATOR --PredictedReply, EnqueueReply--> SCHEDULER
#include "actors/simulator.h"

#include <algorithm>
#include <caf/all.hpp>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/predict/enqueue_request.h"

namespace foretoken {
namespace {

class SimulatorShell final : private SimulatorEffects {
 public:
  SimulatorShell(caf::event_based_actor* self, const HostClock& clock, SimulatorActorOptions options)
      : self_(self),
        clock_(clock),
        cores_(std::move(options.cores)),
        resync_to_(std::move(options.resync_to)),
        record_(std::move(options.record)),
        first_(cores_.front()->instance().value()),
        alarm_(self, clock, SlotClass::kSimulatorTimer, first_) {
    for (const auto& core : cores_) Record(clock_.Now(), HostingRecord{core->instance(), 1, true});
  }

  void On(StreamCall& call) {
    SimulatorCore* core = Find(call.message.instance);
    if (core == nullptr) return;
    const Instant now = clock_.Now();
    if (record_) Record(now, Message(call.message));
    core->OnStream(call.message, now, *this);
    alarm_.Arm(core->NextTimer());
  }
  PredictedReply On(const PredictCall& call) {
    PredictedReply reply;
    reply.decision = call.decision;
    reply.stamps.submitted = call.submitted;
    const Instant now = clock_.Now();
    reply.stamps.started = now;
    auto t = std::lower_bound(call.targets.begin(), call.targets.end(), InstanceId(first_));
    for (; t != call.targets.end() && t->value() - first_ < cores_.size(); ++t)
      reply.predictions.push_back(cores_[t->value() - first_]->Predict(call.query, now));
    reply.stamps.ended = clock_.Now();
    if (record_) RecordAnswer(call, reply, now);
    return reply;
  }
  EnqueueReply On(const EnqueueCall& call) {
    SimulatorCore* core = Find(call.order.instance);
    FT_CHECK(core != nullptr);  // a SCHEDULER knows who hosts what
    const Instant now = clock_.Now();
    if (record_) Record(now, Message(RequestOf(call.order, now)));
    EnqueueReply reply = core->OnEnqueue(call.order, now);
    if (record_) Record(now, Message(reply));
    alarm_.Arm(core->NextTimer());
    return reply;
  }
  void On(const Cancel& cancel) {
    const Instant now = clock_.Now();
    Record(now, Message(cancel));
    if (SimulatorCore* core = Find(cancel.instance)) core->OnCancel(cancel.request, now);
  }
  void On(const ResyncRouteCall& call) { resync_to_[call.instance.value() - first_] = call.to; }
  void On(const RequestOutcome& o) {
    if (o.kind != OutcomeKind::kFinished) return;  // what an engine lost or refused, its SCHEDULER takes back
    Record(o.at, Message(o));
    if (SimulatorCore* core = Find(o.instance)) core->OnEnded(o.request, o.output_tokens, o.at);
  }
  void On(const Tick& tick) {
    const Instant now = clock_.Now();
    Instant next = Instant::Max();
    for (const auto& core : cores_) {
      if (core->NextTimer() <= now) {
        Record(now, TimerRecord{core->instance()});
        core->OnTimer(now, *this);
      }
      next = std::min(next, core->NextTimer());
    }
    alarm_.Rearm(tick, next);
  }
  SimulatorStatus Status() const {
    SimulatorStatus s;
    for (const auto& core : cores_) {
      Add(s.counters, core->counters());
      Add(s.sync, core->sync_counters());
      Add(s.drift, core->drift());
    }
    return s;
  }
  MirrorsReport Watched() const {
    MirrorsReport report;
    const Instant now = clock_.Now();
    for (const auto& core : cores_) report.mirrors.push_back(ViewOf(*core, now));
    return report;
  }

 private:
  template <class Body>
  void Record(Instant now, Body body) const {
    if (record_) record_({now, kSimulatorRecords, std::move(body)});
  }
  void RecordAnswer(const PredictCall& call, const PredictedReply& reply, Instant now) const {
    PredictBatch asked{call.decision, {}, QuestionOf(call.query), call.submitted};
    PredictionBatch made;
    made.decision = call.decision;
    made.predictions = reply.predictions;
    for (const Prediction& p : reply.predictions) asked.instances.push_back(p.instance);
    made.terms.assign(reply.predictions.size(), 1);
    Record(now, Message(std::move(asked)));
    Record(now, Message(std::move(made)));
  }
  void RequestResync(InstanceId instance, Epoch epoch, uint64_t from_seq, Instant at) override {
    self_->send(resync_to_[instance.value() - first_], ResyncRequest{instance, SourceId(0), epoch, from_seq, false});
  }
  void AnswerHeartbeat(InstanceId instance, Epoch epoch, Instant at) override {
    self_->send(resync_to_[instance.value() - first_], HeartbeatReply{instance, epoch, at});
  }
  SimulatorCore* Find(InstanceId instance) {
    const uint32_t k = instance.value() - first_;  // wraps when below
    return k < cores_.size() ? cores_[k].get() : nullptr;
  }

  caf::event_based_actor* self_;
  HostClock clock_;
  std::vector<std::unique_ptr<SimulatorCore>> cores_;
  std::vector<caf::actor> resync_to_;
  std::function<void(LogRecord)> record_;
  uint32_t first_;
  Alarm alarm_;
};

struct SimulatorState {
  std::unique_ptr<SimulatorShell> shell;
  static inline const char* name = "simulator";
};

struct Setup {
  HostClock clock;
  SimulatorActorOptions options;
};

template <class M>
void Reply(caf::event_based_actor* self, M message) {
  if (self->current_sender()) self->send(caf::actor_cast<caf::actor>(self->current_sender()), std::move(message));
}

caf::behavior Simulator(caf::stateful_actor<SimulatorState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.shell = std::make_unique<SimulatorShell>(self, setup->clock, std::move(setup->options));
  SimulatorShell* shell = self->state.shell.get();
  return {
      [shell, self](const PredictCall& call) { Reply(self, shell->On(call)); },
      [shell](StreamCall& call) { shell->On(call); },  // a mutable reference: the core keeps what it has to hold
      [shell, self](const EnqueueCall& call) {
        EnqueueReply reply = shell->On(call);
        if (call.order.guarded) Reply(self, std::move(reply));
      },
      [shell](const Cancel& cancel) { shell->On(cancel); },
      [shell](const RequestOutcome& outcome) { shell->On(outcome); },
      [shell](const ResyncRouteCall& call) { shell->On(call); },
      [shell](const Tick& tick) { shell->On(tick); },
      [shell](StatusQuery) { return shell->Status(); },
      [shell](WatchQuery) { return shell->Watched(); },
  };
}

}  // namespace

caf::actor SpawnSimulator(caf::actor_system& system, const HostClock& clock, SimulatorActorOptions options) {
  FT_CHECK(!options.cores.empty() && options.cores.size() == options.resync_to.size());
  return caf::actor(system.spawn(Simulator, std::make_shared<Setup>(Setup{clock, std::move(options)})));
}

}  // namespace foretoken
