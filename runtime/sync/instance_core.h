// InstanceCore: an INSTANCE over an emulated engine, without threads or messages: requests go in, the engine runs, its progress
// comes out as a numbered sync stream at the configured level and as outcomes for the client side. It answers ResyncRequests
// with a snapshot and starts a new epoch after a restart. All hosts (virtual, CAF, live) use this one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/engine/emulated_engine.h"
#include "runtime/fault/fault_plan.h"
#include "runtime/model/request.h"
#include "runtime/model/stream_message.h"

namespace foretoken {

class InstanceEffects {
 public:
  virtual ~InstanceEffects() = default;
  // To the SIMULATOR. The message may be moved from.
  virtual void Send(StreamMessage& message, Instant at) = 0;
  // To the client side (SCHEDULER, GATEWAY).
  virtual void FirstToken(InstanceId instance, RequestId request, Instant at) = 0;
  virtual void Finished(InstanceId instance, RequestId request, TokenCount output, Instant at) = 0;
  // Refused by the engine, or lost with it.
  virtual void Failed(InstanceId instance, RequestId request, OutcomeReason reason, Instant at) = 0;
};

class InstanceCore final : private EngineSink {
 public:
  struct Options {
    InstanceId instance;
    EmulatedEngine::Options engine;  // `traces` is set from `level`
    SyncLevel level = SyncLevel::kFull;
    Duration poll_interval = Duration::Millis(100);  // level kPoll
    Duration heartbeat = Duration();                 // zero: none (a host that needs no liveness)
    bool exact_snapshots = false;
    ClockSkew clock;       // the engine's; what is sent tells times by it. All times of the calls below are the host's.
    Epoch first_epoch{1};  // of a new process: above those of its predecessors
  };

  static Result<std::unique_ptr<InstanceCore>> Make(Options options);

  // `request` reaches the engine at `now`, not before any instant already run to. While restarting: Failed at once.
  void OnDispatch(const EngineRequest& request, Instant now, InstanceEffects& effects);
  void OnCancel(RequestId request, Instant now, InstanceEffects& effects);
  void OnResyncRequest(Instant now, InstanceEffects& effects);
  // The SIMULATOR, at `sent` by its own clock, heard a heartbeat of `epoch`: the next one takes that back to it.
  void OnHeartbeatReply(Epoch epoch, Instant sent, Instant now);
  // The engine dies now and is back, empty and under a new epoch, at `now + downtime`. What it held fails.
  void OnRestart(Instant now, Duration downtime, InstanceEffects& effects);
  // Everything up to and including `until`.
  void RunUntil(Instant until, InstanceEffects& effects);
  // The next instant at which something comes out by itself; Instant::Max(): never.
  Instant NextEvent() const;

  const EmulatedEngine& engine() const { return *engine_; }
  // Work done before the latest restart included.
  EmulatedEngine::Counters counters() const;
  Epoch epoch() const { return epoch_; }
  size_t held() const { return held_.size(); }  // requests dispatched here and not ended
  bool up(Instant now) const { return now >= down_until_; }

 private:
  explicit InstanceCore(Options options) : options_(std::move(options)), epoch_(options_.first_epoch) {}

  void OnStep(const BatchTrace& trace) override;
  void OnFirstToken(RequestId request, Instant at) override;
  void OnFinished(RequestId request, const BatchTrace::Finish& finish, Instant at) override;
  void OnRejected(RequestId request, OutcomeReason reason, Instant at) override;

  Status StartEngine(Instant at);
  void StartEpoch(Instant at);
  void RunTimers(Instant at);
  template <class Body>
  void Emit(Body&& body, Instant at);

  Options options_;
  std::unique_ptr<EmulatedEngine> engine_;
  EmulatedEngine::Counters before_restart_;
  InstanceEffects* effects_ = nullptr;  // during a call
  StreamMessage message_;               // reused
  BatchTrace scratch_;                  // level aggregate: the step without ids
  std::vector<RequestId> held_;         // in the engine, in order of dispatch (kept only when a restart may come)
  Epoch epoch_;
  uint64_t next_seq_ = 0;
  bool hello_sent_ = false;
  std::optional<Heartbeat::Echo> echo_;  // for the next heartbeat
  Instant down_until_;
  Instant next_heartbeat_ = Instant::Max();
  Instant next_poll_ = Instant::Max();
};

}  // namespace foretoken
