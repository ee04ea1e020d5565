//   OBSERVER --WatchQuery--> SCHEDULERs, SIMULATOR hosts or NODE;  --NodeQuery--> NODE
//   OBSERVER <-JournalReport, MirrorsReport, NodeStatus- them
#include "integration/observe/observer.h"

#include <algorithm>
#include <caf/all.hpp>
#include <chrono>
#include <utility>

#include "integration/observe/observation_builder.h"
#include "integration/transport/node.h"

namespace foretoken {
namespace {

constexpr std::chrono::seconds kPatience(1);  // with a role that does not answer

struct LookTick {};

}  // namespace
}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::LookTick)

namespace foretoken {
namespace {

class ObserverShell {
 public:
  ObserverShell(caf::event_based_actor* self, const HostClock& clock, ObserverOptions options)
      : self_(self), clock_(clock), o_(std::move(options)), builder_({o_.facts}) {
    for (const ObserveInstanceCall& i : o_.instances) builder_.AddInstance(i.name, i.kind, i.model, i.engine);
  }

  void Look() {
    builder_.Begin();
    waiting_ = o_.schedulers.size() + o_.simulators.size() + (o_.node ? 1 : 0);
    for (const caf::actor& a : o_.schedulers) Ask<JournalReport>(a, WatchQuery{});
    for (const caf::actor& a : o_.simulators) Ask<MirrorsReport>(a, WatchQuery{});
    if (o_.node) Ask<NodeStatus>(o_.node, NodeQuery{});
    if (waiting_ == 0) Done();
  }
  void On(const PolicyCall& call) { builder_.SetPolicy(call.policy); }
  void On(const ObserveInstanceCall& call) { builder_.AddInstance(call.name, call.kind, call.model, call.engine); }

 private:
  template <class Report, class Query>
  void Ask(const caf::actor& whom, Query query) {
    self_->request(whom, kPatience, query)
        .then(
            [this](const Report& r) {
              Take(r);
              Answered();
            },
            [this](const caf::error&) {
              builder_.Missing();
              Answered();
            });
  }
  void Take(const JournalReport& r) {
    builder_.Add(*r.view);
    builder_.Add(r.status.counters, r.status.open_rounds, r.status.queued);
    const size_t known = std::min(r.outstanding.size(), builder_.instances());
    for (uint32_t k = 0; k < known; ++k) builder_.AddOutstanding(InstanceId(k), r.outstanding[k]);
  }
  void Take(const MirrorsReport& r) {
    for (const MirrorView& m : r.mirrors)
      if (m.instance.value() < builder_.instances()) builder_.Add(m);
  }
  void NameLike(const InstanceStatusHere& i) {
    const ObserveInstanceCall& like = o_.instances[i.kind.value()];
    builder_.Name(i.instance, i.name, like.kind, like.model, like.engine);
  }
  void Take(const NodeStatus& s) {
    std::vector<bool> there(builder_.instances());
    for (const InstanceStatusHere& i : s.instances) {
      while (builder_.instances() <= i.instance.value()) builder_.AddInstance("", "");  // numbers between may be nobody's yet
      there.resize(builder_.instances());
      there[i.instance.value()] = true;
      if (i.kind != i.instance && i.kind.value() < o_.instances.size()) NameLike(i);
      builder_.SetPlace(i.instance, i.state, i.reachable, o_.node_names[i.owner.value()], i.term);
    }
    for (uint32_t k = 0; k < there.size(); ++k)
      if (!there[k]) builder_.SetGone(InstanceId(k));
  }
  void Answered() {
    if (--waiting_ == 0) Done();
  }
  void Done() {
    if (o_.faults) o_.faults->Show(builder_);
    const auto wall = std::chrono::system_clock::now().time_since_epoch();
    o_.board->Put(builder_.End(clock_.Now(), std::chrono::duration_cast<std::chrono::milliseconds>(wall).count()));
    self_->delayed_send(self_, o_.board->Interval(builder_.instances()), LookTick{});
  }

  caf::event_based_actor* self_;
  HostClock clock_;
  ObserverOptions o_;
  ObservationBuilder builder_;
  size_t waiting_ = 0;
};

struct ObserverState {
  std::unique_ptr<ObserverShell> shell;
  static inline const char* name = "observer";
};

struct Setup {
  HostClock clock;
  ObserverOptions options;
};

caf::behavior Observer(caf::stateful_actor<ObserverState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.shell = std::make_unique<ObserverShell>(self, setup->clock, std::move(setup->options));
  ObserverShell* shell = self->state.shell.get();
  self->send(self, LookTick{});
  return {
      [shell](LookTick) { shell->Look(); },
      [shell](const PolicyCall& call) { shell->On(call); },
      [shell](const ObserveInstanceCall& call) { shell->On(call); },
  };
}

}  // namespace

caf::actor SpawnObserver(caf::actor_system& system, const HostClock& clock, ObserverOptions options) {
  return system.spawn(Observer, std::make_shared<Setup>(Setup{clock, std::move(options)}));
}

}  // namespace foretoken
