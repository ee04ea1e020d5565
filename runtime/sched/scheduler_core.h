// SchedulerCore: the decisions of one SCHEDULER, without time, threads or messages. Events go in through On...(); what has to
// happen comes out through SchedulerEffects, in order, before the call returns. A round: Schedule -> Predict to every candidate in
// parallel -> all answered or deadline -> the policy scores -> Enqueue at the winner (a reservation) -> Dispatch.
//
// Guarantees: every request that comes in is dispatched or gets exactly one Reject; one that an engine lost or refused is decided
// again within the retry bounds; a reply after its round is counted, never used; at most one re-pick per round.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/base/ids.h"
#include "runtime/base/prng.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/model/instance.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/perf/step_time_model.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/sched/assignment_ledger.h"
#include "runtime/sched/eligibility.h"
#include "runtime/sched/fan_out.h"
#include "runtime/sched/policy.h"
#include "runtime/sched/prefix_directory.h"
#include "runtime/sched/slow_start.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

struct DecisionRecord {
  Instant at;
  RequestId request;
  InstanceId instance;
  std::string_view policy;
  PredictorKind predictor = PredictorKind::kLedger;  // who answered for the winner
  uint64_t state_version = 0;
  double score = 0;
  double runner_up = 0;
  bool repicked = false;
  bool probe = false;      // chosen to learn of an instance that joins, whatever its score
  int32_t attempt = 0;     // 0: the first assignment of this request
  int32_t unanswered = 0;  // candidates whose prediction did not come
  bool predicted = false;
  Prediction prediction;  // the winner's, when predicted
  DecisionId decision;
};

class SchedulerEffects {
 public:
  virtual ~SchedulerEffects() = default;
  // Ask each target; answer with OnPrediction or OnUnreachable. `query` is valid until the round ends.
  virtual void SendPredict(DecisionId decision, std::span<const InstanceId> targets, const PredictQuery& query) = 0;
  // Tell the winner's SIMULATOR; when `order.guarded`, answer with OnEnqueueReply.
  virtual void SendEnqueue(const EnqueueOrder& order) = 0;
  // Take a reservation back: the request will not run, or not go on, there.
  virtual void SendCancel(InstanceId instance, RequestId request) = 0;
  virtual void Dispatch(InstanceId instance, const RequestMeta& request) = 0;
  virtual void Reject(RequestId request, OutcomeReason reason) = 0;
  virtual void Decided(const DecisionRecord& record) = 0;
  // Call OnDeadline(decision) at `at`.
  virtual void ArmDeadline(DecisionId decision, Instant at) = 0;
};

struct SchedulerCounters {
  uint64_t decisions = 0;
  uint64_t repicks = 0;
  uint64_t late_replies = 0;    // after the round was over
  uint64_t expired_rounds = 0;  // ended by their deadline
  uint64_t unanswered = 0;      // candidates that did not answer in time
  uint64_t by_ledger = 0;       // decided without any prediction although the policy asks for them
  uint64_t retried = 0;
  uint64_t rejected_no_candidate = 0;
  uint64_t rejected_retries = 0;
  uint64_t shed = 0;
  uint64_t unknown_outcomes = 0;  // of requests not assigned here
  uint64_t unusable = 0;          // candidates passed over because they are believed hung or unreachable
  uint64_t prefiltered = 0;       // candidates that were not asked for a prediction
  uint64_t self_suspected = 0;    // decisions in which most candidates seemed unusable, so that all were kept
  uint64_t begun_anew = 0;        // rounds whose candidates, or winner, were drained meanwhile
};

// Sums over SCHEDULERs.
inline void Add(SchedulerCounters& a, const SchedulerCounters& b) {
  a.decisions += b.decisions;
  a.repicks += b.repicks;
  a.late_replies += b.late_replies;
  a.expired_rounds += b.expired_rounds;
  a.unanswered += b.unanswered;
  a.by_ledger += b.by_ledger;
  a.retried += b.retried;
  a.rejected_no_candidate += b.rejected_no_candidate;
  a.rejected_retries += b.rejected_retries;
  a.shed += b.shed;
  a.unknown_outcomes += b.unknown_outcomes;
  a.unusable += b.unusable;
  a.prefiltered += b.prefiltered;
  a.self_suspected += b.self_suspected;
  a.begun_anew += b.begun_anew;
}

