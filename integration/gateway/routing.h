// Routing: the gateway's decisions, without I/O: the SCHEDULER's core and one mirror per engine, called directly on the gateway's
// thread (docs/gateway.md). A decision asks every usable engine's mirror, scores, reserves at the winner, and is done when
// the call returns.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "integration/engines/openai/engine_mirror.h"
#include "integration/gateway/shadow.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/observe/request_journal.h"
#include "runtime/sched/scheduler_core.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

class Routing final : private SchedulerEffects {
 public:
  struct Options {
    std::string policy = "auto";
    std::string shadow;  // empty: none
    Slo slo;
    uint64_t seed = 1;
    double shed_above = 0;  // > 0: refuse when every engine's P(SLO violation) is above it
    int32_t shed_priority = 0;
    bool journal = false;  // keep one, for those who watch
  };
  // Where a request goes, or why nowhere.
  struct Choice {
    bool placed = false;
    InstanceId instance;
    OutcomeReason reason = OutcomeReason::kNone;
    std::optional<Prediction> prediction;  // the winner's, when the policy asks for predictions
    double score = 0;
  };

  static Result<std::unique_ptr<Routing>> Make(Options options);
  ~Routing() override;

  InstanceId AddEngine(const std::string& name);
  void SetUsable(InstanceId engine, bool usable);
  // It has left, and nothing of it is under way. Its number is not used again.
  void RemoveEngine(InstanceId engine);
  // How fast it is has yet to be seen: it is trusted bit by bit.
  void BeginSlowStart(InstanceId engine, Instant now) { scheduler_->BeginSlowStart(engine, now); }
  void SetModels(InstanceId engine, std::vector<ModelId> models);
  // It was started anew: what it held is gone.
  void OnRestart(InstanceId engine, Instant now) { mirrors_[engine.value()]->OnRestart(now); }
  // Its law may have moved: the scheduler is told.
  void RefreshLaw(InstanceId engine);
  EngineMirror& mirror(InstanceId engine) { return *mirrors_[engine.value()]; }
  size_t engines() const { return mirrors_.size(); }

  // `request` stays valid until its end.
  Choice Decide(const RequestMeta& request, Instant now);
  // It failed where it was: its reservation is released and it is decided again, elsewhere, by new predictions.
  Choice DecideAgain(const RequestMeta& request, OutcomeReason reason, Instant now);

  // The request's bytes have gone to the engine. streaming: its tokens will be seen.
  void OnSent(const RequestMeta& request, InstanceId engine, bool streaming, Instant now);
  // `chunks` pieces of output came.
  void OnOutput(RequestId request, InstanceId engine, int32_t chunks, bool first, Instant now);
  // It ended well. exact: `output` is the engine's own count, not an estimate.
  void OnFinished(RequestId request, InstanceId engine, TokenCount output, bool exact, Instant now);
  // The client has gone, or the request failed for good.
  void OnCancelled(RequestId request, InstanceId engine, Instant now);

  const SchedulerCounters& counters() const { return scheduler_->counters(); }
  int32_t outstanding(InstanceId engine) const { return scheduler_->ledger().load(engine).requests; }
  // For those who watch; null: none is kept.
  RequestJournal* journal() { return journal_ ? &*journal_ : nullptr; }
  const SlowStart& slow_start() const {
    static const SlowStart none;
    return scheduler_ == nullptr ? none : scheduler_->slow_start();
  }
  const Shadow* shadow() const { return shadow_.get(); }

 private:
  explicit Routing(Options options);
  SchedulerCore::Options SchedulerOptions() const;

  void SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) override;
  void SendEnqueue(const EnqueueOrder& order) override;
  void SendCancel(InstanceId instance, RequestId request) override;
  void Dispatch(InstanceId instance, const RequestMeta& request) override;
  void Reject(RequestId request, OutcomeReason reason) override;
  void Decided(const DecisionRecord& record) override;
  void ArmDeadline(DecisionId, Instant) override {}  // every answer comes before the call returns

  Options options_;
  std::unique_ptr<LengthEstimator> lengths_;
  std::unique_ptr<SchedulerCore> scheduler_;            // made with the first engine
  std::vector<std::unique_ptr<EngineMirror>> mirrors_;  // by engine; null: it has left
  std::optional<RequestJournal> journal_;
  std::unique_ptr<Shadow> shadow_;    // may be null
  std::vector<uint64_t> laws_known_;  // per engine: how often its law had moved when the scheduler was told
  Instant now_;                       // of the call in progress
  Choice choice_;                     // of the call in progress
};

}  // namespace foretoken
