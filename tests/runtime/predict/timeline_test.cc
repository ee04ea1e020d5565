// The timeline against forks of the engine that it mirrors, and against itself.
#include "runtime/predict/timeline.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/predict/mirror_rig.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using testing::MirrorRig;
using testing::Quantile;
using testing::RandomCase;
using testing::RigCase;
using testing::RigRequest;
using testing::Truth;

struct Errors {
  std::vector<double> ttft, e2e, externality;
  bool preempted = false;      // KV did not suffice for those that ran
  bool lost_prefixes = false;  // nor for all prefixes that would have been asked for again
};

// Every request of the case is predicted at its arrival and compared with a fork in which nothing comes later.
Errors ErrorsOf(const RigCase& c, uint64_t seed, TimelinePredictor& timeline) {
  Errors errors;
  MirrorRig rig(c, seed);
  rig.Follow(&timeline);
  for (const RigRequest& r : testing::MakeRequests(c, seed)) {
    rig.RunUntil(r.at);
    if (rig.engine().Refusal(r.engine)) continue;
    const Truth without = rig.FutureWith(nullptr), with = rig.FutureWith(&r);
    const Prediction p = timeline.Predict(MirrorRig::QueryOf(r, true), r.at);
    const uint64_t id = r.engine.id.value();
    const double ttft = (with.first.at(id) - r.at).seconds(), e2e = (with.end.at(id) - r.at).seconds();
    double lost = 0;
    for (const auto& [other, end] : without.end) lost += (with.end.at(other) - end).seconds();
    errors.ttft.push_back(std::abs(p.ttft.seconds() / ttft - 1));
    errors.e2e.push_back(std::abs(p.e2e.seconds() / e2e - 1));
    errors.externality.push_back(std::abs(p.externality.seconds() - lost) / (e2e + lost));
    rig.Submit(r);
  }
  errors.preempted = rig.engine().counters().preemptions > 0;
  errors.lost_prefixes = c.shared > 0 && rig.engine().counters().blocks_evicted > 0;
  return errors;
}

TEST(TimelineTest, FollowsTheEngineExactlyWhileKvSuffices) {
  const auto seeds = testing::Seeds(12);
  size_t exact = 0;
  for (uint64_t seed : seeds) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    const RigCase c = RandomCase(seed);
    TimelinePredictor timeline(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{});
    const Errors e = ErrorsOf(c, seed, timeline);
    if (e.preempted) continue;
    // Which of the cached blocks goes first is not modelled.
    const double bound = e.lost_prefixes ? 0.01 : 1e-4;
    exact += e.lost_prefixes ? 0 : 1;
    EXPECT_LT(Quantile(e.ttft, 0.95), bound);
    EXPECT_LT(Quantile(e.e2e, 0.95), bound);
    EXPECT_LT(Quantile(e.externality, 0.95), 0.01);
  }
  if (seeds.size() >= 12) {  // not one seed alone, again
    EXPECT_GE(2 * exact, seeds.size());
  }
}

TEST(TimelineTest, StaysWithinOnePercentWhenQueuesAreDeepAndKvIsShort) {
  std::vector<double> ttft, e2e;
  for (uint64_t seed : testing::Seeds(12)) {
    RigCase c = RandomCase(seed);
    c.shared = 0;
    c.rate *= 3;
    c.config.max_num_seqs = 64;
    c.config.num_gpu_blocks = std::max(520, c.config.num_gpu_blocks * 3 / 10);
    TimelinePredictor timeline(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{});
    const Errors e = ErrorsOf(c, seed, timeline);
    ttft.insert(ttft.end(), e.ttft.begin(), e.ttft.end());
    e2e.insert(e2e.end(), e.e2e.begin(), e.e2e.end());
  }
  EXPECT_LT(Quantile(ttft, 0.95), 0.01);
  EXPECT_LT(Quantile(e2e, 0.95), 0.01);
}

