// A black-box mirror beside an engine whose truth is known: a batching engine in virtual time, of which the mirror sees only what a
// gateway sees - requests sent, chunks coming, ends.
#include "integration/engines/openai/engine_mirror.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

struct Truth {
  double step_ms = 6, seq_ms = 0.05, prompt_ms = 0.05;  // per step, per running request, per prompt token
};
struct Traffic {
  double per_second = 6;
  int requests = 400;
  double streaming = 1.0;  // share of requests
  int chunk = 1;           // tokens per chunk
};

// First come first served, unlimited batch, whole prompts in one step: what the mirror has to find out by itself.
class Run {
 public:
  Run(Truth truth, Traffic traffic, uint64_t seed)
      : truth_(truth), traffic_(traffic), prng_(seed), mirror_({InstanceId(0), Slo{}, {}}) {}

  void Go() {
    double arrival = 0, clock = 0;
    int sent = 0;
    while (sent < traffic_.requests || !running_.empty() || !waiting_.empty()) {
      if (running_.empty() && waiting_.empty()) clock = std::max(clock, arrival);
      // What comes before the next step is composed.
      while (sent < traffic_.requests && arrival <= clock) {
        Arrive(sent++, arrival);
        arrival += prng_.Exponential(1 / traffic_.per_second);
      }
      clock = Step(clock, sent, arrival);
    }
  }
  // Of the second half, when the engine's speed has been seen: median of |predicted/actual - 1|.
  double TtftError() const { return Median(ttft_errors_); }
  double E2eError() const { return Median(e2e_errors_); }
  const EngineMirror& mirror() const { return mirror_; }

 private:
  struct Request {
    RequestMeta meta;
    int output = 0, made = 0, told = 0;
    bool streaming = true;
    double at = 0, first = -1;
    Prediction predicted;
  };

  static double Median(std::vector<double> v) {
    if (v.empty()) return 99;
    std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
    return v[v.size() / 2];
  }
  static Instant T(double s) { return Instant::FromNanos(1'000'000'000'000) + Duration::FromSeconds(s); }

  void Arrive(int id, double at) {
    Request r;
    r.meta.id = RequestId(static_cast<uint64_t>(id) + 1);
    r.meta.arrival = T(at);
    r.meta.prompt_tokens = TokenCount(prng_.Between(20, 400));
    r.output = static_cast<int>(prng_.Between(10, 120));
    r.meta.max_tokens = TokenCount(r.output);
    r.meta.output_hint = TokenCount(r.output);
    r.streaming = prng_.Chance(traffic_.streaming);
    r.at = at;
    PredictQuery query;
    query.request = &r.meta;
    query.expected_output = TokenCount(r.output);
    r.predicted = mirror_.Predict(query, T(at));
    EnqueueOrder order;
    order.instance = InstanceId(0);
    order.reservation = {r.meta.id, 0,
                         T(at),     r.meta.prompt_tokens.value(),
                         r.output,  LengthKey{r.meta.id, 0, 0.5, TokenCount(r.output), TokenCount(r.output)},
                         Slo{},     {}};
    ASSERT_TRUE(mirror_.OnEnqueue(order, T(at)).accepted);
    mirror_.OnSent(r.meta, r.streaming, T(at));
    waiting_.push_back(std::move(r));
  }

  double Step(double clock, int& sent, double& arrival) {
    double prompts = 0;
    const size_t before = running_.size();
    while (!waiting_.empty()) {
      prompts += static_cast<double>(waiting_.front().meta.prompt_tokens.value());
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    const double end =
        clock + 1e-3 * (truth_.step_ms + truth_.seq_ms * static_cast<double>(before) + truth_.prompt_ms * prompts);
    while (sent < traffic_.requests && arrival < end) {  // while the step runs
      Arrive(sent++, arrival);
      arrival += prng_.Exponential(1 / traffic_.per_second);
    }
    double jitter = 0;
    for (Request& r : running_) {
      ++r.made;
      const bool done = r.made == r.output;
      const double seen = end + (jitter += 5e-6);
      if (r.streaming && (r.made == 1 || r.made - r.told >= traffic_.chunk || done)) {
        if (r.first < 0) r.first = seen;
        mirror_.OnOutput(r.meta.id, 1, T(seen));
        r.told = r.made;
      }
      if (done) Finish(r, seen);
    }
    std::erase_if(running_, [](const Request& r) { return r.made == r.output; });
    return end;
  }

  void Finish(const Request& r, double at) {
    mirror_.OnFinished(r.meta.id, TokenCount(r.output), true, T(at));
    if (r.meta.id.value() < static_cast<uint64_t>(traffic_.requests) / 2) return;
    if (r.first >= 0) ttft_errors_.push_back(std::abs(r.predicted.ttft.seconds() / (r.first - r.at) - 1));
    e2e_errors_.push_back(std::abs(r.predicted.e2e.seconds() / (at - r.at) - 1));
  }

  Truth truth_;
  Traffic traffic_;
  Prng prng_;
  EngineMirror mirror_;
  std::deque<Request> waiting_;
  std::vector<Request> running_;
  std::vector<double> ttft_errors_, e2e_errors_;
};

void Expect(const char* what, Truth truth, Traffic traffic, double ttft, double e2e) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    Run run(truth, traffic, seed);
    run.Go();
    std::printf("%s, seed %lu: median error TTFT %.3f, E2E %.3f; rescaled %lu\n", what, seed, run.TtftError(), run.E2eError(),
                run.mirror().counters().rescaled);
    EXPECT_LE(run.TtftError(), ttft) << what << ", seed " << seed;
    EXPECT_LE(run.E2eError(), e2e) << what << ", seed " << seed;
    EXPECT_EQ(run.mirror().inference().live(), 0) << what << ", seed " << seed;
    EXPECT_EQ(run.mirror().simulator().predictor().running(), 0) << what << ", seed " << seed;
    EXPECT_EQ(run.mirror().simulator().predictor().waiting(), 0) << what << ", seed " << seed;
  }
}

