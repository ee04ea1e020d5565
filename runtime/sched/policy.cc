#include "runtime/sched/policy.h"

#include <string>

#include "runtime/sched/policies/predictive.h"
#include "runtime/sched/policies/simple.h"

namespace foretoken {

std::vector<std::string_view> KnownPolicies() {
  return {"auto",
          "min_ttft",
          "min_e2e",
          "externality",
          "slo",
          "hybrid",
          "random",
          "round_robin",
          "p2c",
          "least_requests",
          "least_tokens",
          "kv_load",
          "prefix_weighted",
          "kv_router_cost",
          "lmetric",
          "lmetricw",
          "v0",
          "lwl",
          "lpt",
          "session_affinity",
          "cache_aware"};
}

Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name, const PolicyWeights& weights) {
  if (auto p = MakeSimplePolicy(name, weights)) return p;
  if (auto p = MakePredictivePolicy(name, weights)) return p;
  std::string known;
  for (std::string_view k : KnownPolicies()) known += (known.empty() ? "" : ", ") + std::string(k);
  return Error{"policy = " + std::string(name) + ": unknown; one of " + known};
}

int PickLowest(std::span<const Candidate> candidates, std::span<const double> scores, uint64_t seed, RequestId request,
               double* runner_up) {
  int best = -1;
  uint64_t best_tie = 0;
  double second = kExcluded;
  const uint64_t key = Mix64(seed, request.value());
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!(scores[i] < kExcluded)) continue;  // excluded, or not a number
    const uint64_t tie = Mix64(key, candidates[i].instance.value());
    const bool wins = best < 0 || scores[i] < scores[best] || (scores[i] == scores[best] && tie < best_tie);
    if (!wins) {
      second = std::min(second, scores[i]);
      continue;
    }
    if (best >= 0) second = std::min(second, scores[best]);
    best = static_cast<int>(i);
    best_tie = tie;
  }
  if (runner_up != nullptr) *runner_up = second;
  return best;
}

}  // namespace foretoken
