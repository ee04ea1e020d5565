#include "runtime/eval/virtual_host.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/prng.h"
#include "runtime/eval/closed_loop.h"
#include "runtime/eval/control_links.h"
#include "runtime/eval/engine_request.h"
#include "runtime/eval/message_bytes.h"

namespace foretoken {
namespace {

// Waits for the end of one request in a forked engine.
class EndOf final : public EngineSink {
 public:
  explicit EndOf(RequestId request) : request_(request) {}
  void OnStep(const BatchTrace&) override {}
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId request, const BatchTrace::Finish&, Instant at) override {
    if (request == request_) at_ = at;
  }
  void OnRejected(RequestId request, OutcomeReason, Instant) override { refused_ |= request == request_; }

  bool open() const { return at_ == Instant::Max() && !refused_; }
  Instant at() const { return at_; }  // Instant::Max(): it never ended there

 private:
  RequestId request_;
  bool refused_ = false;
  Instant at_ = Instant::Max();
};

// A prediction with `fault` in it.
Prediction Disturbed(Prediction p, const PredictionFault& fault, uint64_t seed, RequestId request) {
  const double factor =
      (1 + fault.bias) * std::exp(fault.error * NormalAt(seed ^ 0xE4404, Mix64(request.value(), p.instance.value())));
  for (Duration* d : {&p.ttft, &p.ttft_p90, &p.e2e, &p.e2e_p90, &p.e2e_alone, &p.externality, &p.longest_gap})
    *d = Duration::FromSeconds(d->seconds() * factor);
  if (p.tpot) p.tpot = Duration::FromSeconds(p.tpot->seconds() * factor);
  return p;
}

class VirtualHost final : private SchedulerEffects, private InstanceEffects, private SimulatorEffects {
 public:
  VirtualHost(const RunOptions& options, const Trace& trace, RunObserver* observer)
      : options_(options),
        arriving_(trace.closed_loop ? trace : Trace{}),
        trace_(trace.closed_loop ? arriving_ : trace),
        observer_(observer),
        outputs_named_(NamesOutputs(trace)) {}

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
  void ArmDeadline(DecisionId decision, Instant at) override;
  // InstanceEffects
  void Send(StreamMessage& message, Instant at) override;
  void FirstToken(InstanceId instance, RequestId request, Instant at) override;
  void Finished(InstanceId instance, RequestId request, TokenCount output, Instant at) override;
  void Failed(InstanceId instance, RequestId request, OutcomeReason reason, Instant at) override;
  // SimulatorEffects
  void RequestResync(InstanceId instance, Epoch, uint64_t, Instant at) override;
  void AnswerHeartbeat(InstanceId instance, Epoch epoch, Instant at) override;

  SchedulerCore& SchedulerOf(RequestId request) { return **SlotOf(request); }
  std::unique_ptr<SchedulerCore>* SlotOf(RequestId request) { return &schedulers_[request.value() % schedulers_.size()]; }
  Status BuildSchedulers();
  Status BuildLinks();
  void AdvanceAll(Instant until);
  void AdvanceEach(Instant until);
  void AdvanceInstance(size_t k, Instant until);
  void Deliver(size_t k, Instant at);
  void DeliverCall(size_t k, const ControlCall& call, Instant at);
  void HandleControl(const ControlEvent& event);
  void SendCall(InstanceId instance, ControlCall call);
  size_t deciding() const { return static_cast<size_t>(deciding_ - schedulers_.data()); }
  void Sample();
  void RestartsUntil(Instant until);
  void ScaleUntil(Instant until);
  void Serve(int32_t instances);
  void Drain();
  void ApplyOutcomes();
  void Apply(const Outcome& outcome);
  void MeasureRegret(const DecisionRecord& d);
  EngineRequest ForEngine(const TraceRequest& r, size_t instance) const;
  static size_t IndexOf(RequestId request) { return request.value() - 1; }  // a trace numbers its requests from 1
  const TraceRequest& traced(RequestId request) const { return trace_.requests[IndexOf(request)]; }
  RunRequest& record(RequestId request) { return result_.requests[IndexOf(request)]; }
  void Collect();

