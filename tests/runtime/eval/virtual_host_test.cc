// Whole runs in virtual time over emulated engines, with a mirror that checks what reaches it.
#include "runtime/eval/virtual_host.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

class FixedLength final : public LengthEstimator {
 public:
  TokenCount Total(const LengthKey&, TokenCount generated) const override {
    return TokenCount(std::max<int64_t>(40, generated.value() + 1));
  }
  void Learn(uint32_t, TokenCount) override {}
  uint64_t version() const override { return 0; }
};

// What all mirrors of a run saw, summed.
struct Seen {
  uint64_t steps = 0, arrived = 0, snapshots = 0, enqueued = 0;
};

// A mirror that holds request sets only: enough to check that the stream is complete and in order.
class CheckingMirror final : public Predictor {
 public:
  CheckingMirror(Seen* seen, StepTimeModel law) : seen_(seen), law_(std::move(law)) {}
  PredictorKind kind() const override { return PredictorKind::kPattern; }
  void OnEnqueue(const Reservation& r, Instant now) override {
    EXPECT_TRUE(reserved_.insert(r.request.value()).second);
    gone_.erase(r.request.value());  // it comes again
    Advance(now);
    ++seen_->enqueued;
  }
  void OnArrived(RequestId r, Instant) override {
    reserved_.erase(r.value());
    EXPECT_TRUE(waiting_.insert(r.value()).second) << "arrived twice";
    ++seen_->arrived;
  }
  void OnGone(RequestId r, Instant) override {
    reserved_.erase(r.value()), waiting_.erase(r.value()), running_.erase(r.value());
    gone_.insert(r.value());  // its SCHEDULER's word may be faster than what the engine, dead since, had sent before
  }
  void OnStep(const BatchTrace& t) override {
    if (next_step_) {
      EXPECT_EQ(t.step, *next_step_) << "a step is missing or out of order";
    }
    next_step_ = t.step + 1;
    EXPECT_GE(t.end(), last_end_);
    last_end_ = t.end();
    for (RequestId p : t.preempted) {
      if (gone_.contains(p.value())) continue;
      EXPECT_EQ(running_.erase(p.value()), 1u);
      waiting_.insert(p.value());
    }
    for (const auto& a : t.admitted) {
      if (gone_.contains(a.request.value())) continue;
      // A snapshot has those running that a batch in flight admitted; that batch's trace, which comes behind it, names them again.
      const bool in_snapshot = seen_snapshot_ && running_.contains(a.request.value());
      EXPECT_TRUE(waiting_.erase(a.request.value()) == 1 || in_snapshot) << "admitted without having arrived";
      running_.insert(a.request.value());
    }
    for (const auto& f : t.finished) {
      if (gone_.contains(f.request.value())) continue;
      EXPECT_EQ(running_.erase(f.request.value()), 1u) << "finished without having been admitted";
    }
    ++seen_->steps;
  }
  void OnAggregate(const AggregateState&, const BatchTrace*) override { ++seen_->steps; }
  void OnSnapshot(const Snapshot& s, Instant, const std::vector<Reservation>& pending) override {
    reserved_.clear(), waiting_.clear(), running_.clear();
    for (const auto& r : s.running) running_.insert(r.request.value());
    for (const auto& r : s.waiting) waiting_.insert(r.request.value());
    for (const auto& r : pending) reserved_.insert(r.request.value());
    next_step_.reset();  // a restart begins at 0, a resync anywhere
    seen_snapshot_ = true;
    last_end_ = Instant();
    ++seen_->snapshots;
  }
  Prediction Predict(const PredictQuery& q, Instant now) override {
    Advance(now);
    Prediction p;
    const auto load = static_cast<int64_t>(reserved_.size() + waiting_.size() + running_.size());
    p.ttft = p.ttft_p90 = Duration::Millis(20 + 10 * load);
    p.e2e = p.e2e_alone = p.e2e_p90 = Duration::Millis(20 + 20 * load + q.expected_output.value());
    return p;
  }
  int32_t waiting() const override { return static_cast<int32_t>(reserved_.size() + waiting_.size()); }
  int32_t running() const override { return static_cast<int32_t>(running_.size()); }
  size_t memory_bytes() const override { return 0; }
  const StepTimeModel& step_time() const override { return law_; }

 private:
  void Advance(Instant now) {
    EXPECT_GE(now, last_now_) << "time went backwards";
    last_now_ = now;
  }
  Seen* seen_;
  StepTimeModel law_;
  std::set<uint64_t> reserved_, waiting_, running_, gone_;
  std::optional<uint64_t> next_step_;
  bool seen_snapshot_ = false;
  Instant last_end_, last_now_;
};

