#include "runtime/eval/virtual_host.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

// True when some prompt of the trace names another request's output (a later turn of a conversation).
bool NamesOutputs(const Trace& trace) {
  const uint64_t n = trace.requests.size();
  for (const TraceRequest& r : trace.requests)
    for (const PromptSegment& s : r.meta.segments)
      if (s.content % 2 == 1 && (s.content - 1) / 2 < n) return true;
  return false;
}

class VirtualHost final : private SchedulerEffects, private InstanceEffects, private SimulatorEffects {
 public:
  VirtualHost(const RunOptions& options, const Trace& trace, RunObserver* observer)
      : options_(options), trace_(trace), observer_(observer), outputs_named_(NamesOutputs(trace)) {}

  Status Build();
  RunResult Run();

 private:
  struct Outcome {
    Instant at;
    InstanceId instance;
    RequestId request;
    enum Kind : uint8_t { kFirstToken, kFinished, kFailed } kind;
    OutcomeReason reason = OutcomeReason::kNone;
    int64_t output = 0;
  };

  // SchedulerEffects
  void SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) override;
  void SendEnqueue(const EnqueueOrder& order) override;
  void SendCancel(InstanceId instance, RequestId request) override;
  void Dispatch(InstanceId instance, const RequestMeta& request) override;
  void Reject(RequestId request, OutcomeReason reason) override;
  void Decided(const DecisionRecord& record) override;
  void ArmDeadline(DecisionId, Instant) override {}  // every reply comes at the instant of the question
  // InstanceEffects
  void Send(StreamMessage& message, Instant at) override;
  void FirstToken(InstanceId instance, RequestId request, Instant at) override;
  void Finished(InstanceId instance, RequestId request, TokenCount output, Instant at) override;
  void Failed(InstanceId instance, RequestId request, OutcomeReason reason, Instant at) override;
  // SimulatorEffects
  void RequestResync(InstanceId instance, Epoch, uint64_t, Instant at) override;

  void AdvanceAll(Instant until);
  void ApplyOutcomes();
  void Apply(const Outcome& outcome);
  EngineRequest ForEngine(const TraceRequest& r) const;
  RequestRecord& record(RequestId request) { return result_.requests[request.value()]; }
  void Collect();

  const RunOptions& options_;
  const Trace& trace_;
  RunObserver* observer_;
  const bool outputs_named_;
  bool mirrors_ = false;      // SIMULATORs are in use
  bool advance_all_ = false;  // decisions depend on what engines have done
  std::vector<std::unique_ptr<InstanceCore>> instances_;
  std::vector<std::unique_ptr<SimulatorCore>> simulators_;
  std::unique_ptr<LengthEstimator> lengths_;
  std::unique_ptr<SchedulerCore> scheduler_;
  std::vector<Outcome> outcomes_;
  Instant now_;
  RunResult result_;
};

Status VirtualHost::Build() {
  auto lengths = options_.make_lengths(options_.scheduler.seed);
  if (!lengths.ok()) return lengths.error();
  lengths_ = std::move(lengths).value();
  std::vector<SchedulerCore::InstanceInfo> infos;
  for (const RunOptions::Instance& i : options_.instances)
    infos.push_back({i.profile.step_time, i.kv_tokens, i.models});
  auto scheduler = SchedulerCore::Make(options_.scheduler, std::move(infos), lengths_.get());
  if (!scheduler.ok()) return scheduler.error();
  scheduler_ = std::move(scheduler).value();
  mirrors_ = scheduler_->needs() >= PolicyNeeds::kPredictions || options_.level != SyncLevel::kNone;
  advance_all_ = scheduler_->needs() != PolicyNeeds::kNothing;
  for (uint32_t k = 0; k < options_.instances.size(); ++k) {
    const RunOptions::Instance& i = options_.instances[k];
    result_.instance_names.push_back(i.name);
    InstanceCore::Options o;
    o.instance = InstanceId(k);
    o.engine = i.engine;
    o.engine.config.stop_at_eos = options_.stop_at_eos;
    o.level = options_.level;
    o.poll_interval = options_.poll_interval;
    auto instance = InstanceCore::Make(std::move(o));
    if (!instance.ok()) return Error{i.name + ": " + instance.error().message};
    instances_.push_back(std::move(instance).value());
    if (!mirrors_) continue;
    auto mirror_lengths = options_.make_lengths(options_.scheduler.seed);
    if (!mirror_lengths.ok()) return mirror_lengths.error();
    InstanceProfile profile = i.profile;
    profile.instance = InstanceId(k);
    auto predictor = options_.make_predictor(profile, mirror_lengths->get());
    if (!predictor.ok()) return Error{i.name + ": " + predictor.error().message};
    SimulatorCore::Options s{profile, options_.level, options_.sequencer, options_.stale_after, options_.dead_after,
                             options_.confirm_timeout, false};
    simulators_.push_back(
        std::make_unique<SimulatorCore>(std::move(s), std::move(predictor).value(), std::move(mirror_lengths).value()));
  }
  return Status();
}

