// SimulatorCore: a SIMULATOR without threads or messages. It owns the mirror of one instance: the sequencer that orders its sync
// stream, the reservations that SCHEDULERs made, the predictor, liveness, and the drift between what was expected and what came.
// Several SCHEDULERs may use it; its state is owned by exactly one actor.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/stream_message.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/predict/predictor.h"
#include "runtime/predict/recent_ids.h"
#include "runtime/sync/clock_map.h"
#include "runtime/sync/sequencer.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

class SimulatorEffects {
 public:
  virtual ~SimulatorEffects() = default;
  // Ask the INSTANCE for a snapshot.
  virtual void RequestResync(InstanceId instance, Epoch epoch, uint64_t from_seq, Instant at) = 0;
  // Tell the INSTANCE that a heartbeat of this epoch was heard at `at`. Asked for with Options::own_clock only.
  virtual void AnswerHeartbeat(InstanceId, Epoch, Instant) {}
};

// What is known of an instance's being alive. Progress (steps) and liveness (heartbeats) are apart: an idle instance is fresh.
enum class Liveness : uint8_t {
  kFresh,
  kStale,        // neither heartbeat nor step for stale_after: predictions are marked
  kHung,         // heartbeats say that work is held, and no step comes: out of the candidates
  kUnreachable,  // silent for dead_after: out of the candidates
};

struct SimulatorCounters {
  uint64_t predictions = 0;
  std::array<uint64_t, kPredictorKinds> answered{};  // of these, by the predictor that answered (PredictorKind)
  uint64_t stale_predictions = 0;
  uint64_t enqueues = 0;
  uint64_t overtaken = 0;         // Enqueues answered with a fresh prediction
  uint64_t foreign = 0;           // arrivals never assigned by us
  uint64_t lost_assignments = 0;  // reservations never confirmed within confirm_timeout, or lost with the engine
  uint64_t cancelled = 0;
  uint64_t stream_bytes = 0;    // received, as frames: repetitions and what was dropped included
  uint64_t snapshot_bytes = 0;  // of these, snapshots
};

// Sums over instances.
inline void Add(SimulatorCounters& a, const SimulatorCounters& b) {
  a.predictions += b.predictions;
  for (size_t i = 0; i < a.answered.size(); ++i) a.answered[i] += b.answered[i];
  a.stale_predictions += b.stale_predictions;
  a.enqueues += b.enqueues;
  a.overtaken += b.overtaken;
  a.foreign += b.foreign;
  a.lost_assignments += b.lost_assignments;
  a.cancelled += b.cancelled;
  a.stream_bytes += b.stream_bytes;
  a.snapshot_bytes += b.snapshot_bytes;
}

// Drift at each applied step: what the mirror believed against what came (protocol.md, "Drift, as a metric").
struct DriftCounters {
  uint64_t steps = 0;
  double running_abs = 0;  // sum of |believed - reported| running requests, both of the same moment
  double waiting_abs = 0;
  double step_ape = 0;   // sum of |believed/actual - 1| of the step's duration
  double step_bias = 0;  // sum of (believed/actual - 1)
};

// Sums over instances.
inline void Add(DriftCounters& a, const DriftCounters& b) {
  a.steps += b.steps;
  a.running_abs += b.running_abs;
  a.waiting_abs += b.waiting_abs;
  a.step_ape += b.step_ape;
  a.step_bias += b.step_bias;
}

class SimulatorCore {
 public:
  struct Options {
    InstanceProfile profile;
    SyncLevel level = SyncLevel::kFull;
    SequencerOptions sequencer;
    Duration stale_after = Duration::Millis(500);
    Duration dead_after = Duration::Seconds(2);
    Duration confirm_timeout = Duration::Seconds(5);
    bool liveness = false;  // the host sends heartbeats; without them silence says nothing
    // The engine has a clock of its own: its times are mapped to this side's, with a stated uncertainty.
    bool own_clock = false;
    // An order may come after what it leads to, or twice: the way from the SCHEDULERs has a delay of its own.
    bool late_orders = false;
  };

  // `lengths`: this mirror's own; it learns from what its instance finishes.
  SimulatorCore(Options options, std::unique_ptr<Predictor> predictor, std::unique_ptr<LengthEstimator> lengths);

