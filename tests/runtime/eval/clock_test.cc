// Engines with clocks of their own, on the real host: however far off and however fast a clock runs, and however uneven the ways
// are, a prediction's age is right within the uncertainty that it states.
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "runtime/eval/virtual_host.h"
#include "runtime/perf/step_time_law.h"
#include "runtime/workload/make_length_estimator.h"
#include "tests/testing/inputs.h"
#include "tests/testing/random_runs.h"

namespace foretoken {
namespace {

// A step's end as a mirror was told, and the request whose token came out then: the client side knows when that was.
struct Told {
  Instant end;
  RequestId request;
  bool last_token = false;
};

class Listener final : public Predictor {
 public:
  Listener(Told* told, StepTimeModel law) : told_(told), law_(std::move(law)) {}
  PredictorKind kind() const override { return PredictorKind::kPattern; }
  void OnEnqueue(const Reservation&, Instant) override { ++held_; }
  void OnArrived(RequestId, Instant) override {}
  void OnGone(RequestId, Instant) override {}
  void OnStep(const BatchTrace& t) override {
    held_ -= static_cast<int32_t>(t.finished.size());
    EXPECT_GE(t.duration, Duration());
    for (const BatchTrace::Chunk& c : t.chunks)  // a preempted request computes its prompt again: not its first token
      if (c.samples && sampled_.insert(c.request.value()).second) *told_ = {t.end(), c.request, false};
    for (const BatchTrace::Finish& f : t.finished) *told_ = {t.end(), f.request, true};
  }
  void OnAggregate(const AggregateState&, const BatchTrace*) override {}
  void OnSnapshot(const Snapshot&, Instant, const std::vector<Reservation>&) override {}
  Prediction Predict(const PredictQuery&, Instant) override { return {}; }
  int32_t waiting() const override { return 0; }
  int32_t running() const override { return held_; }
  size_t memory_bytes() const override { return 0; }
  const StepTimeModel& step_time() const override { return law_; }

 private:
  Told* told_;
  std::set<uint64_t> sampled_;
  StepTimeModel law_;
  int32_t held_ = 0;
};

struct Claim {
  Told told;
  Instant as_of;
  Duration error;
};

class Claims final : public RunObserver {
 public:
  explicit Claims(const std::vector<Told>& told) : told_(told) {}
  void OnDecision(const DecisionRecord& d) override {
    const Prediction& p = d.prediction;
    const Told& told = told_[d.instance.value()];
    if (p.age == Duration() || p.as_of != told.end) return;  // idle, or known by a heartbeat since
    EXPECT_EQ(p.age, d.at - p.as_of);
    claims.push_back({told, p.as_of, p.age_uncertainty});
  }
  void OnProgress(size_t, size_t) override {}
  std::vector<Claim> claims;

 private:
  const std::vector<Told>& told_;
};

LinkRule Way(LinkRole from, LinkRole to, Duration least, Duration jitter) {
  LinkRule rule;
  rule.from = from;
  rule.to = to;
  rule.faults.delay.kind = DelayLaw::Kind::kUniform;
  rule.faults.delay.min = least;
  rule.faults.delay.max = least + jitter;
  return rule;
}

TEST(ClockTest, AgesAreRightWithinTheirStatedUncertainty) {
  size_t bounded = 0;
  Duration worst;
  const auto seeds = testing::Seeds(24);
  for (const uint64_t seed : seeds) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RunOptions o = testing::RandomRunOptions(seed, "min_e2e", PredictorKind::kPattern);
    std::vector<Told> told(o.instances.size());
    o.make_predictor = [&told](const InstanceProfile& p, const LengthEstimator*) -> Result<std::unique_ptr<Predictor>> {
      return std::unique_ptr<Predictor>(std::make_unique<Listener>(&told[p.instance.value()], p.step_time));
    };
    // 50 ms one way and next to nothing the other, either way round; messages pass each other.
    const bool there = seed % 2 == 0;
    const Duration slow = Duration::Millis(50), fast = Duration::Micros(100), jitter = Duration::Millis(seed % 3 == 0 ? 20 : 2);
    o.faults.links = {Way(LinkRole::kInstance, LinkRole::kSimulator, there ? slow : fast, jitter),
                      Way(LinkRole::kSimulator, LinkRole::kInstance, there ? fast : slow, jitter)};
    const int64_t hours = static_cast<int64_t>(seed % 7) - 3;
    o.faults.links[0].faults.clock = {Duration::Seconds(hours * 3600 + 17), seed % 4 < 2 ? 200.0 : -200.0};
    if (seed % 5 == 0)
      o.faults.restarts.push_back({"i0", Instant() + Duration::Seconds(10), Duration::Millis(300), std::nullopt});
    Claims claims(told);
    const auto result = RunVirtual(o, testing::RandomTrace(seed, 400, 12), &claims);
    ASSERT_TRUE(result.ok()) << result.error().message;
    for (const Claim& c : claims.claims) {
      const RunRequest& r = result->requests[c.told.request.value() - 1];
      // Of a failed try no times are kept.
      if (r.assignments != 1 || r.outcome != OutcomeKind::kFinished || c.error == Duration::Max()) continue;
      const Instant truth = c.told.last_token ? r.finish : r.first_token;
      const Duration off = c.as_of > truth ? c.as_of - truth : truth - c.as_of;
      ASSERT_LE(off, c.error) << "request " << c.told.request.value();
      // Half of what is uncertain is the round trip, as long as heartbeats go on.
      ASSERT_LE(c.error, Duration::Millis(75)) << "request " << c.told.request.value();
      worst = std::max(worst, off);
      ++bounded;
    }
  }
  if (seeds.size() < 24) return;  // one seed alone, again
  EXPECT_GT(bounded, 1000u);
  EXPECT_GT(worst, Duration::Millis(20)) << "the ways are not uneven enough to test the bound";
}

}  // namespace
}  // namespace foretoken
