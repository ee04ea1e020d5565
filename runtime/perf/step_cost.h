// StepCost: a step-time law as four numbers, for reckoning how much work a request brings (runtime/sched/slo_headroom.h). Coarse by
// intent: each is a slope between two usual shapes, whatever the law is in between.
#pragma once

#include <algorithm>

#include "runtime/perf/step_time_model.h"

namespace foretoken {

// Seconds.
struct StepCost {
  double fixed_s = 0;         // of every step, whatever it computes
  double prompt_token_s = 0;  // of each prompt token that it computes
  double sequence_s = 0;      // of each sequence that decodes in it
  double kv_token_s = 0;      // of each token of context that these read
  bool operator==(const StepCost&) const = default;
};

inline StepCost CostOf(const StepTimeModel& model) {
  constexpr int64_t kContext = 1024, kSequences = 32, kPrompt = 2048;  // tokens, sequences: a usual load
  constexpr double kSecond = 1e9;                                      // nanoseconds
  const DecodeSegment one = model.DecodeSegmentAt(1, kContext);
  const DecodeSegment many = model.DecodeSegmentAt(kSequences, kSequences * kContext);
  StepCost c;
  c.sequence_s = std::max(0.0, many.base_ns - one.base_ns) / (kSequences - 1) / kSecond;
  c.kv_token_s = std::max(0.0, many.per_kv_token_ns) / kSecond;
  c.fixed_s = std::max(0.0, one.base_ns / kSecond - c.sequence_s);
  const double prompt_s = model.NanosOf({.prefill_tokens = kPrompt}) / kSecond;
  c.prompt_token_s = std::max(0.0, prompt_s - c.fixed_s) / kPrompt;
  return c;
}

}  // namespace foretoken
