// TimelinePredictor (v3): mirrors an instance by per-request progress alone and keeps, besides the present (the head), the state at
// which its whole queue is admitted (the reach). A new request is last in the queue, so it changes nothing before the reach: a
// prediction runs from there on only. Enqueue moves the reach on; a step that agrees with the timeline moves the head towards it;
// one that disagrees discards it, and the next prediction runs it anew from the head.
// Guarantees: the answers are the same bits whether the reach was kept or run anew (exact time arithmetic, step_clock.h).
// Not modelled: priorities ahead of the queue (a request is taken to queue behind those there), KV blocks and hashes.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/perf/calibrated_step_time.h"
#include "runtime/predict/arrival_rate.h"
#include "runtime/predict/error_spread.h"
#include "runtime/predict/mirror_index.h"
#include "runtime/predict/predictor.h"
#include "runtime/predict/prefix_estimator.h"
#include "runtime/predict/timeline_sim.h"

namespace foretoken {

struct TimelineOptions {
  bool reuse = true;           // keep the reach between predictions
  int32_t most_events = 4096;  // runs that one prediction may execute before it extrapolates
};

struct TimelineCounters {
  uint64_t predictions = 0;
  uint64_t reused = 0;    // predictions that found the reach
  uint64_t rebuilt = 0;   // predictions that ran it anew
  uint64_t extended = 0;  // enqueues that moved it on
  uint64_t steps = 0;
  uint64_t disagreed = 0;  // steps that did not go as the timeline had them
  uint64_t gave_up = 0;    // predictions that met most_events
};

class TimelinePredictor final : public Predictor, private TimelineJudge {
 public:
  // `lengths` may be null (expected lengths then grow by half when passed); otherwise it outlives the predictor.
  TimelinePredictor(InstanceProfile profile, const LengthEstimator* lengths, TimelineOptions options);

  PredictorKind kind() const override { return PredictorKind::kTimeline; }
  void OnEnqueue(const Reservation& reservation, Instant now) override;
  void OnArrived(RequestId request, Instant at) override;
  void OnGone(RequestId request, Instant now) override;
  void OnStep(const BatchTrace& trace) override;
  void OnAggregate(const AggregateState& state, const BatchTrace* step) override;
  void OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) override;
  Prediction Predict(const PredictQuery& query, Instant now) override;
  int32_t waiting() const override { return static_cast<int32_t>(waiting_.size() - waiting_front_); }
  int32_t running() const override { return head_.running(); }
  size_t memory_bytes() const override;
  const StepTimeModel& step_time() const override { return step_time_.model(); }
  // Of the prefix cache's image, apart.
  size_t prefix_bytes() const { return prefixes_.memory_bytes(); }

  const TimelineCounters& counters() const { return counters_; }

 private:
  // Its first token since its admission came out of the step at hand.
  struct Sampled {
    Slot slot = 0;
    uint32_t admit = 0;
  };
  // The last few answers, so that an Enqueue that follows need not ask again. Valid while nothing happened in between.
  struct Answer {
    uint64_t id = 0;
    uint64_t event = 0;
    Instant now;
    Duration ttft, e2e;
  };

  // The mirror's table (timeline_mirror.cc).
  Slot NewSlot(const MirrorRequest& r);
  void Release(Slot slot);
  MirrorRequest FromReservation(const Reservation& r, Instant ready);
  Slot Unknown(RequestId id, int32_t prompt, int32_t generated);
  uint8_t SloIndex(const Slo& slo);
  void EraseWaiting(Slot slot);
  void PushWaitingFront(Slot slot);
  void Remove(Slot slot);
  // Its order of admission.
  uint32_t RemoveRunning(Slot slot);
  int32_t GeneratedOf(const MirrorRequest& r) const;
  void RaiseTotal(MirrorRequest& r, int32_t generated) const;
  void StartDecode(Slot slot, int32_t generated, uint32_t admit);
  void RaiseOverdue(Instant at);
  void NotePace(const MirrorRequest& r, int32_t output, Instant at);
  void Forget();
  void Resume(MirrorRequest m, const Snapshot::Request& s, int32_t budget);

  // Steps (timeline_steps.cc).
  bool Agrees(const BatchTrace& trace);
  bool FinishesAgree(const BatchTrace& trace) const;
  void Apply(const BatchTrace& trace);
  void ApplyAdmission(const BatchTrace::Admission& a);
  void ApplyChunk(const BatchTrace::Chunk& c, std::vector<Sampled>& sampled);
  void NoteFirstToken(MirrorRequest& r, Instant at);
  void ApplyPreemption(RequestId id);
  void ApplyFinish(const BatchTrace::Finish& f, Instant at);
  void MoveReach(int64_t before_ns, Ticks predicted_end);
  void ReadKv(const BatchTrace& trace);
  void AdvanceTo(Instant now);
  void Learn(const BatchTrace& step);

  TimelineSim::World WorldNow();
  ExpectedArrivals ArrivalsAt(Instant now);
  void Rebuild();
  void Extend();
  // Runs the future of a request that comes at `now`; it is in requests_[0] and work_ then.
  TimelineTrack RunAsked(RequestId id, int64_t prompt, int64_t output, const std::vector<PromptSegment>& segments, bool others,
                         Instant now);
  void NotePrediction(const Reservation& r, Instant now, MirrorRequest& m);
  double ViolationAdded(Slot slot, Ticks end, Ticks lost) const override;
  void Fill(const TimelineTrack& track, const PredictQuery& query, Instant now, Prediction& p);

  InstanceProfile profile_;
  const LengthEstimator* lengths_;
  TimelineOptions options_;
  CalibratedStepTime step_time_;
  StepClock clock_;  // of step_time_
  TimelineCounters counters_;

  std::vector<MirrorRequest> requests_;  // [0] is the request being asked about
  Slot free_ = 0;                        // head of the list of free slots, linked by `prompt`
  MirrorIndex slots_{requests_};
  std::vector<Slot> waiting_;  // in order, from waiting_front_
  uint32_t waiting_front_ = 0;
  uint32_t confirmed_ = 0;  // index behind the last waiting request that the engine confirmed
  int64_t latest_ready_ns_ = 0;
  std::vector<Slo> slos_;

  TimelineSim::World world_;
  TimelineState head_;   // closed: between two steps
  TimelineState reach_;  // open: the queue is admitted
  TimelineState work_;   // scratch
  bool reach_valid_ = false;
  int64_t head_ns_ = 0;  // end of the last step known
  int64_t usable_blocks_ = 0;
  PrefixEstimator prefixes_;
  ArrivalRate arrival_rate_;
  uint64_t next_step_ = 0;      // behind the last step known
  bool follows_steps_ = false;  // steps or snapshots come; otherwise the head advances by itself

  ErrorSpread ttft_error_;
  ErrorSpread e2e_error_;
  uint64_t events_ = 1;
  std::array<Answer, 4> answers_{};
  uint32_t next_answer_ = 0;
};

}  // namespace foretoken
