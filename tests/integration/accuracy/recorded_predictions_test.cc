#include "integration/accuracy/recorded_predictions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "integration/accuracy/measured_run.h"
#include "integration/accuracy/prediction_run.h"
#include "integration/engines/vllm/recording.h"

namespace foretoken::accuracy {
namespace {

constexpr PredictorKind kAll[] = {PredictorKind::kReference, PredictorKind::kPattern, PredictorKind::kPatternReuse,
                                  PredictorKind::kTimeline};
const RequestId kA(1), kB(2);

StepTimeModel Law(double step_ms, double prefill_us, double decode_us, double kv_ns) {
  StepTimeModel m;
  m.law =
      std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{step_ms * 1e6, prefill_us * 1e3, decode_us * 1e3, kv_ns});
  return m;
}

Instant At(double ms) { return Instant() + Duration::FromSeconds(ms * 1e-3); }

RecordedEvent Add(RequestId id, double ms, int64_t prompt, int64_t output) {
  EngineRequest r;
  r.id = id;
  r.prompt_tokens = prompt;
  r.max_tokens = r.output_tokens = output;
  return {At(ms), 0, r};
}

RecordedEvent Step(ReportedStep s, double scheduled_ms, double result_ms) {
  s.scheduled = At(scheduled_ms);
  s.result = At(result_ms);
  s.updated = At(result_ms + 0.1);
  return {s.updated, 0, std::make_shared<const ReportedStep>(std::move(s))};
}

// Two requests on a synchronous server; B is added in the gap after the second result.
Recording TwoRequests() {
  Recording r;
  r.config.num_gpu_blocks = 100;
  r.names = TokenNames({"a", "b"});
  r.events.push_back(Add(kA, 0, 50, 3));
  ReportedStep s;
  s.items = {{kA, 50, 0, true}};
  s.admitted = {{kA, 0, false}};
  s.after_schedule = ReportedStep::Scheduled{1, 0, 0};
  s.running_after = 1;
  r.events.push_back(Step(s, 0.1, 10));
  s.admitted.clear();
  s.step = 1;
  s.items = {{kA, 1, 50, true}};
  r.events.push_back(Step(s, 10.3, 15));
  r.events.push_back(Add(kB, 15.2, 40, 1));
  s.step = 2;
  s.items = {{kA, 1, 51, true}, {kB, 40, 0, true}};
  s.admitted = {{kB, 0, false}};
  s.finished = {kA, kB};
  s.running_after = 0;
  r.events.push_back(Step(s, 15.3, 25));
  return r;
}

std::vector<BatchTrace> StepsOf(const PredictionRun& run) {
  std::vector<BatchTrace> steps;
  for (const auto& e : run.events) {
    if (const auto* t = std::get_if<BatchTrace>(&e.what)) steps.push_back(*t);
  }
  return steps;
}

TEST(PredictionRunTest, StepsOfABusyServerFollowEachOtherWithoutAHole) {
  const PredictionRun run = RunOfRecording(TwoRequests());
  const std::vector<BatchTrace> steps = StepsOf(run);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[0].duration, Duration::Millis(10));  // from the add that woke the server
  EXPECT_EQ(steps[1].start, steps[0].end());
  EXPECT_EQ(steps[2].start, steps[1].end());
  EXPECT_EQ(steps[2].duration, Duration::Millis(10));
}

TEST(PredictionRunTest, AnAddInTheGapBelongsToTheResultBeforeIt) {
  const PredictionRun run = RunOfRecording(TwoRequests());
  const auto& event = run.events[3];
  const auto& arrival = std::get<PredictionRun::Arrival>(event.what);
  EXPECT_EQ(arrival.meta.id, kB);
  EXPECT_EQ(event.at, StepsOf(run)[1].end());
  EXPECT_EQ(arrival.since, Duration::Micros(200));
  // What came is counted from the add itself.
  EXPECT_EQ(run.came[2].ttft, Duration::Micros(9800));
  EXPECT_EQ(run.came[1].e2e, Duration::Millis(25));
}

TEST(PredictionRunTest, DecodesAreImpliedAndChunksListed) {
  const std::vector<BatchTrace> steps = StepsOf(RunOfRecording(TwoRequests()));
  EXPECT_EQ(steps[0].chunks, (std::vector<BatchTrace::Chunk>{{kA, 50, 0, true}}));
  EXPECT_TRUE(steps[1].chunks.empty());
  EXPECT_EQ(steps[1].decode_seqs, 1);
  EXPECT_EQ(steps[1].decode_kv_tokens, 51);
  EXPECT_EQ(steps[2].chunks, (std::vector<BatchTrace::Chunk>{{kB, 40, 0, true}}));
  EXPECT_EQ(steps[2].prefill_tokens, 40);
  ASSERT_EQ(steps[2].finished.size(), 2u);
  EXPECT_EQ(steps[2].finished[0].output_tokens, 3);
  EXPECT_EQ(steps[2].finished[1].output_tokens, 1);
}

