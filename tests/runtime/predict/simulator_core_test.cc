// A SIMULATOR's core alone, with a scripted predictor: liveness, reservations and when they are refused, epochs, snapshots, expiry.
#include "runtime/predict/simulator_core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/perf/step_time_law.h"

namespace foretoken {
namespace {

Instant Ms(int64_t ms) { return Instant() + Duration::Millis(ms); }

class Lengths final : public LengthEstimator {
 public:
  TokenCount Total(const LengthKey&, TokenCount generated) const override { return TokenCount(generated.value() + 10); }
  void Learn(uint32_t, TokenCount) override {}
  uint64_t version() const override { return 0; }
};

// Answers what it is told to, and keeps what it was told.
class Scripted final : public Predictor {
 public:
  PredictorKind kind() const override { return PredictorKind::kPattern; }
  void OnEnqueue(const Reservation& r, Instant) override { enqueued.push_back(r.request.value()); }
  void OnArrived(RequestId r, Instant) override { arrived.push_back(r.value()); }
  void OnGone(RequestId r, Instant) override { gone.push_back(r.value()); }
  void OnStep(const BatchTrace& t) override { steps.push_back(t.step); }
  void OnAggregate(const AggregateState&, const BatchTrace*) override {}
  void OnSnapshot(const Snapshot& s, Instant, const std::vector<Reservation>& r) override {
    snapshots.push_back(s);
    pending.clear();
    for (const Reservation& p : r) pending.push_back(p.request.value());
  }
  Prediction Predict(const PredictQuery&, Instant) override {
    Prediction p;
    p.ttft = p.e2e = p.e2e_alone = e2e;
    return p;
  }
  int32_t waiting() const override { return waits; }
  int32_t running() const override { return runs; }
  size_t memory_bytes() const override { return 0; }
  const StepTimeModel& step_time() const override { return law; }

  StepTimeModel law;
  int32_t waits = 0, runs = 0;
  Duration e2e = Duration::Millis(100);
  std::vector<uint64_t> enqueued, arrived, gone, steps, pending;
  std::vector<Snapshot> snapshots;
};

class SimulatorCoreTest : public ::testing::Test, protected SimulatorEffects {
 protected:
  void Make(SyncLevel level = SyncLevel::kFull) {
    SimulatorCore::Options& o = options_;
    o = {};
    // A millisecond a prefill token: a full budget of 6,000 tokens takes 6 s.
    o.profile.step_time.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{5e6, 1e6, 1e4, 0});
    o.profile.limits.max_num_batched_tokens = 8192;
    o.level = level;
    o.liveness = true;
    auto predictor = std::make_unique<Scripted>();
    predictor_ = predictor.get();
    predictor_->law = o.profile.step_time;
    core_ = std::make_unique<SimulatorCore>(o, std::move(predictor), std::make_unique<Lengths>());
    seq_ = 0;
  }
  void RequestResync(InstanceId, Epoch, uint64_t, Instant) override { ++resyncs_; }

  void Send(StreamBody body, Instant now) { SendAs(epoch_, seq_++, std::move(body), now); }
  void SendAs(uint64_t epoch, uint64_t seq, StreamBody body, Instant now) {
    StreamMessage m;
    m.epoch = Epoch(epoch);
    m.seq = seq;
    m.body = std::move(body);
    core_->OnStream(m, now, *this);
  }
  void Beat(Instant now, int32_t held) { Send(Heartbeat{now, 0, held, held > 0, now}, now); }
  void Step(Instant start, Duration duration) {
    BatchTrace t;
    t.step = step_++;
    t.start = t.scheduled = start;
    t.duration = duration;
    t.decode_seqs = 1;
    t.running = 1;
    Send(t, t.end());
  }
  EnqueueOrder Order(uint64_t request, RepickRule rule = RepickRule::kVersioned, double runner_up = 0.5) {
    EnqueueOrder o;
    o.decision = DecisionId(request);
    o.reservation.request = RequestId(request);
    o.reservation.prompt_tokens = 6000;
    o.predicted_on = core_->versions();
    o.runner_up = runner_up;  // seconds of end-to-end time
    o.score_rule.kind = ScoreKind::kE2e;
    o.query.request = &meta_;
    o.guarded = true;
    o.rule = rule;
    return o;
  }
  PredictQuery Query() {
    PredictQuery q;
    q.request = &meta_;
    return q;
  }

