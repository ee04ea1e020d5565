#include "integration/engines/vllm/mirror_run.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <variant>

namespace foretoken {
namespace {

constexpr Epoch kEpoch{1};                                     // a recording is one run of the server
constexpr Duration kHeartbeat = Duration::Millis(250);         // protocol.md's default
constexpr int kHeartbeatsMax = 2400;                           // ten minutes for the tail of a recording to get through
constexpr int64_t kControlBytes = 64;                          // a heartbeat or a resync request
constexpr int64_t kBytesPerBlock = 12, kBytesPerRequest = 64;  // of a snapshot: only its way over a slow wire depends on them

struct Message {
  Sequencer<Message>::Header header;
  const RecordedEvent* record = nullptr;         // set: a record
  std::shared_ptr<const ShadowEngine> snapshot;  // set: a snapshot. Neither: a heartbeat
};

void Feed(ShadowEngine& shadow, const RecordedEvent& event) {
  if (const auto* enqueue = std::get_if<EngineRequest>(&event.what)) return shadow.OnEnqueue(*enqueue, event.at);
  if (const auto* step = std::get_if<RecordedEvent::Step>(&event.what)) return shadow.OnStep(*step);
  for (const RequestId id : std::get<RecordedEvent::Aborted>(event.what)) shadow.OnAbort(id, event.at);
}

std::unique_ptr<ShadowEngine> MakeShadow(const EngineConfig& config, std::string& error) {
  auto core = MakeEngineCore(config);
  if (!core.ok()) return error = core.error().message, nullptr;
  return std::make_unique<ShadowEngine>(std::move(core).value());
}

class MirrorRun final : private Sequencer<Message>::Sink {
 public:
  MirrorRun(const Recording& recording, std::unique_ptr<ShadowEngine> shadow, std::unique_ptr<ShadowEngine> source, Link* there,
            Link* back)
      : recording_(recording), shadow_(std::move(shadow)), source_(std::move(source)), there_(there), back_(back) {}

  MirrorReport Run() {
    for (const RecordedEvent& event : recording_.events) {
      RunUntil(std::max(now_, Instant() + (event.at - recording_.events.front().at)));
      if (source_ != nullptr) Feed(*source_, event);
      Message message;
      message.record = &event;
      Send(std::move(message), event.bytes);
    }
    for (int i = 0; i < kHeartbeatsMax && (sequencer_.next_seq() < next_seq_ || sequencer_.gap_open()); ++i) {
      RunUntil(now_ + kHeartbeat);
      Send(Message{}, kControlBytes);  // the next message is what shows that the last ones were lost
      RunUntil(now_ + kHeartbeat);
    }
    return Report();
  }

 private:
  enum class Place : uint8_t { kShadow, kSource };
  struct Delivery {
    Place place = Place::kShadow;
    Message message;  // at the source: empty, a resync request
  };

  void Send(Message message, int64_t bytes) {
    message.header = {kEpoch, next_seq_++, message.snapshot != nullptr};
    if (there_ == nullptr) return sequencer_.OnMessage(message.header, message, now_, *this);
    for (const Instant at : there_->OnMessage(now_, bytes)) on_the_way_.emplace(at, Delivery{Place::kShadow, message});
  }

  void RunUntil(Instant until) {
    for (;;) {
      const Instant next =
          std::min(on_the_way_.empty() ? Instant::Max() : on_the_way_.begin()->first, sequencer_.NextTimeout());
      if (next > until) break;
      now_ = std::max(now_, next);
      if (sequencer_.NextTimeout() <= next) {
        sequencer_.OnTimeout(now_, *this);
        continue;
      }
      Delivery delivery = std::move(on_the_way_.begin()->second);
      on_the_way_.erase(on_the_way_.begin());
      if (delivery.place == Place::kShadow) {
        sequencer_.OnMessage(delivery.message.header, delivery.message, now_, *this);
      } else {
        SendSnapshot();
      }
    }
    now_ = until;
  }

  void SendSnapshot() {
    Message message;
    message.snapshot = source_->Clone();
    const EngineCore& core = source_->core();
    Send(std::move(message), kBytesPerBlock * core.usable_blocks() + kBytesPerRequest * (core.running() + core.waiting()));
  }

  void Apply(Message& message) override {
    if (message.record != nullptr) Feed(*shadow_, *message.record);
  }
  void ApplySnapshot(Message& message) override { shadow_->Resynchronise(*message.snapshot); }
  void EpochChanged(Epoch) override {}
  void RequestResync(Epoch, uint64_t) override {
    if (back_ == nullptr) return;
    for (const Instant at : back_->OnMessage(now_, kControlBytes)) on_the_way_.emplace(at, Delivery{Place::kSource, {}});
  }

  MirrorReport Report() {
    shadow_->Finish();
    MirrorReport report;
    report.counters = shadow_->counters();
    report.disagreements = shadow_->disagreements();
    report.first_disagreement = shadow_->first_disagreement();
    report.sync = sequencer_.counters();
    if (there_ == nullptr) return report;
    source_->Finish();
    report.link = there_->counters();
    report.converged = shadow_->core().TakeSnapshot(true) == source_->core().TakeSnapshot(true);
    return report;
  }

  const Recording& recording_;
  std::unique_ptr<ShadowEngine> shadow_;
  std::unique_ptr<ShadowEngine> source_;  // null without faults
  Link* there_;                           // instance -> simulator; null without faults
  Link* back_;
  Sequencer<Message> sequencer_{SequencerOptions{}};
  std::multimap<Instant, Delivery> on_the_way_;  // equal times in the order of sending
  uint64_t next_seq_ = 0;
  Instant now_;  // since the recording's first event
};

}  // namespace

Result<MirrorReport> RunMirror(const Recording& recording, const FaultPlan* faults, uint64_t seed) {
  std::string error;
  auto shadow = MakeShadow(recording.config, error);
  if (shadow == nullptr) return Error{error};
  if (faults == nullptr) return MirrorRun(recording, std::move(shadow), nullptr, nullptr, nullptr).Run();
  auto source = MakeShadow(recording.config, error);
  const LinkEnd instance{LinkRole::kInstance, "mirrored-0"}, simulator{LinkRole::kSimulator, ""};
  const auto link = [&](const LinkEnd& from, const LinkEnd& to) {
    const LinkFaults* found = faults->FaultsOf(from, to);
    return Link::Make(found == nullptr ? LinkFaults{} : *found, LinkSeed(seed, from, to));
  };
  auto there = link(instance, simulator);
  auto back = link(simulator, instance);
  if (!there.ok()) return there.error();
  if (!back.ok()) return back.error();
  return MirrorRun(recording, std::move(shadow), std::move(source), &there.value(), &back.value()).Run();
}

}  // namespace foretoken