class SchedulerCore {
 public:
  struct InstanceInfo {
    StepTimeModel step_time;  // law may be null: unknown speed
    Instance facts;           // what it serves and holds; its state may change (SetState)
  };
  struct Options {
    std::string policy = "auto";
    PolicyWeights weights;
    Slo slo;
    uint64_t seed = 1;
    Duration decision_deadline = Duration::Millis(5);
    RepickRule repick = RepickRule::kVersioned;
    // No other SCHEDULER reserves at these instances, and what this one sends reaches each SIMULATOR in order. Then it knows by
    // itself whether its prediction was overtaken, and waits for no EnqueueReply where it was not.
    bool sole = false;
    int32_t retry_max = 3;                          // after a refusal by an engine
    int32_t retry_max_crash = 1;                    // after a crash or restart under the request
    Duration down_backoff = Duration::Millis(250);  // an engine that refused a connection is tried again after this
    // Two stages: when more instances than this may serve a request, only the best of them by the SCHEDULER's own account are asked for
    // predictions. 0: all are asked.
    int32_t predict_max = 0;
    std::string prefilter = "lmetricw";  // the policy that picks those: one that needs no predictions
    double shed_above = 0;  // > 0: refuse when the best candidate's P(SLO violation) exceeds it and priority >= shed_priority
    int32_t shed_priority = 0;
  };

  // `lengths` is not owned; it learns from outcomes and is read for every decision.
  static Result<std::unique_ptr<SchedulerCore>> Make(Options options, std::vector<InstanceInfo> instances,
                                                     LengthEstimator* lengths);

  // A request asks for a placement. The meta must stay valid until the request's end (OnOutcome) or its Reject.
  void OnSchedule(const RequestMeta& request, Instant now, SchedulerEffects& effects);
  void OnPrediction(DecisionId decision, const Prediction& prediction, Instant now, SchedulerEffects& effects);
  void OnUnreachable(DecisionId decision, InstanceId instance, Instant now, SchedulerEffects& effects);
  void OnDeadline(DecisionId decision, Instant now, SchedulerEffects& effects);
  // accepted, or overtaken with a fresh prediction.
  void OnEnqueueReply(const EnqueueReply& reply, Instant now, SchedulerEffects& effects);

  void OnFirstToken(RequestId request, Instant now);
  void OnFinished(RequestId request, TokenCount output, Instant now);
  // The engine refused it, or crashed under it: decided again elsewhere, or rejected.
  void OnEngineFailure(const RequestMeta& request, OutcomeReason reason, Instant now, SchedulerEffects& effects);
  // The client has gone.
  void OnCancelled(RequestId request, SchedulerEffects& effects);

  // Another policy or other weights from the next decision on. Error: as MakePolicy; nothing changes then.
  Status SetPolicy(const std::string& policy, const PolicyWeights& weights);
  // Membership: only a serving instance takes anything new.
  void SetState(InstanceId instance, InstanceState state) { instances_[instance.value()].facts.state = state; }
  // One that joins at run time; its id is the next index, and never another's.
  InstanceId AddInstance(InstanceInfo info);
  // As AddInstance, under a number that others have given, in any order. It has not been used before.
  void AddInstance(InstanceId id, InstanceInfo info);
  // What is known of its speed is uncertain, because it is new or may be another engine than before: it is trusted bit by bit
  // (slow_start.h). Nothing to do where the policy does not go by predictions.
  void BeginSlowStart(InstanceId instance, Instant now) {
    if (policy_->needs() >= PolicyNeeds::kPredictions) slow_start_.Begin(instance, now);
  }
  // It has left for good: no candidate any more, whatever its state. Requests still there end as they end.
  void RemoveInstance(InstanceId instance);
  // What it serves and what is known of its speed, when that is learnt only at run time.
  void SetModels(InstanceId instance, std::vector<ModelId> models) {
    instances_[instance.value()].facts.models = std::move(models);
  }
  void SetStepTime(InstanceId instance, StepTimeModel model) { instances_[instance.value()].step_time = std::move(model); }

