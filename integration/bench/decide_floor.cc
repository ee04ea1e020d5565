#include "integration/bench/decide_floor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "runtime/sched/scheduler_core.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

class Direct final : public SchedulerEffects {
 public:
  Direct(std::vector<std::unique_ptr<SimulatorCore>> simulators, std::vector<SyncStream> streams)
      : simulators_(std::move(simulators)), streams_(std::move(streams)), reserved_(streams_.size()) {}

  Status Open(const StepTimeModel& model, const LoadOptions& load) {
    auto lengths = MakeLengthEstimator(LengthEstimatorKind::kSampled);
    if (!lengths.ok()) return lengths.error();
    lengths_ = std::move(lengths).value();
    std::vector<SchedulerCore::InstanceInfo> infos(simulators_.size(), SchedulerCore::InstanceInfo{model, {}});
    auto core = SchedulerCore::Make(BenchScheduler(load.seed), std::move(infos), lengths_.get());
    if (!core.ok()) return core.error();
    scheduler_ = std::move(core).value();
    return Status();
  }
  void Decide(const RequestMeta& request) {
    scheduler_->OnSchedule(request, Now(), *this);
    const InstanceId winner = winner_;
    scheduler_->OnFinished(request.id, TokenCount(100), Now());
    std::vector<RequestId>& reserved = reserved_[winner.value()];
    SyncStream& stream = streams_[winner.value()];
    SimulatorCore& simulator = *simulators_[winner.value()];
    reserved.push_back(request.id);
    if (stream.begins()) {
      for (const RequestId r : reserved) simulator.OnCancel(r, Now());
      reserved.clear();
    }
    StreamMessage m = stream.Next(Now());
    NoSimulatorEffects none;
    simulator.OnStream(m, Now(), none);
  }
  Instant Now() const { return Instant::FromNanos((std::chrono::steady_clock::now() - zero_).count()); }

 private:
  void SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) override {
    const Instant now = Now();
    answers_.clear();
    for (const InstanceId t : targets) answers_.push_back(simulators_[t.value()]->Predict(query, now));
    for (const Prediction& p : answers_) scheduler_->OnPrediction(decision, p, now, *this);
  }
  void SendEnqueue(const EnqueueOrder& order) override { simulators_[order.instance.value()]->OnEnqueue(order, Now()); }
  void SendCancel(InstanceId, RequestId) override {}
  void Dispatch(InstanceId instance, const RequestMeta&) override { winner_ = instance; }
  void Reject(RequestId, OutcomeReason) override {}
  void Decided(const DecisionRecord&) override {}
  void ArmDeadline(DecisionId, Instant) override {}

  const std::chrono::steady_clock::time_point zero_ = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<SimulatorCore>> simulators_;
  std::vector<SyncStream> streams_;
  std::vector<std::vector<RequestId>> reserved_;  // by instance, since its script began
  std::unique_ptr<LengthEstimator> lengths_;
  std::unique_ptr<SchedulerCore> scheduler_;
  std::vector<Prediction> answers_;
  InstanceId winner_;
};

}  // namespace

Result<std::vector<int64_t>> MeasureDirectDecisions(const StepTimeModel& model, const LoadOptions& load,
                                                    const std::vector<SyncScript>& scripts, int32_t candidates, Duration time) {
  std::vector<std::unique_ptr<SimulatorCore>> simulators;
  std::vector<SyncStream> streams;
  for (uint32_t k = 0; k < static_cast<uint32_t>(candidates); ++k) {
    const SyncScript& script = scripts[k % scripts.size()];
    streams.emplace_back(InstanceId(k), &script);
    auto core = MakeLoadedSimulator(InstanceId(k), model, load, script, streams.back(), Instant());
    if (!core.ok()) return core.error();
    simulators.push_back(std::move(core).value());
  }
  Direct direct(std::move(simulators), std::move(streams));
  const Status opened = direct.Open(model, load);
  if (!opened.ok()) return opened.error();
  Prng prng(load.seed);
  std::vector<int64_t> nanos;
  const Instant warm = direct.Now() + Duration::Nanos(time.nanos() / 5);
  for (uint64_t id = 1'000'000; nanos.empty() || direct.Now() < warm + time; ++id) {
    const RequestMeta request = DrawRequest(prng, RequestId(id), direct.Now());
    const Instant from = direct.Now();
    direct.Decide(request);
    if (from >= warm) nanos.push_back((direct.Now() - from).nanos());
  }
  return nanos;
}

}  // namespace foretoken