// The kept state must never show in an answer: beside each predictor runs one that keeps nothing, and both are asked
// repeatedly and in changing order.
TEST(TimelineTest, AnswersAreTheSameBitsWhateverWasKept) {
  const auto seeds = testing::Seeds(16);
  uint64_t steps = 0, disagreed = 0;
  for (uint64_t seed : seeds) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RigCase c = RandomCase(seed);
    c.noise = seed % 2 == 0 ? 0.05 : 0;
    if (seed % 3 == 0) c.config.num_gpu_blocks = std::max(520, c.config.num_gpu_blocks * 3 / 10);
    c.rate *= seed % 4 == 0 ? 3 : 1;
    TimelinePredictor keeps(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{});
    TimelineOptions nothing;
    nothing.reuse = false;
    TimelinePredictor fresh(MirrorRig::ProfileOf(c), nullptr, nothing);
    MirrorRig rig(c, seed);
    rig.Follow(&keeps);
    rig.Follow(&fresh);
    Prng g(seed);
    const auto requests = testing::MakeRequests(c, seed);
    for (size_t i = 0; i < requests.size(); ++i) {
      const RigRequest& r = requests[i];
      rig.RunUntil(r.at);
      const RigRequest& other = requests[g.Below(requests.size())];
      const Prediction first = keeps.Predict(MirrorRig::QueryOf(r, true), r.at);
      const Prediction second = keeps.Predict(MirrorRig::QueryOf(other, false), r.at);
      ASSERT_EQ(fresh.Predict(MirrorRig::QueryOf(other, false), r.at), second) << "request " << i;
      ASSERT_EQ(fresh.Predict(MirrorRig::QueryOf(r, true), r.at), first) << "request " << i;
      ASSERT_EQ(keeps.Predict(MirrorRig::QueryOf(r, true), r.at), first) << "request " << i;
      rig.Submit(r);
    }
    EXPECT_GT(keeps.counters().reused, keeps.counters().rebuilt);
    steps += keeps.counters().steps;
    disagreed += keeps.counters().disagreed;
  }
  // Lengths are known, and times do not matter for who is in a step: all but what was preempted goes as the timeline has it.
  if (seeds.size() >= 16) {
    EXPECT_LE(disagreed * 100, steps);
  }
}

// The numbers that learnt state has no part in.
void ExpectSameMedians(const Prediction& a, const Prediction& b) {
  EXPECT_EQ(a.ttft, b.ttft);
  EXPECT_EQ(a.e2e, b.e2e);
  EXPECT_EQ(a.tpot, b.tpot);
  EXPECT_EQ(a.longest_gap, b.longest_gap);
  EXPECT_EQ(a.externality, b.externality);
  EXPECT_EQ(a.cached_tokens, b.cached_tokens);
  EXPECT_EQ(a.kv_headroom, b.kv_headroom);
}

TEST(TimelineTest, ALightSnapshotLeavesNothingOfWhatWasMissed) {
  for (uint64_t seed : testing::Seeds(8)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RigCase c = RandomCase(seed);
    c.rate *= 2;
    TimelinePredictor timeline(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{});
    MirrorRig rig(c, seed);
    rig.Follow(&timeline);
    // Hears of assignments and snapshots alone: every step and arrival in between is lost on it.
    TimelinePredictor missed(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{});
    std::vector<Reservation> open;
    size_t seen = 0;
    rig.KeepTraces();
    for (const RigRequest& r : testing::MakeRequests(c, seed)) {
      rig.RunUntil(r.at);
      // What the router holds open: also what the engine has not taken in yet.
      for (; seen < rig.kept().size(); ++seen) {
        for (const BatchTrace::Finish& f : rig.kept()[seen].finished) {
          std::erase_if(open, [&f](const Reservation& v) { return v.request == f.request; });
        }
      }
      const Snapshot snapshot = rig.engine().TakeSnapshot(false);
      timeline.OnSnapshot(snapshot, r.at, open);
      missed.OnSnapshot(snapshot, r.at, open);
      ExpectSameMedians(timeline.Predict(MirrorRig::QueryOf(r, true), r.at), missed.Predict(MirrorRig::QueryOf(r, true), r.at));
      // Two predictors that know nothing but the snapshot agree with each other.
      TimelinePredictor one(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{}), two(MirrorRig::ProfileOf(c), nullptr, {});
      one.OnSnapshot(snapshot, r.at, open);
      two.OnSnapshot(snapshot, r.at, open);
      two.OnSnapshot(snapshot, r.at, open);
      EXPECT_EQ(one.Predict(MirrorRig::QueryOf(r, true), r.at), two.Predict(MirrorRig::QueryOf(r, true), r.at));
      rig.Submit(r);
      missed.OnEnqueue(MirrorRig::ReservationOf(r), r.at);
      open.push_back(MirrorRig::ReservationOf(r));
    }
  }
}

