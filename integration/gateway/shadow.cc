#include "integration/gateway/shadow.h"

#include <algorithm>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/sched/policy.h"

namespace foretoken {

Result<std::unique_ptr<Shadow>> Shadow::Make(SchedulerCore::Options options, const Mirrors& mirrors, LengthEstimator& lengths) {
  const auto policy = MakePolicy(options.policy, options.weights);
  if (!policy.ok()) return policy.error();
  if ((*policy)->needs() < PolicyNeeds::kPredictions)
    return Error{"--shadow " + options.policy +
                 ": only a policy that predicts can be judged without routing by it (auto, min_e2e, ...)"};
  options.shed_above = 0;
  return std::unique_ptr<Shadow>(new Shadow(std::move(options), mirrors, lengths));
}

void Shadow::AddEngine(SchedulerCore::InstanceInfo info) {
  if (scheduler_ != nullptr) {
    scheduler_->AddInstance(std::move(info));
    return;
  }
  std::vector<SchedulerCore::InstanceInfo> instances;
  instances.push_back(std::move(info));
  auto scheduler = SchedulerCore::Make(options_, std::move(instances), &lengths_);
  FT_CHECK(scheduler.ok());  // Make has tried the policy's name
  scheduler_ = std::move(scheduler).value();
}

void Shadow::SetUsable(InstanceId engine, bool usable) {
  scheduler_->SetState(engine, usable ? InstanceState::kServing : InstanceState::kDead);
}

void Shadow::SetModels(InstanceId engine, std::vector<ModelId> models) { scheduler_->SetModels(engine, std::move(models)); }

void Shadow::Decide(const RequestMeta& request, Instant now) {
  now_ = now;
  predictions_.clear();
  chosen_.reset();
  if (scheduler_ == nullptr) return;
  scheduler_->OnSchedule(request, now, *this);
  if (chosen_) scheduler_->OnCancelled(request.id, *this);  // it never runs here
}

std::optional<Prediction> Shadow::Compare(InstanceId there) {
  const Prediction* actual = Find(there);
  const Prediction* wanted = chosen_ ? Find(*chosen_) : nullptr;
  if (actual == nullptr || wanted == nullptr) return std::nullopt;
  statistics_.Add(*chosen_ != there, actual->e2e, wanted->e2e);
  return *actual;
}

const Prediction* Shadow::Find(InstanceId instance) const {
  const auto at =
      std::find_if(predictions_.begin(), predictions_.end(), [&](const Prediction& p) { return p.instance == instance; });
  return at == predictions_.end() ? nullptr : &*at;
}

void Shadow::SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) {
  for (size_t i = 0, n = targets.size(); i < n; ++i) {
    predictions_.push_back(mirrors_[targets[i].value()]->Predict(query, now_));
    scheduler_->OnPrediction(decision, predictions_.back(), now_, *this);
  }
}

void Shadow::SendEnqueue(const EnqueueOrder& order) {
  if (order.guarded) scheduler_->OnEnqueueReply({order.decision, order.instance, true, order.predicted_on, {}}, now_, *this);
}

void Shadow::Dispatch(InstanceId instance, const RequestMeta&) { chosen_ = instance; }

}  // namespace foretoken