Trace RandomTrace(uint64_t seed, size_t n, double rate) {
  Prng prng(seed);
  Trace trace;
  Instant t;
  for (size_t k = 0; k < n; ++k) {
    t += Duration::FromSeconds(prng.Exponential(1 / rate));
    TraceRequest r;
    r.meta.id = RequestId(k + 1);
    r.meta.arrival = t;
    r.meta.prompt_tokens = TokenCount(prng.Between(1, 800));
    r.truth.output_tokens = TokenCount(prng.Between(1, 80));
    trace.requests.push_back(r);
  }
  return trace;
}

RunOptions Options(size_t instances, std::string policy, Seen* seen, uint64_t seed = 1) {
  RunOptions o;
  for (size_t k = 0; k < instances; ++k) {
    RunOptions::Instance i;
    i.name = "gpu-" + std::to_string(k);
    i.engine.config.num_gpu_blocks = 600;
    i.engine.config.max_num_seqs = 16;
    i.engine.config.max_num_batched_tokens = 512;
    i.engine.config.async_scheduling = k % 2 == 0;
    i.engine.step_time.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{4e6, 30e3, 50e3, 20});
    i.engine.noise = {Mix64(seed, k), 0.02};
    i.profile.step_time = i.engine.step_time;
    i.profile.limits = i.engine.config;
    i.facts.kv_tokens = 599 * 16;
    o.instances.push_back(i);
  }
  o.scheduler.policy = std::move(policy);
  o.scheduler.seed = seed;
  o.make_predictor = [seen](const InstanceProfile& profile, const LengthEstimator*) -> Result<std::unique_ptr<Predictor>> {
    return std::unique_ptr<Predictor>(std::make_unique<CheckingMirror>(seen, profile.step_time));
  };
  o.make_lengths = [](uint64_t) -> Result<std::unique_ptr<LengthEstimator>> {
    return std::unique_ptr<LengthEstimator>(std::make_unique<FixedLength>());
  };
  return o;
}

class Log final : public RunObserver {
 public:
  void OnDecision(const DecisionRecord& d) override {
    picks.emplace_back(d.at.nanos(), d.request.value(), d.instance.value(), d.state_version, d.score);
  }
  void OnProgress(size_t, size_t) override {}
  std::vector<std::tuple<int64_t, uint64_t, uint32_t, uint64_t, double>> picks;
};

RunResult Play(const RunOptions& o, const Trace& trace, Log* log = nullptr) {
  auto r = RunVirtual(o, trace, log);
  EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().message);
  return std::move(r).value();
}

size_t Count(const RunResult& r, OutcomeKind kind) {
  return static_cast<size_t>(
      std::count_if(r.requests.begin(), r.requests.end(), [&](const RunRequest& q) { return q.outcome == kind; }));
}

TEST(VirtualHostTest, EveryPolicyCompletesEveryRequestOnceInCausalOrder) {
  const Trace trace = RandomTrace(5, 400, 30);
  for (std::string_view policy : KnownPolicies()) {
    SCOPED_TRACE(policy);
    Seen seen;
    RunOptions o = Options(4, std::string(policy), &seen);
    // An asynchronous engine's counts are those at the update, with the next batch's admissions, which a mirror learns a step later.
    for (RunOptions::Instance& i : o.instances) i.engine.config.async_scheduling = false;
    const RunResult r = Play(o, trace);
    EXPECT_EQ(Count(r, OutcomeKind::kFinished), 400u);
    EXPECT_EQ(r.duplicated, 0u);
    for (size_t k = 0; k < trace.requests.size(); ++k) {
      const RunRequest& q = r.requests[k];
      EXPECT_LE(q.arrival, q.first_token);
      EXPECT_LE(q.first_token, q.finish);
      EXPECT_EQ(q.output_tokens, trace.requests[k].truth.output_tokens.value());
      EXPECT_EQ(q.assignments, 1);
    }
    EXPECT_EQ(seen.arrived, 400u);
    EXPECT_EQ(seen.steps, r.steps) << "every executed step is reported";
    EXPECT_EQ(r.drift.running_abs, 0) << "a checking mirror follows exactly";
  }
}

TEST(VirtualHostTest, OneSeedGivesTheSameDecisionsAndAnotherSeedOthers) {
  const Trace trace = RandomTrace(6, 300, 40);
  for (const char* policy : {"round_robin", "least_requests", "min_e2e"}) {
    SCOPED_TRACE(policy);
    Seen seen;
    Log a, b, c;
    Play(Options(4, policy, &seen, 1), trace, &a);
    Play(Options(4, policy, &seen, 1), trace, &b);
    Play(Options(4, policy, &seen, 2), trace, &c);
    EXPECT_EQ(a.picks, b.picks);
    EXPECT_NE(a.picks, c.picks);
  }
}