RunResult VirtualHost::Run() {
  constexpr size_t kProgressEvery = 256;
  const size_t n = trace_.requests.size();
  result_.requests.resize(n);
  for (size_t k = 0; k < n; ++k) {
    const TraceRequest& r = trace_.requests[k];
    FT_CHECK(r.meta.id == RequestId(k));  // a trace numbers its requests
    result_.requests[k].arrival = r.meta.arrival;
    now_ = r.meta.arrival;
    if (advance_all_) AdvanceAll(now_);
    scheduler_->OnSchedule(r.meta, now_, *this);
    ApplyOutcomes();
    if (observer_ != nullptr && k % kProgressEvery == 0) observer_->OnProgress(k, n);
  }
  AdvanceAll(Instant::Max());
  if (observer_ != nullptr) observer_->OnProgress(n, n);
  Collect();
  return std::move(result_);
}

void VirtualHost::AdvanceAll(Instant until) {
  // Between two instants at which anything outside touches them, instances are independent of one another.
  for (auto& instance : instances_)
    if (instance->NextEvent() <= until) instance->RunUntil(until, *this);
  ApplyOutcomes();
}

// Outcomes reach the SCHEDULER in order of time; those that a dispatch causes at once come behind.
void VirtualHost::ApplyOutcomes() {
  while (!outcomes_.empty()) {
    std::vector<Outcome> batch = std::move(outcomes_);
    outcomes_.clear();
    std::stable_sort(batch.begin(), batch.end(), [](const Outcome& a, const Outcome& b) {
      return a.at != b.at ? a.at < b.at : a.instance < b.instance;
    });
    for (const Outcome& o : batch) Apply(o);
    if (outcomes_.empty()) {  // keep the storage
      batch.clear();
      outcomes_ = std::move(batch);
    }
  }
}

void VirtualHost::Apply(const Outcome& o) {
  RequestRecord& r = record(o.request);
  now_ = o.at;
  result_.end = std::max(result_.end, o.at);
  if (o.kind == Outcome::kFirstToken) {
    if (r.first_token == Instant::Max()) r.first_token = o.at;
    scheduler_->OnFirstToken(o.request);
    return;
  }
  if (o.kind == Outcome::kFailed) {
    r.first_token = Instant::Max();  // nothing was kept of a failed attempt
    scheduler_->OnEngineFailure(trace_.requests[o.request.value()].meta, o.reason, o.at, *this);
    return;
  }
  if (r.outcome != OutcomeKind::kLost) {
    ++result_.duplicated;
    return;
  }
  r.outcome = OutcomeKind::kFinished;
  r.finish = o.at;
  r.output_tokens = static_cast<int32_t>(o.output);
  scheduler_->OnFinished(o.request, TokenCount(o.output));
  if (mirrors_) simulators_[o.instance.value()]->OnEnded(o.request, TokenCount(o.output), o.at);
}

void VirtualHost::SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) {
  const std::vector<InstanceId> ask(targets.begin(), targets.end());  // the span's storage may serve a later round meanwhile
  for (InstanceId t : ask) {
    const Prediction p = simulators_[t.value()]->Predict(query, now_);
    scheduler_->OnPrediction(decision, p, now_, *this);
  }
}

