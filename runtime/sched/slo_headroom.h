// SloHeadroom: how much of its targets a fleet still has free, and how many instances it would need: what an autoscaler is told
// (docs/operations.md). What it goes by is what came and what was predicted lately. It is the larger of two answers.
//
// The law. A request brings w seconds of work to an instance beyond the fixed part `a` of every step: its prompt's tokens that are not
// cached, and its share of each step in which it decodes. x requests a second at an instance take the share x w of its time,
// whatever binds - prompts or outputs -, so the load grows in proportion to the arrivals and in inverse proportion to the instances,
// which no latency does, and a proportional controller can follow it. An instance takes the least of three rates:
//   * TPOT. Steps take a and what requests bring, so every token takes a / (1 - x w): a target T allows x w <= 1 - a / T.
//   * TTFT. A prompt waits for the work before it. With s the work of a prompt and R = E[s^2] / 2 E[s] (what is left of one that is
//     under way), the wait at n instances of which the best is chosen has a tail of mean R / (n (1 - x w)), so a share m waits longer
//     than ln(1/m) of that: a target T allows x w <= 1 - R ln(1/m) / (n (T - s)).
//   * KV cache. Outputs of O tokens hold their context c for O a / (1 - x w): that much of x must fit.
// Only kUse of a rate is planned for.
//
// The predictions. They know what means do not: bursts, short outputs that one long prompt holds up, a slow card. Misses m rise steeply
// with the load, as (load)^k: n instances that miss m need n (m / aim)^(1/k) to miss `aim`. How steeply is not known, and depends on
// the workload (k from 2 to 20 in simulation): up, a small k, since too few cost targets; down, a large one, so that a step down never
// goes beyond what it can know. Requests that would miss their target on an idle engine, or nearly, count for nothing here: no
// number of instances helps them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/model/request.h"
#include "runtime/perf/step_cost.h"

namespace foretoken {

// Of prompts: bucket i counts those of 2^(i-1) .. 2^i - 1 tokens to compute.
inline constexpr size_t kPromptBuckets = 20;

// Of the last seconds.
struct FleetLoad {
  struct Engine {
    StepCost cost;
    double kv_tokens = 0;  // room for so many; 0: not known
  };
  Slo slo;
  double missed_most = 0.1;  // share of requests that may miss a target
  double arrivals_per_second = 0;
  double decisions_per_second = 0;
  // Of the decisions made on a prediction.
  uint64_t decisions = 0;
  double mean_violation = 0;  // P(a target missed), of the winner
  double mean_prompt_tokens = 0;
  double mean_computed = 0, mean_computed_squared = 0;  // tokens of the prompt that were not cached at the winner
  std::array<double, kPromptBuckets> computed{};        // shares
  // Of the requests that finished.
  uint64_t finished = 0;
  double mean_output_tokens = 0;
  double missed = 0;  // share of those that ended, by any outcome but a client's leaving, and missed a target
  // Of the instances that take requests.
  int32_t instances = 0;
  std::vector<Engine> engines;  // those of them whose mirror is here
};

struct SloHeadroom {
  bool known = false;           // false: too little was seen to say anything; the rest is 0
  double load = 0;              // share of the engines' time that requests take beyond the fixed part of steps
  double load_at_target = 0;    // that the law plans for
  double missed = 0;            // share of requests that is predicted to miss a target, refused ones included
  double hopeless = 0;          // of these: by any number of instances
  double instances_needed = 0;  // a fraction; at least 1
  double headroom = 0;          // 1 - needed / there: .25 is a quarter too many, negative too few
};

// One per fleet; told of it again and again, at least every few seconds.
class Headroom {
 public:
  SloHeadroom Look(const FleetLoad& latest, Instant now);

 private:
  void Smooth(const FleetLoad& latest, double passed);

  bool known_ = false;
  double share_ = 1;           // of the latest in what is smoothed over the last half minute
  FleetLoad mean_;             // smoothed; its counts and instances are not used
  double by_predictions_ = 0;  // instances; smoothed as what it is, since misses are those of as many as were there then
  Instant looked_at_;
};

}  // namespace foretoken