TEST(EngineMirrorTest, FollowsAnEngineOfTheGenericKind) { Expect("generic", {}, {}, 0.3, 0.15); }
TEST(EngineMirrorTest, FindsTheSpeedOfASlowEngine) { Expect("slow", {60, 1, 2}, {0.7, 400}, 0.3, 0.25); }
TEST(EngineMirrorTest, FindsTheSpeedOfAFastEngine) { Expect("fast", {0.8, 0.01, 0.004}, {30, 400}, 0.3, 0.15); }
TEST(EngineMirrorTest, FollowsThroughOnePieceAnswers) { Expect("half in one piece", {}, {6, 400, 0.5}, 0.4, 0.2); }
TEST(EngineMirrorTest, FollowsWithoutAnyStream) { Expect("no streams", {}, {6, 400, 0.0}, 100, 0.35); }
TEST(EngineMirrorTest, FollowsFourTokensPerChunk) { Expect("4 per chunk", {}, {6, 400, 1.0, 4}, 0.4, 0.2); }

// Whatever comes, in whatever order, nothing breaks and nothing stays.
TEST(EngineMirrorTest, SurvivesAnyOrderOfEvents) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Prng prng(seed);
    EngineMirror mirror({InstanceId(0), Slo{}, {}});
    Instant now = Instant::FromNanos(1'000'000'000'000);
    std::vector<RequestMeta> metas(40);
    std::vector<RequestId> there;
    uint64_t next = 1;
    for (int i = 0; i < 3000; ++i) {
      now += Duration::Nanos(static_cast<int64_t>(prng.Exponential(2e6)));
      const RequestId any = there.empty() ? RequestId(999'999) : there[prng.Below(there.size())];
      switch (prng.Below(7)) {
        case 0: {
          if (there.size() >= metas.size()) break;
          RequestMeta& m = metas[next % metas.size()];
          m.id = RequestId(next++);
          m.prompt_tokens = TokenCount(prng.Between(1, 5000));
          PredictQuery q;
          q.request = &m;
          q.expected_output = TokenCount(prng.Between(1, 500));
          const Prediction a = mirror.Predict(q, now), b = mirror.Predict(q, now);
          ASSERT_EQ(a, b) << "seed " << seed;
          ASSERT_GT(a.e2e.nanos(), 0) << "seed " << seed;
          EnqueueOrder order;
          order.reservation = {
              m.id, 0, now, m.prompt_tokens.value(), q.expected_output.value(), LengthKey{m.id, 0, 0.5, {}, {}}, Slo{}, {}};
          mirror.OnEnqueue(order, now);
          if (prng.Chance(0.9)) mirror.OnSent(m, prng.Chance(0.6), now);
          there.push_back(m.id);
          break;
        }
        case 1:
        case 2:
        case 3: mirror.OnOutput(any, static_cast<int32_t>(prng.Between(1, 5)), now); break;
        case 4: mirror.OnFinished(any, TokenCount(prng.Between(0, 900)), prng.Chance(0.5), now); break;
        case 5:
          mirror.OnGone(any, now);
          std::erase(there, any);
          break;
        case 6:
          if (prng.Chance(0.02)) mirror.OnRestart(now);
          if (prng.Chance(0.02)) mirror.SetLimits(prng.Between(0, 9000), prng.Between(0, 5000), prng.Between(0, 64), now);
          break;
      }
    }
    for (const RequestId id : there) mirror.OnGone(id, now);
    EXPECT_EQ(mirror.inference().live(), 0) << "seed " << seed;
    EXPECT_EQ(mirror.simulator().predictor().running() + mirror.simulator().predictor().waiting(), 0) << "seed " << seed;
  }
}

}  // namespace
}  // namespace foretoken