void VirtualHost::SendEnqueue(const EnqueueOrder& order) {
  EnqueueReply reply{order.decision, order.instance, true, {}, {}};
  if (mirrors_) reply = simulators_[order.instance.value()]->OnEnqueue(order, now_);
  if (order.guarded) scheduler_->OnEnqueueReply(reply, now_, *this);
}

void VirtualHost::SendCancel(InstanceId instance, RequestId request) {
  if (mirrors_) simulators_[instance.value()]->OnCancel(request, now_);
}

EngineRequest VirtualHost::ForEngine(const TraceRequest& r) const {
  EngineRequest e;
  e.id = r.meta.id;
  e.priority = r.meta.priority;
  e.arrival_key = r.meta.arrival.seconds();
  e.prompt_tokens = r.meta.prompt_tokens.value();
  e.output_tokens = r.truth.output_tokens.value();
  const int64_t limit = r.meta.max_tokens.value_or(TokenCount(std::numeric_limits<int32_t>::max())).value();
  e.max_tokens = options_.stop_at_eos ? limit : std::min(limit, e.output_tokens);
  e.segments = r.meta.segments;
  e.output_named_later = outputs_named_;
  return e;
}

void VirtualHost::Dispatch(InstanceId instance, const RequestMeta& request) {
  RequestRecord& r = record(request.id);
  r.instance = instance;
  ++r.assignments;
  InstanceCore& core = *instances_[instance.value()];
  if (!advance_all_) core.RunUntil(now_, *this);
  core.OnDispatch(ForEngine(trace_.requests[request.id.value()]), now_, *this);
}

void VirtualHost::Reject(RequestId request, OutcomeReason reason) {
  RequestRecord& r = record(request);
  if (r.outcome != OutcomeKind::kLost) {
    ++result_.duplicated;
    return;
  }
  r.outcome = reason == OutcomeReason::kRetriesExhausted ? OutcomeKind::kFailed : OutcomeKind::kRejected;
  r.reason = reason;
  r.finish = now_;
}

void VirtualHost::Decided(const DecisionRecord& d) {
  RequestRecord& r = record(d.request);
  r.decided = d.at;
  r.predicted = d.predicted;
  if (d.predicted) {
    r.predicted_ttft = d.prediction.ttft;
    r.predicted_ttft_p90 = d.prediction.ttft_p90;
    r.predicted_e2e = d.prediction.e2e;
    r.predicted_e2e_p90 = d.prediction.e2e_p90;
    r.predictor = d.predictor;
    r.stale = d.prediction.stale;
  }
  if (observer_ != nullptr) observer_->OnDecision(d);
}

void VirtualHost::Send(StreamMessage& message, Instant at) {
  if (mirrors_) simulators_[message.instance.value()]->OnStream(message, at, *this);
}

void VirtualHost::FirstToken(InstanceId instance, RequestId request, Instant at) {
  outcomes_.push_back({at, instance, request, Outcome::kFirstToken, OutcomeReason::kNone, 0});
}

void VirtualHost::Finished(InstanceId instance, RequestId request, TokenCount output, Instant at) {
  outcomes_.push_back({at, instance, request, Outcome::kFinished, OutcomeReason::kNone, output.value()});
}

void VirtualHost::Failed(InstanceId instance, RequestId request, OutcomeReason reason, Instant at) {
  outcomes_.push_back({at, instance, request, Outcome::kFailed, reason, 0});
}

void VirtualHost::RequestResync(InstanceId instance, Epoch, uint64_t, Instant at) {
  instances_[instance.value()]->OnResyncRequest(at, *this);
}

void VirtualHost::Collect() {
  for (auto& i : instances_) {
    const EmulatedEngine::Counters c = i->counters();
    result_.steps += c.steps;
    result_.preemptions += c.preemptions;
    result_.output_tokens += c.tokens;
  }
  result_.scheduler = scheduler_->counters();
  for (auto& s : simulators_) {
    Add(result_.simulators, s->counters());
    Add(result_.sync, s->sync_counters());
    Add(result_.drift, s->drift());
  }
}

}  // namespace

Result<RunResult> RunVirtual(const RunOptions& options, const Trace& trace, RunObserver* observer) {
  VirtualHost host(options, trace, observer);
  const Status built = host.Build();
  if (!built.ok()) return built.error();
  return host.Run();
}

}  // namespace foretoken
