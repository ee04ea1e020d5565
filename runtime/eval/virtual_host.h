// The virtual host: one closed-loop run - trace, SCHEDULERs, SIMULATORs, INSTANCEs, links - in virtual time, on one thread,
// deterministic: same options and seed, same bytes. Time jumps from event to event. Order at one instant: what engines and links
// do comes before an arrival; arrivals in trace order. The CAF host (actors/, tests) must give the same decisions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/fault/fault_plan.h"
#include "runtime/fault/link.h"
#include "runtime/metrics/rank_agreement.h"
#include "runtime/model/instance.h"
#include "runtime/model/request.h"
#include "runtime/predict/ledger.h"
#include "runtime/predict/predictor.h"
#include "runtime/predict/simulator_core.h"
#include "runtime/sched/scheduler_core.h"
#include "runtime/sync/instance_core.h"
#include "runtime/workload/length_estimator.h"
#include "runtime/workload/trace.h"

namespace foretoken {

// Error added to every prediction's times, to learn how right they must be: each answer is multiplied by (1 + bias) exp(error z), z
// normal, drawn per request and instance. Probabilities of a violation are left as they are: goals in seconds are what it disturbs.
struct PredictionFault {
  double error = 0;
  double bias = 0;
};

// Membership as an autoscaler changes it.
struct Scaling {
  Duration every;        // of virtual time
  int32_t at_first = 0;  // so many of the instances take requests at the begin
  // How many take requests from now on, the first so many; the others end what they have. Given the mirrors of all, by instance.
  std::function<int32_t(Instant now, const std::vector<const SimulatorCore*>& mirrors)> decide;
};

struct RunOptions {
  struct Instance {
    std::string name;
    EmulatedEngine::Options engine;  // the truth
    InstanceProfile profile;         // what its predictor knows
    foretoken::Instance facts;       // what the SCHEDULER knows of it
  };
  std::vector<Instance> instances;
  SchedulerCore::Options scheduler;
  int32_t scheduler_count = 1;                 // requests are dealt out among them
  FaultPlan faults;                            // of the links that CheckFaultPlan names, and restarts
  Duration heartbeat = Duration::Millis(250);  // sent when there are faults, since silence then means something
  bool exact_snapshots = false;
  SyncLevel level = SyncLevel::kFull;
  Duration poll_interval = Duration::Millis(100);
  SequencerOptions sequencer;
  Duration stale_after = Duration::Millis(500);
  Duration dead_after = Duration::Seconds(2);
  Duration confirm_timeout = Duration::Seconds(5);
  // Share of decisions for which the emulated engines are forked and the request is run on every candidate, so that the choice
  // can be compared with the best one (costs milliseconds each). 0: none.
  double truth_sample = 0;
  // At every arrival, look at all instances and their mirrors: RunResult::samples.
  bool sample_mirrors = false;
  PredictionFault injected;
  std::optional<Scaling> scaling;  // absent: all take requests
  // Composition: which predictor and which estimator. Called once per instance, and once per SCHEDULER for the estimator.
  std::function<Result<std::unique_ptr<Predictor>>(const InstanceProfile&, const LengthEstimator*)> make_predictor;
  std::function<Result<std::unique_ptr<LengthEstimator>>(uint64_t seed)> make_lengths;
};

// One request's way through the run. Instants that did not come are Instant::Max().
struct RunRequest {
  Instant arrival;
  Instant first_token = Instant::Max();
  Instant finish = Instant::Max();
  InstanceId instance;  // the last that it was assigned to
  OutcomeKind outcome = OutcomeKind::kLost;
  OutcomeReason reason = OutcomeReason::kNone;
  int32_t output_tokens = 0;
  int32_t assignments = 0;
  bool predicted = false;  // at its last decision
  Instant decided;
  Duration predicted_ttft, predicted_ttft_p90, predicted_e2e, predicted_e2e_p90;  // from `decided`
  PredictorKind predictor = PredictorKind::kLedger;
  bool stale = false;
};

// All instances at an arrival, before it.
struct MirrorSample {
  Instant at;
  int32_t wrong = 0;    // sum over instances of |believed - true| waiting and running requests
  double hot_spot = 1;  // requests held by the instance that holds most, over the mean
};

struct RunResult {
  std::vector<RunRequest> requests;  // in trace order
  uint64_t steps = 0;
  uint64_t preemptions = 0;
  uint64_t output_tokens = 0;
  uint64_t duplicated = 0;  // outcomes of requests that had ended already
  Instant end;              // of the last event
  SchedulerCounters scheduler;
  SimulatorCounters simulators;  // summed over instances, as the next two
  SequencerCounters sync;
  DriftCounters drift;
  LinkCounters links;
  // Per instance with a SIMULATOR: its predictions against what came (ledger.h).
  struct Account {
    InstanceId instance;
    ErrorSummary ttft, e2e;
    int32_t level = 0;  // of the predictor that answered last; 0: the configured one
    uint64_t demotions = 0, recoveries = 0;
  };
  std::vector<Account> accounts;
  // Of the decisions sampled for it (RunOptions::truth_sample): did the choice equal the best by true outcome, and what did it lose?
  AgreeAtOne agree_at_one;
  uint64_t regret_questions = 0;
  double regret_seconds = 0;  // sum of chosen - best true E2E
  std::vector<MirrorSample> samples;
  std::vector<std::string> instance_names;
};

// What of a fault plan the hosts of a run can do: links between instances and their simulators, clocks of instances, links between
// schedulers and simulators that lose nothing, and restarts.
// Error: names the first rule that would silently do nothing.
Status CheckFaultPlan(const FaultPlan& plan);

class RunObserver {
 public:
  virtual ~RunObserver() = default;
  virtual void OnDecision(const DecisionRecord& record) = 0;
  // Every so many arrivals.
  virtual void OnProgress(size_t arrived, size_t total) = 0;
  virtual void OnFirstToken(RequestId, Instant) {}
  virtual void OnFinished(RequestId, TokenCount /*output*/, Instant) {}
};

// The trace's requests are numbered 1, 2, ... in order. `observer` may be null. Error: what in the options cannot be run.
Result<RunResult> RunVirtual(const RunOptions& options, const Trace& trace, RunObserver* observer);

}  // namespace foretoken