  Prediction Ask(SimulatorCore& simulator, const PredictQuery& query, Instant at) const;
  void Arrive(size_t k);
  void RunClosedLoop();

  const RunOptions& options_;
  Trace arriving_;  // closed loop: the trace with arrivals as they came
  const Trace& trace_;
  RunObserver* observer_;
  const bool outputs_named_;
  bool mirrors_ = false;      // SIMULATORs are in use
  bool advance_all_ = false;  // decisions depend on what engines have done
  std::vector<std::unique_ptr<InstanceCore>> instances_;
  std::vector<std::unique_ptr<SimulatorCore>> simulators_;
  std::vector<std::unique_ptr<LengthEstimator>> lengths_;  // one per SCHEDULER
  std::vector<std::unique_ptr<SchedulerCore>> schedulers_;
  std::unique_ptr<SchedulerCore>* deciding_ = nullptr;  // whose call is in progress
  // With faults: per instance, the links of its sync stream and what is on its way on them.
  struct OnItsWay {
    Instant at;
    uint64_t order = 0;
    enum Kind : uint8_t { kStream, kCall, kResyncRequest, kHeartbeatReply } kind = kStream;  // the last two to the INSTANCE
    StreamMessage message;  // of the reply: its epoch, and when it was sent
    std::shared_ptr<const ControlCall> call;
    bool operator>(const OnItsWay& o) const { return at != o.at ? at > o.at : order > o.order; }
  };
  bool faults_ = false;
  std::vector<Link> to_simulator_, to_instance_;
  std::vector<std::vector<OnItsWay>> inbox_;  // heaps, earliest on top
  uint64_t sent_ = 0;
  std::unique_ptr<ControlLinks> control_;  // null: SIMULATORs answer at once
  std::vector<RestartEvent> restarts_;
  size_t next_restart_ = 0;
  Instant next_scaling_;
  std::vector<Outcome> outcomes_;
  std::optional<ClosedLoopUsers> users_;  // closed loop
  Instant now_;
  RunResult result_;
};

Status VirtualHost::BuildSchedulers() {
  std::vector<SchedulerCore::InstanceInfo> infos;
  for (const RunOptions::Instance& i : options_.instances) infos.push_back({i.profile.step_time, i.facts});
  for (int32_t k = 0; k < std::max(options_.scheduler_count, 1); ++k) {
    SchedulerCore::Options o = options_.scheduler;
    if (HasControlLinks(options_.faults)) o.sole = false;  // what it sends may come in another order
    if (k > 0) o.seed = Mix64(o.seed, static_cast<uint64_t>(k));
    auto lengths = options_.make_lengths(options_.scheduler.seed);
    if (!lengths.ok()) return lengths.error();
    auto scheduler = SchedulerCore::Make(std::move(o), infos, lengths->get());
    if (!scheduler.ok()) return scheduler.error();
    lengths_.push_back(std::move(lengths).value());
    schedulers_.push_back(std::move(scheduler).value());
  }
  return Status();
}

Status VirtualHost::BuildLinks() {
  faults_ = !options_.faults.empty();
  if (!faults_) return Status();
  const Status plan = CheckFaultPlan(options_.faults);
  if (!plan.ok()) return plan;
  const uint64_t seed = options_.scheduler.seed;
  for (const RunOptions::Instance& i : options_.instances) {
    const LinkEnd instance{LinkRole::kInstance, i.name}, simulator{LinkRole::kSimulator, i.name};
    for (const bool forward : {true, false}) {
      const LinkEnd& from = forward ? instance : simulator;
      const LinkEnd& to = forward ? simulator : instance;
      const LinkFaults* faults = options_.faults.FaultsOf(from, to);
      auto link = Link::Make(faults != nullptr ? *faults : LinkFaults{}, LinkSeed(seed, from, to));
      if (!link.ok()) return Error{i.name + ": " + link.error().message};
      (forward ? to_simulator_ : to_instance_).push_back(std::move(link).value());
    }
  }
  inbox_.resize(options_.instances.size());
  if (HasControlLinks(options_.faults)) {
    auto control = ControlLinks::Make(options_.faults, result_.instance_names, schedulers_.size(), seed);
    if (!control.ok()) return control.error();
    control_ = std::move(control).value();
  }
  if (!trace_.requests.empty())  // none after the last arrival: a run ends when its requests have
    restarts_ = options_.faults.RestartsOf(result_.instance_names, trace_.requests.back().meta.arrival);
  return Status();
}

Status VirtualHost::Build() {
  const Status schedulers = BuildSchedulers();
  if (!schedulers.ok()) return schedulers;
  for (const RunOptions::Instance& i : options_.instances) result_.instance_names.push_back(i.name);
  const Status links = BuildLinks();
  if (!links.ok()) return links;
  if (trace_.closed_loop && (faults_ || control_ || options_.level == SyncLevel::kPoll))
    return Error{"a closed loop is run without faults and without polls: leave out the fault plan, or set sync.level: full"};
  const PolicyNeeds needs = schedulers_.front()->needs();
  mirrors_ = needs >= PolicyNeeds::kPredictions || options_.level != SyncLevel::kNone;
  advance_all_ = needs != PolicyNeeds::kNothing || faults_ || options_.truth_sample > 0;
  for (uint32_t k = 0; k < options_.instances.size(); ++k) {
    const RunOptions::Instance& i = options_.instances[k];
    InstanceCore::Options o;
    o.instance = InstanceId(k);
    o.engine = i.engine;
    o.level = options_.level;
    o.poll_interval = options_.poll_interval;
    if (faults_) o.heartbeat = options_.heartbeat;
    o.exact_snapshots = options_.exact_snapshots;
    o.clock = options_.faults.ClockOf(i.name);
    const bool own_clock = o.clock != ClockSkew{};
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
    SimulatorCore::Options s{profile,
                             options_.level,
                             options_.sequencer,
                             options_.stale_after,
                             options_.dead_after,
                             options_.confirm_timeout,
                             faults_ && options_.level != SyncLevel::kNone,
                             own_clock,
                             control_ != nullptr};
    simulators_.push_back(
        std::make_unique<SimulatorCore>(std::move(s), std::move(predictor).value(), std::move(mirror_lengths).value()));
  }
  return Status();
}

RunResult VirtualHost::Run() {
  constexpr size_t kProgressEvery = 256;
  if (options_.scaling) Serve(options_.scaling->at_first);
  if (!trace_.requests.empty()) next_scaling_ = trace_.requests.front().meta.arrival;
  const size_t n = trace_.requests.size();
  result_.requests.resize(n);
  if (trace_.closed_loop) {
    RunClosedLoop();
  } else {
    for (size_t k = 0; k < n; ++k) {
      Arrive(k);
      if (observer_ != nullptr && k % kProgressEvery == 0) observer_->OnProgress(k, n);
    }
  }
  Drain();
  if (observer_ != nullptr) observer_->OnProgress(n, n);
  Collect();
  return std::move(result_);
}

void VirtualHost::Arrive(size_t k) {
  const TraceRequest& r = trace_.requests[k];
  FT_CHECK(IndexOf(r.meta.id) == k);
  result_.requests[k].arrival = r.meta.arrival;
  now_ = r.meta.arrival;
  RestartsUntil(now_);
  if (options_.scaling) ScaleUntil(r.meta.arrival);
  now_ = r.meta.arrival;
  if (advance_all_) AdvanceAll(now_);
  now_ = r.meta.arrival;
  if (options_.sample_mirrors) Sample();
  deciding_ = SlotOf(r.meta.id);
  SchedulerOf(r.meta.id).OnSchedule(r.meta, now_, *this);
  ApplyOutcomes();
}

// Whoever is ready comes, unless an engine acts before: that may make another user ready earlier.
void VirtualHost::RunClosedLoop() {
  users_.emplace(trace_, options_.scheduler.seed);
  for (;;) {
    Instant event = Instant::Max();
    for (const auto& instance : instances_) event = std::min(event, instance->NextEvent());
    const Instant next = users_->NextAt();
    if (next == Instant::Max() && event == Instant::Max()) return;  // all conversations are over
    if (event < next) {
      AdvanceAll(event);
      continue;
    }
    const size_t k = users_->Take();
    arriving_.requests[k].meta.arrival = next;
    Arrive(k);
  }
}

void VirtualHost::RestartsUntil(Instant until) {
  for (; next_restart_ < restarts_.size() && restarts_[next_restart_].at <= until; ++next_restart_) {
    const RestartEvent& e = restarts_[next_restart_];
    AdvanceAll(e.at);
    instances_[e.instance]->OnRestart(e.at, e.downtime, *this);
    ApplyOutcomes();
  }
}

void VirtualHost::ScaleUntil(Instant until) {
  for (; next_scaling_ <= until; next_scaling_ += options_.scaling->every) {
    AdvanceAll(next_scaling_);
    std::vector<const SimulatorCore*> mirrors;
    for (const auto& s : simulators_) mirrors.push_back(s.get());
    Serve(options_.scaling->decide(next_scaling_, mirrors));
  }
}

void VirtualHost::Serve(int32_t instances) {
  for (uint32_t k = 0; k < instances_.size(); ++k)
    for (const auto& s : schedulers_)
      s->SetState(InstanceId(k), static_cast<int32_t>(k) < instances ? InstanceState::kServing : InstanceState::kCordoned);
}

// Runs on until every request has ended and what is still on its way has arrived.
void VirtualHost::Drain() {
  const bool timers = faults_ || options_.level == SyncLevel::kPoll;  // heartbeats and polls never end by themselves
  if (!timers) return AdvanceAll(Instant::Max());
  constexpr int kSecondsMax = 1'000'000;  // a bound for a run that cannot end; what is left counts as lost
  const auto busy = [&] {
    return std::any_of(schedulers_.begin(), schedulers_.end(),
                       [](const auto& s) { return s->ledger().assigned() + s->open_rounds() > 0; });
  };
  Instant t = now_;
  for (int k = 0; k < kSecondsMax && busy(); ++k) {
    t += Duration::Seconds(1);
    RestartsUntil(t);
    AdvanceAll(t);
  }
  AdvanceAll(t + options_.confirm_timeout + options_.dead_after);
}

void VirtualHost::AdvanceAll(Instant until) {
  if (control_) {
    // What a SCHEDULER does touches every instance: all come as far as that first.
    for (Instant next = control_->Next(); next <= until && next != Instant::Max(); next = control_->Next()) {
      AdvanceEach(next);
      control_->CallsDelivered(next);
      ControlEvent event;
      while (control_->Take(next, event, now_)) {
        HandleControl(event);
        ApplyOutcomes();
      }
    }
  }
  AdvanceEach(until);
}

void VirtualHost::AdvanceEach(Instant until) {
  // Between two instants at which anything outside touches them, instances are independent of one another.
  for (size_t k = 0; k < instances_.size(); ++k)
    if (faults_ || instances_[k]->NextEvent() <= until) AdvanceInstance(k, until);
  ApplyOutcomes();
}

// Order at one instant: the engine, then what arrives, then timers.
void VirtualHost::AdvanceInstance(size_t k, Instant until) {
  InstanceCore& instance = *instances_[k];
  if (!faults_) return instance.RunUntil(until, *this);
  SimulatorCore* simulator = mirrors_ ? simulators_[k].get() : nullptr;
  for (;;) {
    Instant next = instance.NextEvent();
    if (!inbox_[k].empty()) next = std::min(next, inbox_[k].front().at);
    if (simulator != nullptr) next = std::min(next, simulator->NextTimer());
    if (next > until) break;
    instance.RunUntil(next, *this);
    Deliver(k, next);
    if (simulator != nullptr && simulator->NextTimer() <= next) simulator->OnTimer(next, *this);
  }
  instance.RunUntil(until, *this);
}

void VirtualHost::Deliver(size_t k, Instant at) {
  std::vector<OnItsWay>& inbox = inbox_[k];
  while (!inbox.empty() && inbox.front().at <= at) {
    std::pop_heap(inbox.begin(), inbox.end(), std::greater<>());
    OnItsWay m = std::move(inbox.back());
    inbox.pop_back();
    switch (m.kind) {
      case OnItsWay::kStream: simulators_[k]->OnStream(m.message, m.at, *this); break;
      case OnItsWay::kCall: DeliverCall(k, *m.call, m.at); break;
      case OnItsWay::kResyncRequest: instances_[k]->OnResyncRequest(m.at, *this); break;
      case OnItsWay::kHeartbeatReply: instances_[k]->OnHeartbeatReply(m.message.epoch, m.message.sent, m.at); break;
    }
  }
}

void VirtualHost::DeliverCall(size_t k, const ControlCall& call, Instant at) {
  SimulatorCore& simulator = *simulators_[k];
  if (const PredictQuery* query = std::get_if<PredictQuery>(&call.body)) {
    ControlEvent::Predicted answer{call.decision, Ask(simulator, *query, at)};
    control_->Reply(simulator.instance(), {call.scheduler, std::move(answer)}, at);
  } else if (const EnqueueOrder* order = std::get_if<EnqueueOrder>(&call.body)) {
    EnqueueReply reply = simulator.OnEnqueue(*order, at);
    if (order->guarded) control_->Reply(simulator.instance(), {call.scheduler, std::move(reply)}, at);
  } else {
    simulator.OnCancel(std::get<RequestId>(call.body), at);
  }
}

void VirtualHost::HandleControl(const ControlEvent& event) {
  deciding_ = &schedulers_[event.scheduler];
  SchedulerCore& scheduler = **deciding_;
  if (const auto* p = std::get_if<ControlEvent::Predicted>(&event.body)) {
    scheduler.OnPrediction(p->decision, p->prediction, now_, *this);
  } else if (const auto* reply = std::get_if<EnqueueReply>(&event.body)) {
    scheduler.OnEnqueueReply(*reply, now_, *this);
  } else {
    scheduler.OnDeadline(std::get<ControlEvent::Deadline>(event.body).decision, now_, *this);
  }
}

void VirtualHost::SendCall(InstanceId instance, ControlCall call) {
  call.scheduler = deciding();
  const auto shared = std::make_shared<const ControlCall>(std::move(call));
  std::vector<OnItsWay>& inbox = inbox_[instance.value()];
  for (const Instant t : control_->Call(shared->scheduler, instance, now_)) {
    inbox.push_back({t, sent_++, OnItsWay::kCall, {}, shared});
    std::push_heap(inbox.begin(), inbox.end(), std::greater<>());
  }
}

void VirtualHost::ArmDeadline(DecisionId decision, Instant at) {
  if (control_) control_->At(at, {deciding(), ControlEvent::Deadline{decision}});  // else every reply comes at once
}

void VirtualHost::Sample() {
  MirrorSample s;
  s.at = now_;
  size_t most = 0, all = 0;
  for (size_t k = 0; k < instances_.size(); ++k) {
    most = std::max(most, instances_[k]->held());
    all += instances_[k]->held();
    if (!mirrors_) continue;
    const EngineCore& core = instances_[k]->engine().core();
    s.wrong += std::abs(simulators_[k]->predictor().running() - core.running());
    s.wrong += std::abs(simulators_[k]->predictor().waiting() - core.waiting());
  }
  if (all > 0) s.hot_spot = static_cast<double>(most * instances_.size()) / static_cast<double>(all);
  result_.samples.push_back(s);
}

// Outcomes reach the SCHEDULER in order of time; those that a dispatch causes at once come behind.
void VirtualHost::ApplyOutcomes() {
  while (!outcomes_.empty()) {
    std::vector<Outcome> batch = std::move(outcomes_);
    outcomes_.clear();
    std::stable_sort(batch.begin(), batch.end(),
                     [](const Outcome& a, const Outcome& b) { return a.at != b.at ? a.at < b.at : a.instance < b.instance; });
    for (const Outcome& o : batch) Apply(o);
    if (outcomes_.empty()) {  // keep the storage
      batch.clear();
      outcomes_ = std::move(batch);
    }
  }
}

void VirtualHost::Apply(const Outcome& o) {
  RunRequest& r = record(o.request);
  now_ = o.at;
  result_.end = std::max(result_.end, o.at);
  if (o.kind == Outcome::kFirstToken) {
    if (r.first_token == Instant::Max()) r.first_token = o.at;
    SchedulerOf(o.request).OnFirstToken(o.request, o.at);
    if (observer_ != nullptr) observer_->OnFirstToken(o.request, o.at);
    return;
  }
  if (o.kind == Outcome::kFailed) {
    r.first_token = Instant::Max();  // nothing was kept of a failed attempt
    deciding_ = SlotOf(o.request);
    SchedulerOf(o.request).OnEngineFailure(traced(o.request).meta, o.reason, o.at, *this);
    return;
  }
  if (r.outcome != OutcomeKind::kLost) {
    ++result_.duplicated;
    return;
  }
  r.outcome = OutcomeKind::kFinished;
  r.finish = o.at;
  r.output_tokens = static_cast<int32_t>(o.output);
  SchedulerOf(o.request).OnFinished(o.request, TokenCount(o.output), o.at);
  if (observer_ != nullptr) observer_->OnFinished(o.request, TokenCount(o.output), o.at);
  if (users_) users_->OnEnded(IndexOf(o.request), o.at);
}

Prediction VirtualHost::Ask(SimulatorCore& simulator, const PredictQuery& query, Instant at) const {
  Prediction p = simulator.Predict(query, at);
  const PredictionFault& fault = options_.injected;
  if (fault.error == 0 && fault.bias == 0) return p;
  return Disturbed(std::move(p), fault, options_.scheduler.seed, query.request->id);
}

void VirtualHost::SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) {
  if (control_) {
    for (const InstanceId t : targets) SendCall(t, {0, decision, query});
    return;
  }
  const std::vector<InstanceId> ask(targets.begin(), targets.end());  // the span's storage may serve a later round meanwhile
  for (InstanceId t : ask) {
    const Prediction p = Ask(*simulators_[t.value()], query, now_);
    (*deciding_)->OnPrediction(decision, p, now_, *this);
  }
}

