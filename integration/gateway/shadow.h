// Shadow: a second policy that decides beside the one that routes, from the same mirrors at the same instant, and whose decisions
// are only compared: nothing is sent, nothing is reserved by it.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "integration/engines/openai/engine_mirror.h"
#include "integration/gateway/shadow_statistics.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/sched/scheduler_core.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

class Shadow final : private SchedulerEffects {
 public:
  using Mirrors = std::vector<std::unique_ptr<EngineMirror>>;

  // `mirrors` and `lengths` outlive it. Error: the policy is unknown, or goes by loads: what it would do depends on the loads that
  // its own decisions would have made, which are not there.
  static Result<std::unique_ptr<Shadow>> Make(SchedulerCore::Options options, const Mirrors& mirrors, LengthEstimator& lengths);

  void AddEngine(SchedulerCore::InstanceInfo info);
  void SetUsable(InstanceId engine, bool usable);
  void RemoveEngine(InstanceId engine) { scheduler_->RemoveInstance(engine); }
  void SetModels(InstanceId engine, std::vector<ModelId> models);
  // Before the policy that routes has reserved anything for the request.
  void Decide(const RequestMeta& request, Instant now);
  // Where the request went. The prediction that was made for it there, when one was made.
  std::optional<Prediction> Compare(InstanceId there);
  ShadowStatistics::Report report() const { return statistics_.report(); }

 private:
  Shadow(SchedulerCore::Options options, const Mirrors& mirrors, LengthEstimator& lengths)
      : options_(std::move(options)), mirrors_(mirrors), lengths_(lengths) {}

  void SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) override;
  void SendEnqueue(const EnqueueOrder& order) override;
  void SendCancel(InstanceId, RequestId) override {}  // nothing was reserved
  void Dispatch(InstanceId instance, const RequestMeta& request) override;
  void Reject(RequestId, OutcomeReason) override {}
  void Decided(const DecisionRecord&) override {}
  void ArmDeadline(DecisionId, Instant) override {}

  const Prediction* Find(InstanceId instance) const;

  SchedulerCore::Options options_;
  const Mirrors& mirrors_;
  LengthEstimator& lengths_;
  std::unique_ptr<SchedulerCore> scheduler_;  // made with the first engine
  ShadowStatistics statistics_;
  Instant now_;
  std::vector<Prediction> predictions_;  // of the decision in progress
  std::optional<InstanceId> chosen_;
};

}  // namespace foretoken
