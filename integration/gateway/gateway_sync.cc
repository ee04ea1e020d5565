// What engines' plugins stream to the gateway: to each engine's mirror, and on the log when what it may claim has changed.
#include "integration/gateway/gateway.h"

namespace foretoken {

Status Gateway::ListenForSync() {
  if (config_.sync_listen.empty()) return {};
  const auto address = SyncAddress::Parse(config_.sync_listen);
  if (!address.ok()) return address.error();
  sync_ = std::make_unique<SyncListener>(io_, static_cast<SyncListener::Owner&>(*this));
  return sync_->Listen(*address);
}

bool Gateway::OnSync(StreamMessage message) {
  Engine* engine = FindEngine(message.instance);
  if (engine == nullptr) return false;
  EngineMirror& mirror = routing_->mirror(engine->id);
  mirror.OnStream(std::move(message), Now(), *sync_);
  routing_->RefreshLaw(engine->id);
  return true;
}

void Gateway::OnSyncClosed(InstanceId instance) {
  if (Engine* engine = FindEngine(instance)) routing_->mirror(engine->id).OnStreamClosed();
}

void Gateway::OnSyncRefused(const std::string& why) {
  Tell(LogLevel::kWarning, "sync_refused", "a sync stream was closed: " + why);
}

void Gateway::SweepSync(Instant now) {
  levels_told_.resize(by_id_.size(), StateLevel::kInferred);
  for (Engine* e : engines_) {
    EngineMirror& mirror = routing_->mirror(e->id);
    mirror.OnTimer(now, *sync_);
    StateLevel& told = levels_told_[e->id.value()];
    const StateLevel level = mirror.level(now);
    if (level == told) continue;
    told = level;
    const std::string why = level == StateLevel::kFollowing ? " (" + mirror.live()->shadow().why() + ")" : "";
    Tell(LogLevel::kInfo, "state_level", *e, " is mirrored at level " + std::string(NameOf(level)) + why);
  }
}

}  // namespace foretoken