void VirtualHost::SendEnqueue(const EnqueueOrder& order) {
  if (control_ && mirrors_) return SendCall(order.instance, {0, order.decision, order});
  EnqueueReply reply{order.decision, order.instance, true, {}, {}};
  if (!advance_all_) AdvanceInstance(order.instance.value(), now_);
  if (mirrors_) reply = simulators_[order.instance.value()]->OnEnqueue(order, now_);
  if (order.guarded) (*deciding_)->OnEnqueueReply(reply, now_, *this);
}

void VirtualHost::SendCancel(InstanceId instance, RequestId request) {
  if (control_ && mirrors_) return SendCall(instance, {0, DecisionId(), request});
  if (mirrors_) simulators_[instance.value()]->OnCancel(request, now_);
}

EngineRequest VirtualHost::ForEngine(const TraceRequest& r, size_t instance) const {
  return EngineRequestOf(r, options_.instances[instance].engine.config.stop_at_eos, outputs_named_);
}

void VirtualHost::Dispatch(InstanceId instance, const RequestMeta& request) {
  RunRequest& r = record(request.id);
  r.instance = instance;
  ++r.assignments;
  instances_[instance.value()]->OnDispatch(ForEngine(traced(request.id), instance.value()), now_, *this);
}

void VirtualHost::Reject(RequestId request, OutcomeReason reason) {
  RunRequest& r = record(request);
  if (r.outcome != OutcomeKind::kLost) {
    ++result_.duplicated;
    return;
  }
  r.outcome = reason == OutcomeReason::kRetriesExhausted ? OutcomeKind::kFailed : OutcomeKind::kRejected;
  r.reason = reason;
  r.finish = now_;
  if (users_) users_->OnEnded(IndexOf(request), now_);
}

