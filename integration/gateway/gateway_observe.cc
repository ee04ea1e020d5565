// What a gateway shows to those who watch: taken on its own thread, between two events, in one go.
#include <chrono>

#include "integration/gateway/gateway.h"
#include "integration/observe/observation_board.h"
#include "integration/observe/observation_builder.h"

namespace foretoken {

void Gateway::Observe() {
  const Instant now = Now();
  ObservationBuilder& b = *observations_;
  while (b.instances() < by_id_.size()) {
    const Engine* e = by_id_[b.instances()].get();
    b.AddInstance(e == nullptr ? "worker " + std::to_string(b.instances()) : e->label.empty() ? e->url.name() : e->label, "");
  }
  b.Begin();
  b.Add(routing_->journal()->View(now));
  if (!engines_.empty()) b.Add(routing_->counters(), 0, queue_.size());
  for (uint32_t i = 0; i < by_id_.size(); ++i)
    if (by_id_[i] == nullptr) {
      b.SetPlace(InstanceId(i), InstanceState::kDead, false, "", 0);
      b.SetGone(InstanceId(i));
    }
  for (const Engine* e : engines_) {
    b.Add(ViewOf(routing_->mirror(e->id).simulator(), now));
    if (!e->models.empty()) b.SetModel(e->id, e->models.front());  // as it says itself: never a name that a client made up
    b.AddOutstanding(e->id, routing_->outstanding(e->id));
    b.SetPlace(e->id, e->state, e->health.serving(), "", 0);
    b.SetInferred(e->id, e->restarts, routing_->mirror(e->id).counters().rescaled);
  }
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  config_.board->Put(b.End(now, std::chrono::duration_cast<std::chrono::milliseconds>(wall).count()));
  observe_at_ = now + Duration::Millis(config_.board->Interval(engines_.size()).count());
}

}  // namespace foretoken
