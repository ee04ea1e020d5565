#include "integration/gateway/routing.h"

#include <utility>

#include "runtime/base/check.h"
#include "runtime/sched/policy.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {

Result<std::unique_ptr<Routing>> Routing::Make(Options options) {
  auto policy = MakePolicy(options.policy, PolicyWeights{});
  if (!policy.ok()) return policy.error();
  auto lengths = MakeLengthEstimator(LengthEstimatorKind::kHint);
  if (!lengths.ok()) return lengths.error();
  std::unique_ptr<Routing> routing(new Routing(std::move(options)));
  routing->lengths_ = std::move(lengths).value();
  if (routing->options_.shadow.empty()) return routing;
  SchedulerCore::Options shadow = routing->SchedulerOptions();
  shadow.policy = routing->options_.shadow;
  auto made = Shadow::Make(std::move(shadow), routing->mirrors_, *routing->lengths_);
  if (!made.ok()) return made.error();
  routing->shadow_ = std::move(made).value();
  return routing;
}

Routing::Routing(Options options) : options_(std::move(options)) {
  if (!options_.journal) return;
  RequestJournal::Options o;
  o.slo = options_.slo;
  o.timed_by_owner = true;
  o.decisions = 96;           // long enough that the ends of most are seen
  o.details_per_second = 12;  // nobody follows more
  journal_.emplace(o);
}
Routing::~Routing() = default;

SchedulerCore::Options Routing::SchedulerOptions() const {
  SchedulerCore::Options options;
  options.policy = options_.policy;
  options.slo = options_.slo;
  options.seed = options_.seed;
  options.shed_above = options_.shed_above;
  options.shed_priority = options_.shed_priority;
  options.down_backoff = Duration();  // EngineHealth says who is usable
  return options;
}

InstanceId Routing::AddEngine(const std::string& name) {
  const InstanceId id(static_cast<uint32_t>(mirrors_.size()));
  auto mirror = std::make_unique<EngineMirror>(EngineMirror::Options{id, options_.slo, SourceId(1)});
  SchedulerCore::InstanceInfo info;
  info.step_time = mirror->step_time();
  info.facts.id = id;
  info.facts.name = name;
  mirrors_.push_back(std::move(mirror));
  laws_known_.push_back(0);
  if (shadow_ != nullptr) shadow_->AddEngine(info);
  if (scheduler_ != nullptr) {
    FT_CHECK(scheduler_->AddInstance(std::move(info)) == id);
    return id;
  }
  std::vector<SchedulerCore::InstanceInfo> instances;
  instances.push_back(std::move(info));
  auto scheduler = SchedulerCore::Make(SchedulerOptions(), std::move(instances), lengths_.get());
  FT_CHECK(scheduler.ok());  // Make has tried the policy's name
  scheduler_ = std::move(scheduler).value();
  return id;
}

void Routing::SetUsable(InstanceId engine, bool usable) {
  scheduler_->SetState(engine, usable ? InstanceState::kServing : InstanceState::kDead);
  if (shadow_ != nullptr) shadow_->SetUsable(engine, usable);
}

void Routing::RemoveEngine(InstanceId engine) {
  scheduler_->RemoveInstance(engine);
  if (shadow_ != nullptr) shadow_->RemoveEngine(engine);
  mirrors_[engine.value()].reset();
}

void Routing::SetModels(InstanceId engine, std::vector<ModelId> models) {
  if (shadow_ != nullptr) shadow_->SetModels(engine, models);
  scheduler_->SetModels(engine, std::move(models));
}

Routing::Choice Routing::Decide(const RequestMeta& request, Instant now) {
  now_ = now;
  choice_ = Choice{};
  choice_.reason = OutcomeReason::kNoCandidate;
  if (scheduler_ == nullptr) return choice_;
  if (shadow_ != nullptr) shadow_->Decide(request, now);
  if (journal_) journal_->OnSubmitted(request, request.arrival, now);
  scheduler_->OnSchedule(request, now, *this);
  if (shadow_ == nullptr || !choice_.placed) return choice_;
  const std::optional<Prediction> there = shadow_->Compare(choice_.instance);
  if (!choice_.prediction && there) choice_.prediction = mirrors_[choice_.instance.value()]->Believed(*there);
  return choice_;
}

Routing::Choice Routing::DecideAgain(const RequestMeta& request, OutcomeReason reason, Instant now) {
  now_ = now;
  choice_ = Choice{};
  choice_.reason = reason;
  scheduler_->OnEngineFailure(request, reason, now, *this);
  return choice_;
}

void Routing::SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) {
  // The last answer completes the round, which may begin another one: neither argument outlives that.
  for (size_t i = 0, n = targets.size(); i < n; ++i) {
    const Prediction p = mirrors_[targets[i].value()]->Predict(query, now_);
    scheduler_->OnPrediction(decision, p, now_, *this);
  }
}

void Routing::SendEnqueue(const EnqueueOrder& order) {
  if (journal_) journal_->OnChosen(order.reservation.request, scheduler_->last_candidates(), scheduler_->last_scores());
  // Nothing can have come between the prediction and this: the reply is always an acceptance, which ends the round.
  EnqueueReply reply = mirrors_[order.instance.value()]->OnEnqueue(order, now_);
  if (order.guarded) scheduler_->OnEnqueueReply(reply, now_, *this);
}

void Routing::SendCancel(InstanceId instance, RequestId request) { mirrors_[instance.value()]->OnGone(request, now_); }

void Routing::Dispatch(InstanceId instance, const RequestMeta&) {
  choice_.placed = true;
  choice_.instance = instance;
}

void Routing::Reject(RequestId request, OutcomeReason reason) {
  if (journal_) journal_->OnRejected(request, reason, now_);
  choice_.placed = false;
  choice_.reason = reason;
}

void Routing::Decided(const DecisionRecord& record) {
  choice_.score = record.score;
  if (record.predicted) choice_.prediction = mirrors_[record.instance.value()]->Believed(record.prediction);
  if (!journal_) return;
  DecisionRecord believed = record;
  if (record.predicted) believed.prediction = *choice_.prediction;
  journal_->OnDecided(believed);
}

void Routing::OnSent(const RequestMeta& request, InstanceId engine, bool streaming, Instant now) {
  mirrors_[engine.value()]->OnSent(request, streaming, now);
}

void Routing::OnOutput(RequestId request, InstanceId engine, int32_t chunks, bool first, Instant now) {
  if (first) scheduler_->OnFirstToken(request, now);
  if (first && journal_) journal_->OnFirstToken(request, now);
  mirrors_[engine.value()]->OnOutput(request, chunks, now);
}

void Routing::OnFinished(RequestId request, InstanceId engine, TokenCount output, bool exact, Instant now) {
  scheduler_->OnFinished(request, output, now);
  if (journal_) journal_->OnEnded(request, OutcomeKind::kFinished, output, now);
  mirrors_[engine.value()]->OnFinished(request, output, exact, now);
  RefreshLaw(engine);
}

void Routing::RefreshLaw(InstanceId engine) {
  const EngineMirror& mirror = *mirrors_[engine.value()];
  uint64_t& known = laws_known_[engine.value()];
  if (known == mirror.laws()) return;
  known = mirror.laws();
  scheduler_->SetStepTime(engine, mirror.step_time());
}

void Routing::OnCancelled(RequestId request, InstanceId, Instant now) {
  now_ = now;
  if (journal_) journal_->OnEnded(request, OutcomeKind::kCancelled, TokenCount(), now);
  scheduler_->OnCancelled(request, *this);
}

}  // namespace foretoken