TEST(VirtualHostTest, RunningEnginesAheadChangesNothing) {
  // Without a state-dependent policy an engine runs only when a request comes to it; sampling the truth makes all run in step.
  const Trace trace = RandomTrace(7, 300, 40);
  Seen seen;
  RunOptions lazy = Options(3, "round_robin", &seen), eager = lazy;
  eager.truth_sample = 1e-9;
  const RunResult a = Play(lazy, trace), b = Play(eager, trace);
  for (size_t k = 0; k < trace.requests.size(); ++k) {
    EXPECT_EQ(a.requests[k].first_token, b.requests[k].first_token);
    EXPECT_EQ(a.requests[k].finish, b.requests[k].finish);
  }
}

TEST(VirtualHostTest, AtLevelNoneWithoutPredictionsNoMirrorIsFed) {
  Seen seen;
  RunOptions o = Options(3, "least_requests", &seen);
  o.level = SyncLevel::kNone;
  EXPECT_EQ(Count(Play(o, RandomTrace(8, 100, 30)), OutcomeKind::kFinished), 100u);
  EXPECT_EQ(seen.steps + seen.enqueued, 0u);
}

TEST(VirtualHostTest, ARunEndsAtEverySyncLevel) {
  for (const SyncLevel level : {SyncLevel::kNone, SyncLevel::kPoll, SyncLevel::kAggregate, SyncLevel::kFull}) {
    Seen seen;
    RunOptions o = Options(3, "min_e2e", &seen);
    o.level = level;
    EXPECT_EQ(Count(Play(o, RandomTrace(12, 100, 30)), OutcomeKind::kFinished), 100u) << static_cast<int>(level);
    EXPECT_EQ(seen.steps > 0, level != SyncLevel::kNone);
  }
}

TEST(VirtualHostTest, ARequestThatFitsNowhereIsRejectedWithItsReason) {
  Trace trace = RandomTrace(9, 20, 30);
  trace.requests[4].meta.prompt_tokens = TokenCount(600 * 16);
  Seen seen;
  const RunResult r = Play(Options(2, "min_e2e", &seen), trace);
  EXPECT_EQ(Count(r, OutcomeKind::kRejected), 1u);
  EXPECT_TRUE(r.requests[4].reason == OutcomeReason::kNeverFits || r.requests[4].reason == OutcomeReason::kRetriesExhausted);
  EXPECT_EQ(r.requests[4].outcome, OutcomeKind::kRejected);
}

TEST(VirtualHostTest, ALoneInstanceIsAlwaysTheBestChoice) {
  Seen seen;
  RunOptions o = Options(1, "min_e2e", &seen);
  o.truth_sample = 1;
  const RunResult r = Play(o, RandomTrace(10, 60, 10));
  EXPECT_EQ(r.regret_questions, 60u);
  EXPECT_EQ(r.agree_at_one.Share(), 1.0);
  EXPECT_EQ(r.regret_seconds, 0);
}

TEST(VirtualHostTest, AClosedLoopKeepsAtMostItsUsersRequestsOut) {
  for (const std::string policy : {"min_e2e", "least_requests", "round_robin"}) {
    SCOPED_TRACE(policy);
    Seen seen;
    RunOptions o = Options(3, policy, &seen);
    Trace trace = RandomTrace(4, 300, 200);
    trace.closed_loop = ClosedLoop{12, Duration::Millis(50)};
    const RunResult r = Play(o, trace);
    std::vector<std::pair<Instant, int>> changes;
    for (const RunRequest& q : r.requests) {
      ASSERT_EQ(q.outcome, OutcomeKind::kFinished);
      changes.push_back({q.arrival, 1});
      changes.push_back({q.finish, -1});
    }
    std::sort(changes.begin(), changes.end());
    int out = 0, most = 0;
    for (const auto& [at, change] : changes) most = std::max(most, out += change);
    EXPECT_LE(most, 12);
    EXPECT_GE(most, 10) << "users come back";
  }
}