  SimulatorCore::Options options_;
  RequestMeta meta_;
  std::unique_ptr<SimulatorCore> core_;
  Scripted* predictor_ = nullptr;
  uint64_t epoch_ = 1;
  uint64_t seq_ = 0;
  uint64_t step_ = 0;
  int resyncs_ = 0;
};

TEST_F(SimulatorCoreTest, AnInstanceIdleForAMinuteIsFreshAndUsable) {
  Make();
  Step(Ms(0), Duration::Millis(20));
  for (int64_t ms = 250; ms <= 60'000; ms += 250) {
    Beat(Ms(ms), 0);
    ASSERT_EQ(core_->LivenessAt(Ms(ms + 249)), Liveness::kFresh) << ms;
  }
  const Prediction p = core_->Predict(Query(), Ms(60'100));
  EXPECT_TRUE(p.usable);
  EXPECT_FALSE(p.stale);
  EXPECT_EQ(p.age, Duration());
}

TEST_F(SimulatorCoreTest, AnExpectedStepOfSixSecondsDoesNotEvictItsInstance) {
  for (const SyncLevel level : {SyncLevel::kFull, SyncLevel::kAggregate}) {
    Make(level);
    for (int k = 0; k < 20; ++k) Step(Ms(10 * k), Duration::Millis(10));
    core_->OnEnqueue(Order(1), Ms(200));
    if (level == SyncLevel::kFull) Send(Arrived{RequestId(1), Ms(200), 6000, 100, 0, {}}, Ms(200));
    for (int64_t ms = 250; ms <= 6'200; ms += 250) {
      Beat(Ms(ms), 1);
      ASSERT_EQ(core_->LivenessAt(Ms(ms)), Liveness::kFresh) << ms;
    }
    BatchTrace t;
    t.step = step_++;
    t.start = t.scheduled = Ms(200);
    t.duration = Duration::Seconds(6);
    t.prefill_tokens = 6000;
    t.running = 1;
    Send(t, t.end());
    EXPECT_EQ(core_->LivenessAt(Ms(6'200)), Liveness::kFresh);
  }
}

TEST_F(SimulatorCoreTest, AHungEngineLeavesAfterTheBoundAndComesBackWithAStep) {
  Make();
  Step(Ms(0), Duration::Millis(20));
  Beat(Ms(250), 1);
  Step(Ms(260), Duration::Millis(20));
  int64_t left = 0;
  for (int64_t ms = 500; ms <= 4'000 && left == 0; ms += 250) {
    Beat(Ms(ms), 1);
    if (core_->LivenessAt(Ms(ms)) == Liveness::kHung) left = ms;
  }
  EXPECT_EQ(left, 2'500) << "2 s after the step that ended at 280 ms, at the next heartbeat";
  EXPECT_FALSE(core_->Predict(Query(), Ms(left)).usable);
  Step(Ms(left), Duration::Millis(20));
  EXPECT_TRUE(core_->Predict(Query(), Ms(left + 20)).usable);
}

TEST_F(SimulatorCoreTest, SilenceMakesStaleThenUnreachableAndAMessageFreshAgain) {
  Make();
  Beat(Ms(0), 0);
  EXPECT_EQ(core_->LivenessAt(Ms(499)), Liveness::kFresh);
  EXPECT_EQ(core_->LivenessAt(Ms(500)), Liveness::kStale);
  EXPECT_TRUE(core_->Predict(Query(), Ms(1'999)).usable);
  EXPECT_TRUE(core_->Predict(Query(), Ms(1'999)).stale);
  EXPECT_EQ(core_->LivenessAt(Ms(2'000)), Liveness::kUnreachable);
  Beat(Ms(2'100), 0);
  EXPECT_EQ(core_->LivenessAt(Ms(2'100)), Liveness::kFresh);
}

TEST_F(SimulatorCoreTest, AnEnqueueIsRefusedOnlyWhenOvertakenAndWorseThanTheRunnerUp) {
  struct Case {
    RepickRule rule;
    bool overtaken;
    bool worse;
    bool accepted;
  };
  for (const Case& c : std::vector<Case>{{RepickRule::kVersioned, false, true, true},
                                         {RepickRule::kVersioned, true, false, true},
                                         {RepickRule::kVersioned, true, true, false},
                                         {RepickRule::kAlwaysAccept, true, true, true},
                                         {RepickRule::kRejectOnAnyChange, false, true, true},
                                         {RepickRule::kRejectOnAnyChange, true, false, false}}) {
    Make();
    const EnqueueOrder order = Order(1, c.rule);
    if (c.overtaken) core_->OnEnqueue(Order(2), Ms(1));
    Step(Ms(1), Duration::Millis(1));  // moves `state`, which refuses nobody
    predictor_->e2e = Duration::Millis(c.worse ? 600 : 400);
    const EnqueueReply reply = core_->OnEnqueue(order, Ms(2));
    EXPECT_EQ(reply.accepted, c.accepted) << static_cast<int>(c.rule) << c.overtaken << c.worse;
    EXPECT_EQ(core_->counters().overtaken, c.accepted ? 0u : 1u);
    EXPECT_EQ(core_->unconfirmed(), (c.accepted ? 1u : 0u) + (c.overtaken ? 1u : 0u));
    if (!c.accepted) {
      EXPECT_EQ(reply.fresh.e2e, predictor_->e2e);
    }
  }
}

TEST_F(SimulatorCoreTest, ARepeatedOrderReservesOnceAndARepeatedCancelReleasesOnce) {
  Make();
  const EnqueueOrder order = Order(1, RepickRule::kAlwaysAccept);
  core_->OnEnqueue(order, Ms(1));
  core_->OnEnqueue(order, Ms(2));
  EXPECT_EQ(predictor_->enqueued.size(), 1u);
  EXPECT_EQ(core_->versions().reservations, 1u);
  core_->OnCancel(RequestId(1), Ms(3));
  core_->OnCancel(RequestId(1), Ms(4));
  EXPECT_EQ(predictor_->gone.size(), 1u);
  EXPECT_EQ(core_->versions().reservations, 2u);
  EXPECT_EQ(core_->counters().cancelled, 1u);
  EXPECT_EQ(core_->unconfirmed(), 0u);
}

TEST_F(SimulatorCoreTest, AReservationThatNoArrivalConfirmsExpires) {
  Make();
  core_->OnEnqueue(Order(1), Ms(0));
  core_->OnEnqueue(Order(2), Ms(100));
  Send(Arrived{RequestId(1), Ms(10), 6000, 100, 0, {}}, Ms(10));
  ASSERT_EQ(core_->NextTimer(), Ms(5'100));
  core_->OnTimer(Ms(5'099), *this);
  EXPECT_EQ(core_->unconfirmed(), 1u);
  core_->OnTimer(Ms(5'100), *this);
  EXPECT_EQ(core_->unconfirmed(), 0u);
  EXPECT_EQ(core_->counters().lost_assignments, 1u);
  EXPECT_EQ(predictor_->gone, std::vector<uint64_t>{2});
  EXPECT_EQ(core_->NextTimer(), Instant::Max());
}

TEST_F(SimulatorCoreTest, ASnapshotConfirmsWhatItListsKeepsWhatItDoesNotAndForgetsWhatEnded) {
  Make();
  for (const uint64_t r : {1, 2, 3}) core_->OnEnqueue(Order(r), Ms(0));
  Send(Arrived{RequestId(3), Ms(1), 6000, 100, 0, {}}, Ms(1));  // confirmed; its end is lost
  Snapshot s;
  s.as_of = Ms(50);
  s.running.push_back({RequestId(1), 6000, 10, 0, 0});
  SendAs(1, 10, s, Ms(50));
  EXPECT_EQ(core_->unconfirmed(), 1u);
  EXPECT_EQ(predictor_->pending, std::vector<uint64_t>{2}) << "in flight: neither in the snapshot nor lost";
  EXPECT_EQ(core_->assigned(), 2u) << "request 3 ended in a message that the snapshot stands in for";
}

TEST_F(SimulatorCoreTest, ARequestThatArrivedAndEndedInAGapLeavesWithTheSnapshot) {
  Make();
  for (uint64_t r : {1, 2}) core_->OnEnqueue(Order(r), Ms(0));
  core_->OnEnded(RequestId(1), TokenCount(3), Ms(60));
  Snapshot s;
  s.as_of = Ms(50);
  Send(s, Ms(70));  // taken before that end: the request may have been on its way to the engine
  EXPECT_EQ(core_->unconfirmed(), 2u);
  s.as_of = Ms(80);
  Send(s, Ms(90));
  EXPECT_EQ(core_->unconfirmed(), 1u);
  EXPECT_EQ(predictor_->pending, std::vector<uint64_t>{2});
  EXPECT_EQ(core_->assigned(), 1u);
}

TEST_F(SimulatorCoreTest, DriftOfStepTimesIsThatOfTheLawThePredictorAnswersWith) {
  Make();
  BatchTrace t;
  t.decode_seqs = 1;
  t.duration = options_.profile.step_time.At({0, 0, 1, 0}) * 2;
  t.start = Ms(1);
  Send(t, Ms(100));
  EXPECT_DOUBLE_EQ(core_->drift().step_bias, -0.5);
  predictor_->law.factor = 2;  // it has learnt
  Send(t, Ms(200));
  EXPECT_DOUBLE_EQ(core_->drift().step_bias, -0.5);
}

// Step 0 is told with what step 1, composed while it ran, has admitted. The mirror learns of that with step 1.
TEST_F(SimulatorCoreTest, BeliefIsComparedWithTheReportOfTheSameMoment) {
  Make();
  const auto step = [&](uint64_t number, int64_t scheduled_ms, int32_t running, int32_t waiting,
                        std::vector<uint64_t> admitted) {
    BatchTrace t;
    t.step = number;
    t.scheduled = Ms(scheduled_ms);
    t.start = Ms(10 * static_cast<int64_t>(number));
    t.duration = Duration::Millis(10);
    t.decode_seqs = 1;
    t.running = running;
    t.waiting = waiting;
    for (const uint64_t r : admitted) t.admitted.push_back({RequestId(r), 0, false});
    Send(t, t.end());
  };
  predictor_->runs = 1;
  predictor_->waits = 1;
  step(0, 0, 2, 0, {1});
  predictor_->runs = 2;
  predictor_->waits = 0;
  step(1, 5, 2, 0, {2});  // composed at 5 ms, before step 0 ended
  EXPECT_EQ(core_->drift().running_abs, 0);
  EXPECT_EQ(core_->drift().waiting_abs, 0);
  step(2, 25, 2, 0, {3});  // composed after step 1 had ended: that one's report did not know of it
  EXPECT_EQ(core_->drift().running_abs, 0);
  predictor_->runs = 5;  // it believes in two that are not there
  step(3, 35, 3, 0, {});
  step(4, 45, 3, 0, {});
  EXPECT_EQ(core_->drift().running_abs, 2);
  step(9, 95, 3, 0, {});  // what came in between is not known: nothing to compare
  EXPECT_EQ(core_->drift().running_abs, 2);
}

TEST_F(SimulatorCoreTest, ANewEpochDiscardsTheMirrorKeepsReservationsAndDropsLateMessages) {
  Make();
  core_->OnEnqueue(Order(1), Ms(0));
  core_->OnEnqueue(Order(2), Ms(0));
  Send(Arrived{RequestId(1), Ms(1), 6000, 100, 0, {}}, Ms(1));
  SendAs(2, 0, Heartbeat{Ms(10), 0, 0, false, Ms(10)}, Ms(10));
  ASSERT_EQ(predictor_->snapshots.size(), 2u);  // the first one came with the first epoch
  EXPECT_TRUE(predictor_->snapshots.back().running.empty());
  EXPECT_EQ(predictor_->pending, std::vector<uint64_t>{2});
  SendAs(1, 2, Arrived{RequestId(2), Ms(2), 6000, 100, 0, {}}, Ms(11));
  EXPECT_EQ(predictor_->arrived, std::vector<uint64_t>{1});
  EXPECT_EQ(core_->sync_counters().old_epoch, 1u);
  EXPECT_EQ(core_->unconfirmed(), 1u);
  EXPECT_EQ(core_->assigned(), 1u) << "what the old engine had confirmed died with it";
}

TEST_F(SimulatorCoreTest, AStepThatWasInFlightDoesNotBringAnAbortedRequestBack) {
  Make();
  Send(Arrived{RequestId(1), Ms(0), 100, 100, 0, {}}, Ms(0));
  Send(Aborted{RequestId(1), Ms(5)}, Ms(5));
  ASSERT_EQ(predictor_->gone.size(), 1u);
  Step(Ms(0), Duration::Millis(10));  // lists it
  EXPECT_EQ(predictor_->gone, (std::vector<uint64_t>{1, 1}));
}

TEST_F(SimulatorCoreTest, AnArrivalNeverAssignedHereIsForeign) {
  Make();
  core_->OnEnqueue(Order(1), Ms(0));
  Send(Arrived{RequestId(1), Ms(1), 100, 100, 0, {}}, Ms(1));
  Send(Arrived{RequestId(9), Ms(2), 100, 100, 0, {}}, Ms(2));
  EXPECT_EQ(core_->counters().foreign, 1u);
  EXPECT_EQ(predictor_->arrived.size(), 2u);
}

TEST_F(SimulatorCoreTest, AGapAsksForOneSnapshotAfterItsTimeoutAndAReorderingForNone) {
  Make();
  SendAs(1, 1, Arrived{RequestId(2), Ms(1), 100, 100, 0, {}}, Ms(1));
  SendAs(1, 0, Arrived{RequestId(1), Ms(0), 100, 100, 0, {}}, Ms(40));
  EXPECT_EQ(core_->NextTimer(), Instant::Max());
  EXPECT_EQ(predictor_->arrived, (std::vector<uint64_t>{1, 2}));
  SendAs(1, 3, Arrived{RequestId(4), Ms(3), 100, 100, 0, {}}, Ms(100));
  ASSERT_EQ(core_->NextTimer(), Ms(150));
  core_->OnTimer(Ms(150), *this);
  EXPECT_EQ(resyncs_, 1);
  EXPECT_EQ(predictor_->arrived.size(), 2u) << "nothing behind the gap is applied";
}

}  // namespace
}  // namespace foretoken
