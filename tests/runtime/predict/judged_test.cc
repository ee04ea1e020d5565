// Demotion and recovery, on an emulated engine whose step law the predictors do not know until it is mended; and what the account
// of predictions says.
#include "runtime/predict/judged.h"

#include <gtest/gtest.h>

#include "runtime/predict/make_predictor.h"
#include "tests/runtime/predict/mirror_rig.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using testing::MirrorRig;
using testing::RigCase;
using testing::RigRequest;

// The engine's law in the first and in the last third of the steps is `right`, in between six times as slow.
class TurningLaw final : public StepTimeLaw {
 public:
  explicit TurningLaw(std::shared_ptr<const StepTimeLaw> right) : right_(std::move(right)) {}
  double NanosOf(const StepShape& s) const override { return factor * right_->NanosOf(s); }
  DecodeSegment DecodeSegmentAt(int64_t seqs, int64_t kv) const override {
    DecodeSegment d = right_->DecodeSegmentAt(seqs, kv);
    d.base_ns *= factor;
    d.per_kv_token_ns *= factor;
    d.kv_from = kv;  // an engine keeps a piece for as long as it is said to hold
    d.kv_until = kv + 1;
    return d;
  }
  double factor = 1;

 private:
  std::shared_ptr<const StepTimeLaw> right_;
};

RigCase SteadyCase() {
  RigCase c;
  c.config.max_num_seqs = 32;
  c.config.num_gpu_blocks = 6000;
  c.requests = 6000;
  c.rate = 2.5;
  c.prompt_mean = 600;
  c.output_mean = 60;
  return c;
}

std::unique_ptr<Predictor> Judged(const RigCase& c, PredictorKind kind, bool demote) {
  auto made = MakeJudgedPredictor(kind, MirrorRig::ProfileOf(c), nullptr, demote);
  FT_CHECK(made.ok());
  return std::move(made).value();
}

// Answers by kind in each third of the requests, and the median TTFT error of the third's last half.
struct Third {
  std::array<int, kPredictorKinds> answers{};
  std::vector<double> late_errors;
  PredictorKind last = PredictorKind::kReference;
};