  PolicyNeeds needs() const { return policy_->needs(); }
  const AssignmentLedger& ledger() const { return ledger_; }
  const SlowStart& slow_start() const { return slow_start_; }
  const SchedulerCounters& counters() const { return counters_; }
  size_t open_rounds() const { return open_.size(); }
  // Of the latest choice, for whoever explains it: valid inside SchedulerEffects::SendEnqueue.
  std::span<const Candidate> last_candidates() const { return candidates_; }
  std::span<const double> last_scores() const { return scores_; }
  bool IsOpen(DecisionId decision) const { return open_.Find(decision.value()) != nullptr; }

 private:
  struct Round {
    DecisionId id;
    const RequestMeta* request = nullptr;
    PredictQuery query;
    FanOut fan_out;
    int32_t attempt = 0;
    bool repicked = false;
    bool enqueued = false;  // waits for an EnqueueReply
    uint64_t opened = 0;    // value of reservations_ then
    int chosen = -1;
    int64_t cached = 0;  // prompt tokens expected in the chosen one's prefix cache
    double score = 0;
    double runner_up = 0;
    bool probe = false;  // chosen to learn of a joining instance, whatever its score
    ScoreRule score_rule;
  };
  struct Attempts {
    int32_t refused = 0;
    int32_t crashed = 0;
    std::vector<InstanceId> excluded;  // refused or crashed there
  };

  SchedulerCore(Options options, std::vector<InstanceInfo> instances, LengthEstimator* lengths, std::unique_ptr<Policy> policy,
                std::unique_ptr<Policy> prefilter);

  void Begin(const RequestMeta& request, Instant now, int32_t attempt, const Attempts* attempts, SchedulerEffects& effects);
  // Fills targets_; exclusions_ says of every instance why it is none (kNone: down for the moment, or it failed this request).
  void FindTargets(const RequestMeta& request, const Attempts* attempts, Instant now);
  void ListCandidates(const Round& round);
  void KeepBest(const RequestMeta& request, TokenCount expected_output);
  void ExcludeUnusable();
  // While instances join: takes those out that have what they are trusted with. The index of a candidate to be probed, or -1.
  int HoldBackJoining(Instant now);
  void Choose(Round& round, Instant now, SchedulerEffects& effects);
  void Commit(Round& round, Instant now, SchedulerEffects& effects);
  void CommitIfServing(Round& round, Instant now, SchedulerEffects& effects);
  void BeginAnew(Round& round, Instant now, SchedulerEffects& effects);
  bool IsServing(InstanceId id) const { return instances_[id.value()].facts.state == InstanceState::kServing; }
  EnqueueOrder OrderFor(const Round& round) const;
  bool MayBeOvertaken(const Round& round, InstanceId winner) const;
  void SendCancel(InstanceId instance, RequestId request, SchedulerEffects& effects);
  Round& Acquire();
  Round* Find(DecisionId decision);
  void Close(Round& round);

  Options options_;
  std::vector<InstanceInfo> instances_;
  LengthEstimator* lengths_;
  std::unique_ptr<Policy> policy_;
  std::unique_ptr<Policy> prefilter_;  // null: every candidate is asked
  Prng prng_;
  AssignmentLedger ledger_;
  SlowStart slow_start_;
  std::vector<InstanceId> members_;  // ascending: all but those that have left
  PrefixDirectory prefixes_;         // of policies that read loads and no predictions, and of the prefilter
  std::vector<Instant> down_until_;
  uint64_t reservations_ = 0;            // made and taken back by this SCHEDULER
  std::vector<uint64_t> reserved_last_;  // by instance: value of reservations_ when it was changed there
  uint64_t next_decision_ = 1;
  std::vector<std::unique_ptr<Round>> rounds_;  // a pool: addresses stay
  std::vector<uint32_t> free_rounds_;
  IdMap<uint32_t> open_;               // decision -> index in rounds_
  IdMap<Attempts> attempts_;           // requests that have failed at least once
  std::vector<Candidate> candidates_;  // scratch of Choose
  std::vector<double> scores_;
  std::vector<Exclusion> exclusions_;  // scratch of Begin, as targets_
  std::vector<InstanceId> targets_;    // scratch of Begin
  SchedulerCounters counters_;
};

}  // namespace foretoken