TEST(TimelineTest, MirrorsTheEnginesQueues) {
  for (uint64_t seed : testing::Seeds(6)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RigCase c = RandomCase(seed);
    c.rate *= 3;
    // An asynchronous engine has admitted the next batch's requests by the time it reports a step.
    c.config.async_scheduling = false;
    TimelinePredictor timeline(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{});
    MirrorRig rig(c, seed);
    rig.Follow(&timeline);
    rig.KeepTraces();
    for (const RigRequest& r : testing::MakeRequests(c, seed)) {
      rig.RunUntil(r.at);
      rig.Submit(r);
      if (rig.kept().empty()) continue;
      EXPECT_EQ(timeline.running(), rig.kept().back().running);
    }
    rig.RunUntil(Instant::FromNanos(4'000'000'000'000'000));
    EXPECT_EQ(timeline.running(), 0);
    EXPECT_EQ(timeline.waiting(), 0);
  }
}

TEST(TimelineTest, ALengthThatWasPassedIsAskedForAgain) {
  RigCase c;
  c.requests = 1;
  c.config.stop_at_eos = true;
  TimelinePredictor timeline(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{});
  MirrorRig rig(c, 1);
  rig.Follow(&timeline);
  RigRequest r = testing::MakeRequests(c, 1)[0];
  const int64_t real = 200;
  r.engine.output_tokens = 20;  // what is believed
  timeline.OnEnqueue(MirrorRig::ReservationOf(r), r.at);
  r.engine.output_tokens = real;
  r.engine.max_tokens = 1000;
  rig.Submit(r);
  rig.RunUntil(r.at + Duration::Seconds(1));
  EXPECT_EQ(timeline.running(), 1);
  rig.RunUntil(r.at + Duration::Seconds(100));
  EXPECT_EQ(timeline.running(), 0);
}

TEST(TimelineTest, FiveHundredRequestsTakeAtMost64KiB) {
  InstanceProfile p;
  p.limits.max_num_seqs = 256;
  p.limits.num_gpu_blocks = 65536;
  p.step_time = testing::H100LikeModel();
  TimelinePredictor timeline(p, nullptr, TimelineOptions{});
  Snapshot s;
  std::vector<Reservation> reservations;
  for (uint64_t i = 1; i <= 512; ++i) {
    Reservation r;
    r.request = RequestId(i);
    r.prompt_tokens = 500 + static_cast<int64_t>(i);
    r.expected_output = 300 + static_cast<int64_t>(i % 7);
    if (i <= 256)
      s.running.push_back({r.request, static_cast<int32_t>(r.prompt_tokens), static_cast<int32_t>(r.prompt_tokens + 9), 10, 0});
    if (i > 256) s.waiting.push_back({r.request, static_cast<int32_t>(r.prompt_tokens), 0, 0, 0});
    reservations.push_back(r);
  }
  timeline.OnSnapshot(s, Instant::FromNanos(1), reservations);
  RequestMeta meta;
  meta.id = RequestId(1000);
  meta.prompt_tokens = TokenCount(700);
  PredictQuery q;
  q.request = &meta;
  q.expected_output = TokenCount(100);
  q.want_externality = true;
  EXPECT_GT(timeline.Predict(q, Instant::FromNanos(1)).ttft, Duration());
  EXPECT_LE(timeline.memory_bytes(), 65536U);
}

}  // namespace
}  // namespace foretoken
