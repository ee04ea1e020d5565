#include "actors/client.h"

#include <algorithm>
#include <caf/all.hpp>
#include <utility>

namespace foretoken {
namespace {

class ClientShell {
 public:
  ClientShell(caf::event_based_actor* self, const HostClock& clock, ClientActorOptions options)
      : self_(self),
        clock_(clock),
        options_(std::move(options)),
        alarm_(self, clock, SlotClass::kOther, HostClock::kInstancesPerClass - 1) {
    options_.log->requests.resize(options_.trace->requests.size());
    for (size_t k = 0; k < options_.trace->requests.size(); ++k)
      options_.log->requests[k].arrival = options_.trace->requests[k].meta.arrival;
  }

  void On(const StartCall& call) {
    schedulers_ = call.schedulers;
    if (options_.paced) SubmitDue();
  }
  void On(const SubmitCall& call) { Submit(call.index); }
  void On(const StopSubmittingCall&) {
    stopped_ = true;
    CheckDone();
  }
  void On(const Tick& tick) {
    alarm_.Fired(tick);
    SubmitDue();
  }
  void On(const DecisionNote& note) {
    RunRequest& r = record(note.decision.request);
    if (r.assignments == 0) log().decision_latency.push_back(note.decision.stamps.ended - note.decision.stamps.submitted);
    ++r.assignments;
    r.instance = note.decision.placement.front().instance;
    r.decided = note.decision.stamps.ended;
    r.first_token = Instant::Max();  // nothing was kept of a failed attempt
    r.predicted = note.predicted;
    if (!note.predicted) return;
    r.predicted_ttft = note.prediction.ttft;
    r.predicted_ttft_p90 = note.prediction.ttft_p90;
    r.predicted_e2e = note.prediction.e2e;
    r.predicted_e2e_p90 = note.prediction.e2e_p90;
    r.predictor = note.prediction.predictor;
    r.stale = note.prediction.stale;
  }
  void On(const RejectNote& note) {
    const bool failed = note.reason == OutcomeReason::kRetriesExhausted;
    record(note.request).first_token = Instant::Max();  // nothing was kept of a failed attempt
    End(note.request, failed ? OutcomeKind::kFailed : OutcomeKind::kRejected, note.reason, clock_.Now());
  }
  void On(const TokenEvent& event) {
    RunRequest& r = record(event.request);
    if (event.first == 0 && r.first_token == Instant::Max()) r.first_token = event.at;
  }
  void On(const RequestOutcome& o) {
    if (End(o.request, o.kind, o.kind == OutcomeKind::kFinished ? OutcomeReason::kNone : o.reason, o.at))
      record(o.request).output_tokens = static_cast<int32_t>(o.output_tokens.value());
  }

 private:
  ClientLog& log() { return *options_.log; }
  RunRequest& record(RequestId id) { return log().requests[id.value() - options_.trace->requests.front().meta.id.value()]; }

  void Submit(size_t index) {
    const std::shared_ptr<const Trace>& trace = options_.trace;
    const RequestMeta& meta = trace->requests[index].meta;
    ++log().submitted;
    self_->send(schedulers_[meta.id.value() % schedulers_.size()], ScheduleCall{RequestPtr(trace, &meta), clock_.Now()});
  }
  void SubmitDue() {
    const auto& requests = options_.trace->requests;
    for (; !stopped_ && next_ < requests.size() && requests[next_].meta.arrival <= clock_.Now(); ++next_) Submit(next_);
    if (!stopped_ && next_ < requests.size()) alarm_.Arm(requests[next_].meta.arrival);
    CheckDone();
  }
  bool End(RequestId id, OutcomeKind kind, OutcomeReason reason, Instant at) {
    RunRequest& r = record(id);
    if (r.outcome != OutcomeKind::kLost) {
      ++log().duplicated;
      return false;
    }
    r.outcome = kind;
    r.reason = reason;
    r.finish = at;
    ++log().ended;
    CheckDone();
    return true;
  }
  void CheckDone() {
    const bool all_in = stopped_ || log().submitted == options_.trace->requests.size();
    if (!all_in || log().ended < log().submitted || told_) return;
    told_ = true;
    if (options_.done) options_.done();
  }

  caf::event_based_actor* self_;
  HostClock clock_;
  ClientActorOptions options_;
  Alarm alarm_;
  std::vector<caf::actor> schedulers_;
  size_t next_ = 0;
  bool stopped_ = false;
  bool told_ = false;
};

struct ClientState {
  std::unique_ptr<ClientShell> shell;
  static inline const char* name = "client";
};

struct Setup {
  HostClock clock;
  ClientActorOptions options;
};

caf::behavior Client(caf::stateful_actor<ClientState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.shell = std::make_unique<ClientShell>(self, setup->clock, std::move(setup->options));
  ClientShell* shell = self->state.shell.get();
  return {
      [shell](const StartCall& call) { shell->On(call); },
      [shell](const SubmitCall& call) { shell->On(call); },
      [shell](const StopSubmittingCall& call) { shell->On(call); },
      [shell](const Tick& tick) { shell->On(tick); },
      [shell](const DecisionNote& note) { shell->On(note); },
      [shell](const RejectNote& note) { shell->On(note); },
      [shell](const TokenEvent& event) { shell->On(event); },
      [shell](const RequestOutcome& outcome) { shell->On(outcome); },
  };
}

}  // namespace

caf::actor SpawnClient(caf::actor_system& system, const HostClock& clock, ClientActorOptions options) {
  return caf::actor(system.spawn(Client, std::make_shared<Setup>(Setup{clock, std::move(options)})));
}

}  // namespace foretoken