void VirtualHost::Decided(const DecisionRecord& d) {
  RunRequest& r = record(d.request);
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
  if (options_.truth_sample > 0 && UnitFrom(Mix64(options_.scheduler.seed ^ 0x7247, d.request.value())) < options_.truth_sample)
    MeasureRegret(d);
  if (observer_ != nullptr) observer_->OnDecision(d);
}

// True outcomes by forking every engine and running this request there, with what is there now and no later arrival.
void VirtualHost::MeasureRegret(const DecisionRecord& d) {
  double best = std::numeric_limits<double>::infinity(), chosen = best;
  InstanceId best_at;
  for (uint32_t k = 0; k < instances_.size(); ++k) {
    if (!instances_[k]->up(now_)) continue;
    const std::unique_ptr<EmulatedEngine> fork = instances_[k]->engine().Clone();
    EndOf end(d.request);
    fork->Submit(ForEngine(traced(d.request), k), now_);
    fork->RunUntil(now_, end);
    while (end.open() && fork->NextEvent() != Instant::Max()) fork->RunUntil(fork->NextEvent(), end);
    if (end.at() == Instant::Max()) continue;
    const double e2e = (end.at() - now_).seconds();
    if (InstanceId(k) == d.instance) chosen = e2e;
    if (e2e < best) best = e2e, best_at = InstanceId(k);
  }
  if (!(chosen < std::numeric_limits<double>::infinity())) return;  // the chosen one refuses it: a failure, counted as such
  result_.agree_at_one.Add(best_at == d.instance || chosen == best);
  ++result_.regret_questions;
  result_.regret_seconds += chosen - best;
}

