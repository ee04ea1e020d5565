// MirrorRig: an emulated engine and predictors that follow it, for tests. A fork of the engine tells the truth about a request:
// what happens to it, and to everybody else, if it comes now and nothing comes later.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/prng.h"
#include "runtime/engine/emulated_engine.h"
#include "runtime/predict/predictor.h"

namespace foretoken::testing {

struct RigCase {
  EngineConfig config;
  double rate = 5;  // requests/s
  int32_t requests = 300;
  double prompt_mean = 800;
  double output_mean = 150;
  double sigma = 1.0;  // of the lognormal lengths
  double noise = 0;
  double shared = 0;  // share of requests that begin with one of four common prefixes
  int64_t prompt_max = 8000;
  int64_t output_max = 1500;
};

inline StepTimeModel H100LikeModel() {
  StepTimeModel m;
  m.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{6.5e6, 45e3, 20e3, 30});
  m.host_overhead = Duration::Micros(100);
  return m;
}

inline RigCase RandomCase(uint64_t seed) {
  Prng g = Prng::ForStream(seed, 11);
  RigCase c;
  c.config.async_scheduling = g.Chance(0.5);
  c.config.stop_at_eos = g.Chance(0.3);
  c.config.max_num_seqs = static_cast<int32_t>(g.Between(4, 64));
  c.config.max_num_batched_tokens = static_cast<int32_t>(g.Between(1, 4)) * 1024;
  c.config.block_size = g.Chance(0.7) ? 16 : 32;
  c.config.num_gpu_blocks = static_cast<int32_t>(g.Between(1200, 6000));
  c.config.prefix_caching = g.Chance(0.5);
  c.config.max_model_len = 16384;
  c.prompt_mean = static_cast<double>(g.Between(100, 1200));
  c.output_mean = static_cast<double>(g.Between(20, 200));
  c.rate = 0.5 + 10 * g.Unit();
  c.shared = c.config.prefix_caching && g.Chance(0.5) ? 0.7 : 0;
  return c;
}

struct RigRequest {
  EngineRequest engine;
  RequestMeta meta;
  Instant at;
};

inline std::vector<RigRequest> MakeRequests(const RigCase& c, uint64_t seed) {
  Prng g = Prng::ForStream(seed, 12);
  std::vector<RigRequest> out;
  Instant at = Instant::FromNanos(1'000'000'000);
  for (int32_t i = 0; i < c.requests; ++i) {
    at += Duration::FromSeconds(g.Exponential(1 / c.rate));
    RigRequest r;
    const auto length = [&](double mean, int64_t most) {
      return std::clamp<int64_t>(static_cast<int64_t>(g.LogNormal(std::log(mean) - c.sigma * c.sigma / 2, c.sigma)), 1, most);
    };
    r.at = at;
    r.engine.id = RequestId(static_cast<uint64_t>(i) + 1);
    r.engine.arrival_key = at.seconds();
    r.engine.prompt_tokens = length(c.prompt_mean, c.prompt_max);
    r.engine.output_tokens = length(c.output_mean, c.output_max);
    r.engine.max_tokens = c.config.stop_at_eos ? r.engine.output_tokens + 100 : r.engine.output_tokens;
    if (g.Chance(c.shared)) {
      const int64_t common = std::min<int64_t>(r.engine.prompt_tokens, 512);
      r.engine.segments = {{1'000'000 + g.Below(4) * 2, TokenCount(common)},
                           {PrivateContent(r.engine.id), TokenCount(r.engine.prompt_tokens - common)}};
    }
    r.meta.id = r.engine.id;
    r.meta.arrival = at;
    r.meta.prompt_tokens = TokenCount(r.engine.prompt_tokens);
    r.meta.segments = r.engine.segments;
    out.push_back(std::move(r));
  }
  return out;
}

// What the fork says.
struct Truth {
  std::map<uint64_t, Instant> first;
  std::map<uint64_t, Instant> end;
  uint64_t rejected = 0;
};

class TruthSink final : public EngineSink {
 public:
  explicit TruthSink(Truth& truth) : truth_(truth) {}
  void OnStep(const BatchTrace&) override {}
  void OnFirstToken(RequestId id, Instant at) override { truth_.first.emplace(id.value(), at); }
  void OnFinished(RequestId id, const BatchTrace::Finish&, Instant at) override { truth_.end[id.value()] = at; }
  void OnRejected(RequestId, OutcomeReason, Instant) override { ++truth_.rejected; }

 private:
  Truth& truth_;
};

class MirrorRig final : public EngineSink {
 public:
  MirrorRig(const RigCase& c, uint64_t seed, StepTimeModel model = H100LikeModel()) {
    EmulatedEngine::Options o;
    o.config = c.config;
    o.step_time = std::move(model);
    o.noise = {seed, c.noise};
    o.traces = true;
    auto made = EmulatedEngine::Make(std::move(o));
    FT_CHECK(made.ok());
    engine_ = std::move(made).value();
  }

  static InstanceProfile ProfileOf(const RigCase& c) {
    InstanceProfile p;
    p.limits = c.config;
    p.step_time = H100LikeModel();
    return p;
  }
  static Reservation ReservationOf(const RigRequest& r) {
    Reservation v;
    v.request = r.engine.id;
    v.arrival = r.at;
    v.prompt_tokens = r.engine.prompt_tokens;
    v.expected_output = r.engine.output_tokens;
    v.length.request = r.engine.id;
    v.segments = r.engine.segments;
    return v;
  }
  static PredictQuery QueryOf(const RigRequest& r, bool externality) {
    PredictQuery q;
    q.request = &r.meta;
    q.expected_output = TokenCount(r.engine.output_tokens);
    q.want_externality = externality;
    return q;
  }

  void Follow(Predictor* p) { followers_.push_back(p); }
  void RunUntil(Instant at) { engine_->RunUntil(at, *this); }
  void Submit(const RigRequest& r) {
    for (Predictor* p : followers_) {
      p->OnEnqueue(ReservationOf(r), r.at);
      p->OnArrived(r.engine.id, r.at);
    }
    engine_->Submit(r.engine, r.at);
  }
  // The future without (null) or with one more request now.
  Truth FutureWith(const RigRequest* r) const {
    auto fork = engine_->Clone();
    if (r != nullptr) fork->Submit(r->engine, r->at);
    Truth truth;
    TruthSink sink(truth);
    fork->RunUntil(Instant::FromNanos(4'000'000'000'000'000), sink);
    return truth;
  }
  const EmulatedEngine& engine() const { return *engine_; }
  const std::vector<BatchTrace>& kept() const { return kept_; }
  void KeepTraces() { keep_ = true; }
  uint64_t rejected() const { return rejected_; }

  void OnStep(const BatchTrace& trace) override {
    for (Predictor* p : followers_) p->OnStep(trace);
    if (keep_) kept_.push_back(trace);
  }
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId, const BatchTrace::Finish&, Instant) override {}
  void OnRejected(RequestId id, OutcomeReason, Instant at) override {
    ++rejected_;
    for (Predictor* p : followers_) p->OnGone(id, at);
  }

 private:
  std::unique_ptr<EmulatedEngine> engine_;
  std::vector<Predictor*> followers_;
  std::vector<BatchTrace> kept_;
  bool keep_ = false;
  uint64_t rejected_ = 0;
};

inline double Quantile(std::vector<double> v, double q) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v[std::min(v.size() - 1, static_cast<size_t>(q * static_cast<double>(v.size())))];
}

}  // namespace foretoken::testing