TEST(PredictionRunTest, ADecodeThatIsLeftOutIsSkipped) {
  Recording r = TwoRequests();
  ReportedStep s = *std::get<RecordedEvent::Step>(r.events[4].what);
  s.items.erase(s.items.begin());
  s.finished = {kB};
  r.events[4] = Step(s, 15.3, 25);
  EXPECT_EQ(StepsOf(RunOfRecording(r))[2].skipped, std::vector<RequestId>{kA});
}

// A server whose steps are exactly those of a law: B comes when no batch is composed yet, and joins the next one.
TEST(ScorePredictionsTest, WhoComesBetweenTwoBatchesJoinsTheNextOne) {
  Recording r = TwoRequests();
  r.events.back() = Step(*std::get<RecordedEvent::Step>(r.events.back().what), 15.3, 24);
  for (const PredictorKind kind : kAll) {
    const auto score = ScorePredictions(RunOfRecording(r), {kind, Law(5, 100, 0, 0), false, LengthKnowledge::kMaxTokens});
    ASSERT_TRUE(score.ok());
    EXPECT_EQ(score->ttft.count, 2u);
    EXPECT_LT(score->ttft.ape_p99, 1e-6) << static_cast<int>(kind);
  }
}

// One request every `gap_s` seconds, its times those of a server that does nothing else.
MeasuredRun Alone(const StepTimeModel& law, int64_t output) {
  MeasuredRun run;
  for (int i = 0; i < 20; ++i) {
    MeasuredRequest r;
    r.id = std::to_string(i);
    r.arrival = At(60'000.0 * i);
    r.prompt_tokens = 100 + 10 * i;
    r.output_tokens = output;
    double ns = law.NanosOf({r.prompt_tokens, 0, 0, 0});
    r.ttft = Duration::FromNanos(ns);
    for (int64_t k = 1; k < output; ++k) ns += law.NanosOf({0, 0, 1, r.prompt_tokens + k});
    r.e2e = Duration::FromNanos(ns);
    run.requests.push_back(r);
  }
  return run;
}

TEST(ScorePredictionsTest, AServerThatIsIdleIsPredictedExactly) {
  const StepTimeModel law = Law(8, 50, 10, 20);
  const auto run = RunOfMeasurement(Alone(law, 40), law);
  ASSERT_TRUE(run.ok());
  for (const PredictorKind kind : kAll) {
    const auto score = ScorePredictions(*run, {kind, law, false, LengthKnowledge::kLearned});
    ASSERT_TRUE(score.ok());
    EXPECT_EQ(score->ttft.count, 20u);
    EXPECT_LT(score->ttft.ape_p99, 1e-3) << static_cast<int>(kind);
    EXPECT_NEAR(score->ttft.bias, 0, 1e-3);
    EXPECT_GT(score->e2e.ape_p50, 0.01) << "the length of 40 is not to be known";
  }
}

// What comes later, and how long a request turns out to be, changes no earlier answer.
TEST(ScorePredictionsTest, SeesOnlyWhatHadCome) {
  const StepTimeModel law = Law(8, 50, 10, 20), other = Law(13, 50, 10, 20);
  MeasuredRun measured = Alone(law, 40);
  for (size_t i = 0; i < measured.requests.size(); ++i) {
    measured.requests[i].arrival = At(100.0 * static_cast<double>(i));
    measured.requests[i].output_tokens = 10 + static_cast<int64_t>(i * i);
  }
  const auto all = RunOfMeasurement(measured, law);
  ASSERT_TRUE(all.ok());
  PredictionRun head = *all, blind = *all;
  const size_t kept = all->events.size() / 3;
  head.events.resize(kept);
  size_t asked = 0;
  for (const auto& e : head.events) asked += std::holds_alternative<PredictionRun::Arrival>(e.what) ? 1 : 0;
  ASSERT_GT(asked, 5u);
  for (size_t id = asked + 1; id < blind.came.size(); ++id) blind.came[id] = {};
  for (const PredictorKind kind : kAll) {
    for (const bool calibrate : {false, true}) {
      const PredictionSetup setup{kind, other, calibrate, LengthKnowledge::kLearned};
      const auto a = ScorePredictions(head, setup), b = ScorePredictions(blind, setup);
      ASSERT_TRUE(a.ok() && b.ok());
      EXPECT_EQ(a->ttft.count, asked);
      EXPECT_EQ(b->ttft.count, asked);
      EXPECT_EQ(a->ttft.ape_p95, b->ttft.ape_p95);
      EXPECT_EQ(a->e2e.ape_p95, b->e2e.ape_p95);
      EXPECT_EQ(a->e2e.bias, b->e2e.bias);
    }
  }
}

std::optional<PredictionRun> Shared(const std::string& directory, const std::string& instance) {
  const char* root = std::getenv("FORETOKEN_SHARED");
  if (root == nullptr) return std::nullopt;
  const std::string stem = std::string(root) + "/data/truth/" + directory + "/";
  if (!std::filesystem::exists(stem + "steps_" + instance + ".jsonl.gz")) return std::nullopt;
  const auto recording = ReadRecording(stem + "steps_" + instance + ".jsonl.gz", stem + "trace_" + instance + ".jsonl.gz");
  EXPECT_TRUE(recording.ok()) << (recording.ok() ? "" : recording.error().message);
  if (!recording.ok()) return std::nullopt;
  return RunOfRecording(*recording);
}

TEST(RecordedPredictionsTest, EveryRequestOfTheLiveServersCameAndIsAskedAbout) {
  const struct {
    const char *directory, *instance;
    int64_t requests, steps;
  } cases[] = {{"vllm-cpu-live", "i0", 672, 18815}, {"vllm-cpu-live", "i1", 400, 10348}, {"vllm-async-live", "i0", 718, 4372}};
  for (const auto& c : cases) {
    const auto run = Shared(c.directory, c.instance);
    if (!run) GTEST_SKIP() << "no recordings: FORETOKEN_SHARED is unset or holds none";
    EXPECT_EQ(run->requests, c.requests);
    EXPECT_EQ(run->steps, c.steps);
    for (const PredictorKind kind : kAll) {
      const auto score = ScorePredictions(*run, {kind, Law(6.5, 45, 20, 30), true, LengthKnowledge::kLearned});
      ASSERT_TRUE(score.ok());
      EXPECT_EQ(static_cast<int64_t>(score->ttft.count), c.requests);
      EXPECT_EQ(static_cast<int64_t>(score->e2e.count), c.requests);
    }
  }
}

TEST(RecordedPredictionsTest, TheFirstTokenOfTheAsynchronousServerIsForeseenToOnePercent) {
  const auto run = Shared("vllm-async-live", "i0");
  if (!run) GTEST_SKIP() << "no recordings: FORETOKEN_SHARED is unset or holds none";
  for (const PredictorKind kind : kAll) {
    const auto told = ScorePredictions(*run, {kind, Law(10, 20, 10, 40), false, LengthKnowledge::kMaxTokens});
    const auto learnt = ScorePredictions(*run, {kind, Law(6.5, 45, 20, 30), true, LengthKnowledge::kMaxTokens});
    ASSERT_TRUE(told.ok() && learnt.ok());
    std::printf("TTFT error p50: law told %.2f %%, learnt %.2f %%\n", 100 * told->ttft.ape_p50, 100 * learnt->ttft.ape_p50);
    EXPECT_LT(told->ttft.ape_p50, 0.005);
    EXPECT_LT(learnt->ttft.ape_p50, 0.01);
    EXPECT_NEAR(learnt->ttft.bias, 0, 0.03);
    EXPECT_LT(told->ttft.ape_p95, 0.13);
  }
}

TEST(RecordedPredictionsTest, NinetyPercentAreWithinTheNinetiethPercentile) {
  for (const auto& [directory, instance] :
       {std::pair{"vllm-async-live", "i0"}, {"vllm-cpu-live", "i0"}, {"vllm-cpu-live", "i1"}}) {
    const auto run = Shared(directory, instance);
    if (!run) GTEST_SKIP() << "no recordings: FORETOKEN_SHARED is unset or holds none";
    for (const PredictorKind kind : kAll) {
      const auto score = ScorePredictions(*run, {kind, Law(6.5, 45, 20, 30), true, LengthKnowledge::kLearned});
      ASSERT_TRUE(score.ok());
      std::printf("%s %s predictor %d: TTFT %.0f %%, E2E %.0f %% within p90\n", directory, instance, static_cast<int>(kind),
                  100 * score->ttft.coverage_p90, 100 * score->e2e.coverage_p90);
      EXPECT_NEAR(score->ttft.coverage_p90, 0.9, 0.06);
      EXPECT_GT(score->e2e.coverage_p90, 0.84);
      EXPECT_LT(score->e2e.coverage_p90, 0.96);
    }
  }
}

// Steps of a server that shares two cores vary by half; the believed law is four times too slow.
TEST(RecordedPredictionsTest, CalibrationTakesTheBiasOutOfAWrongLaw) {
  const auto run = Shared("vllm-cpu-live", "i1");
  if (!run) GTEST_SKIP() << "no recordings: FORETOKEN_SHARED is unset or holds none";
  for (const PredictorKind kind : {PredictorKind::kReference, PredictorKind::kTimeline}) {
    const StepTimeModel slow = Law(26, 180, 80, 120);
    const auto wrong = ScorePredictions(*run, {kind, slow, false, LengthKnowledge::kMaxTokens});
    const auto calibrated = ScorePredictions(*run, {kind, slow, true, LengthKnowledge::kMaxTokens});
    ASSERT_TRUE(wrong.ok() && calibrated.ok());
    std::printf("E2E bias %+.0f %% -> %+.0f %%\n", 100 * wrong->e2e.bias, 100 * calibrated->e2e.bias);
    EXPECT_LT(std::abs(calibrated->e2e.bias), 0.5 * std::abs(wrong->e2e.bias));
  }
}

}  // namespace
}  // namespace foretoken::accuracy