void VirtualHost::Send(StreamMessage& message, Instant at) {
  if (!mirrors_) return;
  const size_t k = message.instance.value();
  if (!faults_) return simulators_[k]->OnStream(message, at, *this);
  for (const Instant t : to_simulator_[k].OnMessage(at, MessageBytes(message))) {
    inbox_[k].push_back({t, sent_++, OnItsWay::kStream, message, nullptr});
    std::push_heap(inbox_[k].begin(), inbox_[k].end(), std::greater<>());
  }
}

void VirtualHost::FirstToken(InstanceId instance, RequestId request, Instant at) {
  outcomes_.push_back({at, instance, request, Outcome::kFirstToken, OutcomeReason::kNone, 0});
}

void VirtualHost::Finished(InstanceId instance, RequestId request, TokenCount output, Instant at) {
  // The mirror hears of it here, between the messages of its stream; the SCHEDULERs when all instances have come this far.
  if (mirrors_) simulators_[instance.value()]->OnEnded(request, output, at);
  outcomes_.push_back({at, instance, request, Outcome::kFinished, OutcomeReason::kNone, output.value()});
}

void VirtualHost::Failed(InstanceId instance, RequestId request, OutcomeReason reason, Instant at) {
  outcomes_.push_back({at, instance, request, Outcome::kFailed, reason, 0});
}