  // The message may be moved from. `now` is the receiver's clock.
  void OnStream(StreamMessage& message, Instant now, SimulatorEffects& effects);
  Prediction Predict(const PredictQuery& query, Instant now);
  EnqueueReply OnEnqueue(const EnqueueOrder& order, Instant now);
  // Taken back by a SCHEDULER.
  void OnCancel(RequestId request, Instant now);
  // The client side saw the request end. At full sync the stream tells, and this only settles what a gap may have swallowed.
  void OnEnded(RequestId request, TokenCount output, Instant now);

  Instant NextTimer() const;
  void OnTimer(Instant now, SimulatorEffects& effects);

  Liveness LivenessAt(Instant now) const;
  bool UsableAt(Instant now) const { return LivenessAt(now) <= Liveness::kStale; }

  InstanceId instance() const { return options_.profile.instance; }
  Versions versions() const { return versions_; }
  const Predictor& predictor() const { return *predictor_; }
  const SequencerCounters& sync_counters() const { return sequencer_.counters(); }
  Epoch epoch() const { return sequencer_.epoch(); }  // of the stream that is followed
  const SimulatorCounters& counters() const { return counters_; }
  const DriftCounters& drift() const { return drift_; }
  size_t unconfirmed() const { return unconfirmed_.size(); }
  size_t assigned() const { return length_class_.size(); }  // requests assigned here and not known to have ended
  // How old the state is: 0 while the instance is idle and heard of, since nothing can have changed unseen.
  Duration AgeAt(Instant now) const { return Age(now, LivenessAt(now)); }
  Instant last_heard() const { return last_heard_; }    // Instant(): never
  int64_t free_blocks() const { return free_blocks_; }  // of the KV cache, as the engine said last
  int64_t total_blocks() const { return total_blocks_; }
  int32_t block_tokens() const { return options_.profile.limits.block_size; }
  std::optional<PredictorKind> answered_last() const { return answered_last_; }  // who gave the latest prediction

 private:
  using Stream = Sequencer<StreamMessage>;
  class Sink;

  struct Unconfirmed {
    Reservation reservation;
    Instant expires;
    Instant ended = Instant::Max();  // as the client side saw
  };

  struct AbortedLately {
    RequestId request;
    int32_t steps;  // that may still list it
  };
  static constexpr int32_t kStepsInFlight = 3;  // one more than any engine's pipeline holds

  void Apply(StreamMessage& message);
  void ApplyStep(const BatchTrace& trace);
  void CompareWithStepBefore(const BatchTrace& next);
  void ApplySnapshot(const Snapshot& snapshot);
  void ForgetAborted();
  Duration LongestDue() const;
  void ForgetEnded(const Snapshot& snapshot);
  void EpochChanged();
  bool Confirm(RequestId request);
  void ExpireReservations(Instant now);
  void Progress(Instant at);
  void KnownUpTo(Instant at);
  void HearClock(const StreamMessage& message, SimulatorEffects& effects);
  Duration ClockError(Instant at) const;
  Duration Age(Instant now, Liveness liveness) const;
  void NoteGone(RequestId request);

  Options options_;
  std::unique_ptr<LengthEstimator> lengths_;
  std::unique_ptr<Predictor> predictor_;
  Stream sequencer_;
  Versions versions_;
  std::vector<Unconfirmed> unconfirmed_;  // in order of assignment
  IdMap<uint32_t> length_class_;          // of requests assigned here and not ended
  Instant now_;                           // of the call in progress
  Instant as_of_;                         // the state is known up to here
  Duration as_of_error_;                  // at most
  ClockMap clock_;                        // of clock_epoch_, with own_clock
  Epoch clock_epoch_{0};
  Instant last_heard_;
  Instant last_progress_;
  Duration longest_step_;    // recent: a long step is no hang
  int32_t held_ = 0;         // requests that the last heartbeat saw in the engine
  int64_t prefill_due_ = 0;  // prompt tokens taken in and not yet computed, cached ones included
  int64_t free_blocks_ = 0, total_blocks_ = 0;
  std::optional<PredictorKind> answered_last_;
  std::vector<AbortedLately> aborted_;
  // With late_orders: arrived here before their order came; ended here or taken back.
  RecentIds early_, gone_;
  SimulatorCounters counters_;
  DriftCounters drift_;
  struct Told {
    uint64_t step;
    Instant end;
    int32_t running, waiting;  // believed less reported
  };
  std::optional<Told> told_;  // by the latest step, and not compared yet
};

}  // namespace foretoken
