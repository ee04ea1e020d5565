// The reference predictor: exact to the nanosecond under its conditions.
#include "runtime/predict/reference.h"

#include <gtest/gtest.h>

#include "runtime/predict/timeline.h"
#include "tests/runtime/predict/mirror_rig.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using testing::MirrorRig;
using testing::RigCase;
using testing::RigRequest;
using testing::Truth;

std::unique_ptr<ReferencePredictor> Reference(const RigCase& c) {
  auto made = ReferencePredictor::Make(MirrorRig::ProfileOf(c), nullptr);
  FT_CHECK(made.ok());
  return std::move(made).value();
}

TEST(ReferenceTest, PredictsExactlyWhenNothingComesLater) {
  for (uint64_t seed : testing::Seeds(12)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RigCase c = testing::RandomCase(seed);
    if (seed % 2 == 0) {
      c.rate *= 3;
      c.config.num_gpu_blocks = std::max(520, c.config.num_gpu_blocks * 3 / 10);
    }
    const auto reference = Reference(c);
    MirrorRig rig(c, seed);
    rig.Follow(reference.get());
    for (const RigRequest& r : testing::MakeRequests(c, seed)) {
      rig.RunUntil(r.at);
      if (rig.engine().Refusal(r.engine)) continue;
      const Truth without = rig.FutureWith(nullptr), with = rig.FutureWith(&r);
      const Prediction p = reference->Predict(MirrorRig::QueryOf(r, true), r.at);
      Duration lost;
      for (const auto& [other, end] : without.end) lost += with.end.at(other) - end;
      ASSERT_EQ(p.ttft, with.first.at(r.engine.id.value()) - r.at);
      ASSERT_EQ(p.e2e, with.end.at(r.engine.id.value()) - r.at);
      ASSERT_EQ(p.externality, lost);
      ASSERT_EQ(reference->Predict(MirrorRig::QueryOf(r, true), r.at), p);
      rig.Submit(r);
    }
  }
}

TEST(ReferenceTest, FollowsRequestsThatEndEarlierOrLaterThanExpected) {
  for (uint64_t seed : testing::Seeds(6)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RigCase c = testing::RandomCase(seed);
    c.config.stop_at_eos = true;
    const auto reference = Reference(c);
    MirrorRig rig(c, seed);
    rig.Follow(reference.get());
    Prng g(seed);
    for (RigRequest r : testing::MakeRequests(c, seed)) {
      rig.RunUntil(r.at);
      const int64_t real = r.engine.output_tokens;
      r.engine.output_tokens = std::max<int64_t>(1, g.Between(real / 2, 2 * real));
      reference->OnEnqueue(MirrorRig::ReservationOf(r), r.at);
      EXPECT_GT(reference->Predict(MirrorRig::QueryOf(r, false), r.at).ttft, Duration());
      r.engine.output_tokens = real;
      r.engine.max_tokens = real + 1000;
      rig.Submit(r);
    }
    rig.RunUntil(Instant::FromNanos(4'000'000'000'000'000));
    EXPECT_EQ(reference->running(), 0);
  }
}

// Who outlives its expected length keeps its place, so nobody is believed to be let in before.
TEST(ReferenceTest, RequestsThatOutliveTheirExpectedLengthKeepTheirPlaces) {
  for (const bool async : {false, true}) {
    RigCase c;
    c.config.async_scheduling = async;
    c.config.stop_at_eos = true;
    c.config.max_num_seqs = 4;
    c.requests = 5;
    c.rate = 1000;
    const auto reference = Reference(c);
    TimelinePredictor timeline(MirrorRig::ProfileOf(c), nullptr, TimelineOptions{});
    MirrorRig rig(c, 1);
    rig.Follow(reference.get());
    rig.Follow(&timeline);
    auto requests = testing::MakeRequests(c, 1);
    const RigRequest asked = requests.back();
    requests.pop_back();
    for (RigRequest r : requests) {
      rig.RunUntil(r.at);
      r.engine.output_tokens = 20;  // what is believed
      reference->OnEnqueue(MirrorRig::ReservationOf(r), r.at);
      timeline.OnEnqueue(MirrorRig::ReservationOf(r), r.at);
      r.engine.output_tokens = 900;
      r.engine.max_tokens = 1000;
      rig.Submit(r);
    }
    Instant at = asked.at;
    for (int k = 0; k < 50; ++k) {
      at += Duration::Millis(97);
      rig.RunUntil(at);
      const Prediction r = reference->Predict(MirrorRig::QueryOf(asked, false), at);
      const Prediction t = timeline.Predict(MirrorRig::QueryOf(asked, false), at);
      if (k < 4) continue;  // their prompts are still being computed
      ASSERT_EQ(reference->running(), 4) << "question " << k << ", asynchronous: " << async;
      ASSERT_NEAR(r.ttft.seconds() / t.ttft.seconds(), 1, 0.02) << "asynchronous: " << async << ", question " << k;
    }
  }
}

// Steps were lost, so the mirror ended the request too early and is about to let it go on when the engine reports its end.
TEST(ReferenceTest, WhatEndsBeforeItBeginsAnewIsForgotten) {
  for (const bool cancelled : {false, true}) {
    RigCase c;
    c.config.stop_at_eos = true;
    c.requests = 2;
    const auto reference = Reference(c);
    MirrorRig rig(c, 1);
    rig.KeepTraces();
    auto requests = testing::MakeRequests(c, 1);
    RigRequest& r = requests[0];
    r.engine.output_tokens = 20;  // what is believed
    reference->OnEnqueue(MirrorRig::ReservationOf(r), r.at);
    reference->OnArrived(r.engine.id, r.at);
    r.engine.output_tokens = 60;
    r.engine.max_tokens = 100;
    rig.Submit(r);
    rig.RunUntil(r.at + Duration::Seconds(60));
    std::vector<BatchTrace> steps = rig.kept();
    ASSERT_EQ(steps.back().finished.size(), 1u);
    if (cancelled) {
      steps.back().finished.clear();
      steps.back().cancelled = {r.engine.id};
    }
    reference->OnStep(steps.front());
    reference->OnStep(steps.back());
    EXPECT_EQ(reference->waiting(), 0) << "cancelled: " << cancelled;
    // As a mirror that never knew of it.
    const auto empty = Reference(c);
    requests[1].at = r.at + Duration::Seconds(60);
    const PredictQuery query = MirrorRig::QueryOf(requests[1], true);
    const Prediction expected = empty->Predict(query, requests[1].at);
    const Prediction got = reference->Predict(query, requests[1].at);
    EXPECT_EQ(got.ttft, expected.ttft) << "cancelled: " << cancelled;
    EXPECT_EQ(got.e2e, expected.e2e) << "cancelled: " << cancelled;
  }
}

}  // namespace
}  // namespace foretoken