TEST(VirtualHostTest, InjectedErrorChangesChoicesAndInjectedBiasOnlyWhatIsPredicted) {
  const Trace trace = RandomTrace(6, 300, 40);
  const auto run = [&](PredictionFault fault) {
    Seen seen;
    RunOptions o = Options(4, "min_e2e", &seen);
    o.injected = fault;
    return Play(o, trace);
  };
  const auto moved = [](const RunResult& a, const RunResult& b) {
    size_t n = 0;
    for (size_t k = 0; k < a.requests.size(); ++k) n += a.requests[k].instance != b.requests[k].instance;
    return n;
  };
  const RunResult right = run({}), biased = run({0, 1}), wrong = run({1, 0});
  EXPECT_EQ(moved(right, biased), 0u) << "a factor that all share leaves the order";
  EXPECT_NEAR(biased.requests[9].predicted_e2e.seconds(), 2 * right.requests[9].predicted_e2e.seconds(), 1e-6);
  EXPECT_GT(moved(right, wrong), 60u);
}

TEST(VirtualHostTest, ARestartLosesNothingAndNothingRunsTwiceToItsEnd) {
  Seen seen;
  RunOptions o = Options(4, "min_e2e", &seen);
  o.faults.restarts.push_back({"gpu-1", Instant() + Duration::Seconds(3), Duration::Seconds(1), std::nullopt});
  const RunResult r = Play(o, RandomTrace(11, 400, 40));
  EXPECT_EQ(Count(r, OutcomeKind::kFinished) + Count(r, OutcomeKind::kFailed), 400u);
  EXPECT_EQ(Count(r, OutcomeKind::kLost), 0u);
  EXPECT_EQ(r.duplicated, 0u);
  EXPECT_GT(r.scheduler.retried, 0u);
  EXPECT_EQ(r.sync.epoch_change, 1u);
}

TEST(VirtualHostTest, AFaultThatWouldDoNothingIsRefused) {
  FaultPlan plan;
  plan.links.emplace_back();
  EXPECT_TRUE(CheckFaultPlan(plan).ok());
  plan.links[0].faults.clock.ppm = 20;
  EXPECT_TRUE(CheckFaultPlan(plan).ok());
  plan.links[0].faults.clock.ppm = 501;
  EXPECT_FALSE(CheckFaultPlan(plan).ok()) << "beyond what the clock map allows for";
  plan.links[0] = LinkRule();
  plan.links[0].from = LinkRole::kScheduler;
  EXPECT_TRUE(CheckFaultPlan(plan).ok());
  plan.links[0].faults.drop_probability = 0.1;
  EXPECT_FALSE(CheckFaultPlan(plan).ok()) << "orders are repeated until they arrive";
  plan.links[0] = LinkRule();
  plan.links[0].from = LinkRole::kScheduler;
  plan.links[0].to = LinkRole::kInstance;
  EXPECT_FALSE(CheckFaultPlan(plan).ok());
  plan.links[0] = LinkRule();
  plan.links[0].from = LinkRole::kSimulator;
  plan.links[0].to = LinkRole::kInstance;
  plan.links[0].faults.clock.ppm = 20;
  EXPECT_FALSE(CheckFaultPlan(plan).ok()) << "a simulator's clock is the one that others are mapped to";
  plan.links[0] = LinkRule();
  plan.links[0].from = LinkRole::kSimulator;
  EXPECT_FALSE(CheckFaultPlan(plan).ok()) << "from a simulator to a simulator";
}

TEST(VirtualHostTest, RandomLinkFaultsKeepEveryMirrorConsistentAndEveryRequestAccountedFor) {
  for (const uint64_t seed : testing::Seeds(40)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Prng prng(seed);
    Seen seen;
    RunOptions o =
        Options(static_cast<size_t>(prng.Between(2, 5)), prng.Chance(0.5) ? "min_e2e" : "least_requests", &seen, seed);
    LinkRule rule;
    rule.faults.delay.value = Duration::Micros(prng.Between(0, 100'000));
    rule.faults.drop_probability = prng.Unit() * 0.2;
    rule.faults.duplicate_probability = prng.Unit() * 0.2;
    rule.faults.reorder_probability = prng.Unit() * 0.3;
    rule.faults.reorder_delay.value = Duration::Micros(prng.Between(0, 60'000));
    if (prng.Chance(0.3))
      rule.faults.partitions.push_back({Instant() + Duration::Seconds(2), Duration::Seconds(3), std::nullopt});
    o.faults.links.push_back(rule);
    if (prng.Chance(0.3))
      o.faults.restarts.push_back({"gpu-0", Instant() + Duration::Seconds(4), Duration::Millis(700), std::nullopt});
    const Trace trace = RandomTrace(seed, 200, 25);
    Log a, b;
    const RunResult r = Play(o, trace, &a);
    EXPECT_EQ(Count(r, OutcomeKind::kFinished) + Count(r, OutcomeKind::kFailed), 200u);
    EXPECT_EQ(r.duplicated, 0u);
    Play(o, trace, &b);
    EXPECT_EQ(a.picks, b.picks);
  }
}

}  // namespace
}  // namespace foretoken