void VirtualHost::RequestResync(InstanceId instance, Epoch, uint64_t, Instant at) {
  FT_CHECK(faults_);  // nothing is missing on a link without faults
  const size_t k = instance.value();
  for (const Instant t : to_instance_[k].OnMessage(at, kSmallMessageBytes)) {
    inbox_[k].push_back({t, sent_++, OnItsWay::kResyncRequest, {}, nullptr});
    std::push_heap(inbox_[k].begin(), inbox_[k].end(), std::greater<>());
  }
}

void VirtualHost::AnswerHeartbeat(InstanceId instance, Epoch epoch, Instant at) {
  const size_t k = instance.value();
  OnItsWay reply;
  reply.kind = OnItsWay::kHeartbeatReply;
  reply.message.epoch = epoch;
  reply.message.sent = at;
  for (const Instant t : to_instance_[k].OnMessage(at, kSmallMessageBytes)) {
    reply.at = t;
    reply.order = sent_++;
    inbox_[k].push_back(reply);
    std::push_heap(inbox_[k].begin(), inbox_[k].end(), std::greater<>());
  }
}

void VirtualHost::Collect() {
  for (auto& i : instances_) {
    const EmulatedEngine::Counters c = i->counters();
    result_.steps += c.steps;
    result_.preemptions += c.preemptions;
    result_.output_tokens += c.tokens;
  }
  for (auto& s : schedulers_) Add(result_.scheduler, s->counters());
  for (const auto* links : {&to_simulator_, &to_instance_})
    for (const Link& l : *links) Add(result_.links, l.counters());
  if (control_) Add(result_.links, control_->counters());
  for (auto& s : simulators_) {
    Add(result_.simulators, s->counters());
    Add(result_.sync, s->sync_counters());
    Add(result_.drift, s->drift());
    const PredictionLedger* l = s->predictor().ledger();
    if (l != nullptr)
      result_.accounts.push_back({s->instance(), l->ttft(), l->e2e(), l->level(), l->demotions(), l->recoveries()});
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
