// Random small closed loops for scenario tests: topologies, workloads and fault plans drawn from a seed, over affine step times.
#pragma once

#include <string>

#include "runtime/base/prng.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/workload/make_length_estimator.h"
#include "runtime/workload/trace.h"

namespace foretoken::testing {

// `requests` arrive at `rate` per second; some come at the same instant, some share a prefix, some state limits.
inline Trace RandomTrace(uint64_t seed, size_t requests, double rate) {
  Prng prng(seed);
  Trace trace;
  trace.name = "random";
  Instant at;
  for (size_t k = 0; k < requests; ++k) {
    TraceRequest r;
    if (!prng.Chance(0.1)) at += Duration::FromSeconds(prng.Exponential(1 / rate));
    r.meta.id = RequestId(k + 1);
    r.meta.arrival = at;
    r.meta.prompt_tokens = TokenCount(1 + static_cast<int64_t>(prng.LogNormal(5.5, 1.0)));
    r.truth.output_tokens = TokenCount(std::min<int64_t>(400, 1 + static_cast<int64_t>(prng.LogNormal(3.5, 0.9))));
    if (prng.Chance(0.3)) r.meta.max_tokens = TokenCount(prng.Between(1, 500));
    r.meta.length_class = static_cast<uint32_t>(prng.Below(3));
    r.meta.session = prng.Below(4);
    if (prng.Chance(0.4)) {
      const int64_t shared = std::min<int64_t>(r.meta.prompt_tokens.value(), 64 * prng.Between(1, 6));
      r.meta.segments = {{1'000'000 + 2 * prng.Below(3), TokenCount(shared)},
                         {PrivateContent(r.meta.id), TokenCount(r.meta.prompt_tokens.value() - shared)}};
    }
    trace.requests.push_back(std::move(r));
  }
  return trace;
}

// 1-6 instances of two speeds, with noise that predictors do not see.
inline RunOptions RandomRunOptions(uint64_t seed, const std::string& policy, PredictorKind predictor) {
  Prng prng(Mix64(seed, 77));
  RunOptions o;
  const uint64_t n = 1 + prng.Below(6);
  for (uint64_t k = 0; k < n; ++k) {
    RunOptions::Instance i;
    i.name = "i" + std::to_string(k);
    const double slow = prng.Chance(0.5) ? 1.0 : 2.3;
    const auto law =
        std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{4e6 * slow, 4e4 * slow, 6e4 * slow, 12 * slow});
    i.engine.config.num_gpu_blocks = static_cast<int32_t>(300 + prng.Below(2000));
    i.engine.config.max_num_seqs = static_cast<int32_t>(4 + prng.Below(40));
    i.engine.config.max_num_batched_tokens = static_cast<int32_t>(256 << prng.Below(4));
    i.engine.config.max_model_len = 4096;
    i.engine.config.async_scheduling = prng.Chance(0.5);
    i.engine.config.prefix_caching = prng.Chance(0.7);
    i.engine.step_time.law = law;
    i.engine.step_time.host_overhead = Duration::Micros(500);
    i.engine.noise = {Mix64(seed, k), 0.03};
    i.profile.limits = i.engine.config;
    i.profile.step_time = i.engine.step_time;
    i.profile.step_time.factor = prng.Chance(0.5) ? 1.0 : 0.8;
    i.facts.kv_tokens = int64_t{i.engine.config.num_gpu_blocks - 1} * i.engine.config.block_size;
    o.instances.push_back(std::move(i));
  }
  o.scheduler.policy = policy;
  o.scheduler.seed = seed;
  o.make_predictor = [predictor](const InstanceProfile& profile, const LengthEstimator* lengths) {
    return MakePredictor(predictor, profile, lengths);
  };
  o.make_lengths = [](uint64_t) { return MakeLengthEstimator(LengthEstimatorKind::kSampled); };
  return o;
}

// Everything at once: delay, reordering, repetition, loss, a partition, a restart.
inline FaultPlan RandomFaults(uint64_t seed) {
  Prng prng(Mix64(seed, 99));
  FaultPlan plan;
  plan.name = "random";
  LinkRule rule;
  rule.from = std::nullopt;
  rule.to = std::nullopt;
  rule.faults.delay.kind = DelayLaw::Kind::kUniform;
  rule.faults.delay.min = Duration::Micros(prng.Between(0, 500));
  rule.faults.delay.max = rule.faults.delay.min + Duration::Micros(prng.Between(1, 20'000));
  rule.faults.reorder_probability = 0.1;
  rule.faults.reorder_delay.value = Duration::Millis(30);
  rule.faults.duplicate_probability = 0.1;
  rule.faults.duplicate_delay.value = Duration::Millis(4);
  rule.faults.drop_probability = prng.Chance(0.5) ? 0.05 : 0.0;
  if (prng.Chance(0.3)) rule.faults.bytes_per_second = 2'000'000;
  if (prng.Chance(0.5)) rule.faults.partitions = {{Instant() + Duration::Millis(700), Duration::Millis(400), std::nullopt}};
  plan.links = {rule};
  if (prng.Chance(0.5)) plan.restarts = {{"i0", Instant() + Duration::Millis(900), Duration::Millis(300), std::nullopt}};
  return plan;
}

}  // namespace foretoken::testing