std::array<Third, 3> RunThirds(const RigCase& c, Predictor& judged, uint64_t seed) {
  auto law = std::make_shared<TurningLaw>(testing::H100LikeModel().law);
  StepTimeModel model = testing::H100LikeModel();
  model.law = law;
  MirrorRig rig(c, seed, model);
  rig.Follow(&judged);
  std::array<Third, 3> thirds;
  std::map<uint64_t, std::pair<size_t, double>> predicted;  // half of a third, and TTFT in seconds
  const auto requests = testing::MakeRequests(c, seed);
  rig.KeepTraces();
  std::map<uint64_t, Instant> at;
  for (size_t i = 0; i < requests.size(); ++i) {
    const RigRequest& r = requests[i];
    const size_t half = i * 6 / requests.size();
    law->factor = half / 2 == 1 ? 6 : 1;
    rig.RunUntil(r.at);
    const Prediction p = judged.Predict(MirrorRig::QueryOf(r, false), r.at);
    Third& third = thirds[half / 2];
    ++third.answers[static_cast<size_t>(p.predictor)];
    third.last = p.predictor;
    predicted[r.engine.id.value()] = {half, p.ttft.seconds()};
    at[r.engine.id.value()] = r.at;
    rig.Submit(r);
  }
  rig.RunUntil(Instant::FromNanos(4'000'000'000'000'000));
  for (const BatchTrace& t : rig.kept()) {
    for (const BatchTrace::Chunk& k : t.chunks) {
      const auto [half, ttft] = predicted.at(k.request.value());
      if (!k.samples || half % 2 == 0) continue;
      thirds[half / 2].late_errors.push_back(std::abs(ttft / (t.end() - at[k.request.value()]).seconds() - 1));
    }
  }
  return thirds;
}

TEST(JudgedTest, AWrongStepLawDemotesAndARightOneBringsThePredictorBack) {
  for (uint64_t seed : testing::Seeds(3)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    const RigCase c = SteadyCase();
    const auto judged = Judged(c, PredictorKind::kTimeline, true);
    const auto plain = Judged(c, PredictorKind::kTimeline, false);
    const auto with = RunThirds(c, *judged, seed), without = RunThirds(c, *plain, seed);
    const auto by = [](const Third& t, PredictorKind kind) { return t.answers[static_cast<size_t>(kind)]; };
    EXPECT_EQ(by(with[0], PredictorKind::kTimeline), 2000) << "a right law demotes nobody";
    EXPECT_GT(by(with[1], PredictorKind::kPatternReuse), 0);
    EXPECT_GT(by(with[1], PredictorKind::kLedger), 1500) << "both that believe the law were demoted";
    EXPECT_EQ(with[2].last, PredictorKind::kTimeline) << "the law was mended";
    EXPECT_GT(by(with[2], PredictorKind::kTimeline), 1700);
    EXPECT_GE(judged->ledger()->demotions(), 2U);
    EXPECT_GE(judged->ledger()->recoveries(), 1U);
    EXPECT_EQ(judged->ledger()->level(), 0);
    // It pays while the law is wrong, and costs nothing while it is right.
    EXPECT_LT(testing::Quantile(with[1].late_errors, 0.5), 0.6 * testing::Quantile(without[1].late_errors, 0.5));
    EXPECT_EQ(testing::Quantile(with[0].late_errors, 0.5), testing::Quantile(without[0].late_errors, 0.5));
    EXPECT_EQ(plain->ledger()->demotions(), 0U);
    for (const Third& t : without) EXPECT_EQ(by(t, PredictorKind::kTimeline), 2000);
  }
}

TEST(JudgedTest, WithoutALadderItAnswersWithTheBitsOfThePredictorThatItHolds) {
  for (uint64_t seed : testing::Seeds(3)) {
    SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed));
    RigCase c = testing::RandomCase(seed);
    for (const PredictorKind kind : {PredictorKind::kTimeline, PredictorKind::kPattern, PredictorKind::kReference}) {
      const auto judged = Judged(c, kind, false);
      auto plain = MakePredictor(kind, MirrorRig::ProfileOf(c), nullptr);
      ASSERT_TRUE(plain.ok());
      MirrorRig rig(c, seed);
      rig.Follow(judged.get());
      rig.Follow(plain->get());
      for (const RigRequest& r : testing::MakeRequests(c, seed)) {
        rig.RunUntil(r.at);
        const Prediction p = judged->Predict(MirrorRig::QueryOf(r, true), r.at);
        ASSERT_EQ(p, (*plain)->Predict(MirrorRig::QueryOf(r, true), r.at));
        ASSERT_EQ(p.predictor, kind);
        rig.Submit(r);
      }
    }
  }
}

// What the account says is what the engine did.
TEST(JudgedTest, TheAccountHoldsWhatCame) {
  RigCase c = SteadyCase();
  c.requests = 200;
  c.rate = 0.5;  // hardly ever two at once: the reference is right about nearly all
  const auto judged = Judged(c, PredictorKind::kReference, false);
  MirrorRig rig(c, 1);
  rig.Follow(judged.get());
  for (const RigRequest& r : testing::MakeRequests(c, 1)) {
    rig.RunUntil(r.at);
    judged->Predict(MirrorRig::QueryOf(r, false), r.at);
    rig.Submit(r);
  }
  rig.RunUntil(Instant::FromNanos(4'000'000'000'000'000));
  EXPECT_EQ(judged->ledger()->ttft().count, 200U);
  EXPECT_EQ(judged->ledger()->e2e().count, 200U);
  EXPECT_LT(judged->ledger()->ttft().p50, 1e-5);
  EXPECT_LT(judged->ledger()->e2e().p50, 0.02);
  EXPECT_EQ(judged->ledger()->open(), 0U);
}

}  // namespace
}  // namespace foretoken
