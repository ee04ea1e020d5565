//   LOAD --ScheduleCall--> SCHEDULERs;  LOAD <-RejectNote, RequestOutcome- SCHEDULERs, INSTANCEs
#include "integration/serve/endless_load.h"

#include <caf/all.hpp>
#include <utility>
#include <vector>

#include "actors/client.h"

namespace foretoken {
namespace {

class LoadShell {
 public:
  LoadShell(caf::event_based_actor* self, const HostClock& clock, EndlessLoadOptions options)
      : self_(self), clock_(clock), options_(std::move(options)), alarm_(self, clock, SlotClass::kOther, 1) {
    const auto& requests = options_.trace->requests;
    const Duration span = requests.back().meta.arrival - requests.front().meta.arrival;
    // The gap from a round's last to the next one's first is a mean one.
    round_ = span + Duration::Nanos(span.nanos() / static_cast<int64_t>(requests.size()) + 1'000'000);
  }

  void On(const StartCall& call) {
    schedulers_ = call.schedulers;
    begun_ = clock_.Now();
    SubmitDue();
  }
  void Stop() {
    stopped_ = true;
    CheckDone();
  }
  void On(const Tick& tick) {
    alarm_.Fired(tick);
    SubmitDue();
  }
  void Ended() {
    ++ended_;
    CheckDone();
  }

 private:
  Instant DueAt(uint64_t n) const {
    const auto& requests = options_.trace->requests;
    const auto rounds = static_cast<int64_t>(n / requests.size());
    return begun_ + (requests[n % requests.size()].meta.arrival - requests.front().meta.arrival) + round_ * rounds;
  }
  void SubmitDue() {
    while (!stopped_ && DueAt(submitted_) <= clock_.Now()) {
      const auto& requests = options_.trace->requests;
      auto request = std::make_shared<RequestMeta>(requests[submitted_ % requests.size()].meta);
      request->id = RequestId(requests.front().meta.id.value() + submitted_);
      request->arrival = clock_.Now();
      self_->send(schedulers_[submitted_ % schedulers_.size()], ScheduleCall{std::move(request), clock_.Now()});
      ++submitted_;
    }
    if (!stopped_) alarm_.Arm(DueAt(submitted_));
  }
  void CheckDone() {
    if (!stopped_ || ended_ < submitted_ || told_) return;
    told_ = true;
    if (options_.done) options_.done();
  }

  caf::event_based_actor* self_;
  HostClock clock_;
  EndlessLoadOptions options_;
  Alarm alarm_;
  Duration round_;
  std::vector<caf::actor> schedulers_;
  Instant begun_;
  uint64_t submitted_ = 0, ended_ = 0;
  bool stopped_ = false;
  bool told_ = false;
};

struct LoadState {
  std::unique_ptr<LoadShell> shell;
  static inline const char* name = "load";
};

struct Setup {
  HostClock clock;
  EndlessLoadOptions options;
};

caf::behavior Load(caf::stateful_actor<LoadState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.shell = std::make_unique<LoadShell>(self, setup->clock, std::move(setup->options));
  LoadShell* shell = self->state.shell.get();
  return {
      [shell](const StartCall& call) { shell->On(call); },
      [shell](const StopSubmittingCall&) { shell->Stop(); },
      [shell](const Tick& tick) { shell->On(tick); },
      [](const DecisionNote&) {},
      [](const TokenEvent&) {},
      [shell](const RejectNote&) { shell->Ended(); },
      [shell](const RequestOutcome&) { shell->Ended(); },
  };
}

}  // namespace

caf::actor SpawnEndlessLoad(caf::actor_system& system, const HostClock& clock, EndlessLoadOptions options) {
  return system.spawn(Load, std::make_shared<Setup>(Setup{clock, std::move(options)}));
}

}  // namespace foretoken
