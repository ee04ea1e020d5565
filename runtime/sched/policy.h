// Policy: scores the candidates of one decision; the lowest score wins. A policy sees requests and loads, never true output
// lengths. Policies are pure but for what they count themselves (round robin's cursor) and the Prng they are handed.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/prng.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/model/score.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

// The scheduler's own account of an instance, from its dispatches and their outcomes (assignment_ledger.h).
struct LoadView {
  int32_t requests = 0;              // assigned and not ended
  int32_t prefilling = 0;            // of these, without a first token yet
  int64_t prefill_tokens = 0;        // prompt tokens of those (hits already taken off where known)
  int64_t context_tokens = 0;        // prompt + expected output so far, of all of them
  int64_t expected_output_left = 0;  // output tokens expected of all of them
};

struct Candidate {
  InstanceId instance;
  LoadView load;
  const Prediction* prediction = nullptr;    // present when the policy asks for predictions and one came in time
  const StepTimeModel* step_time = nullptr;  // what is known of its speed; may be null
  int64_t kv_tokens = 0;                     // capacity of its KV cache
  int64_t cached_tokens = 0;                 // of this request, expected in its prefix cache
};

constexpr double kExcluded = std::numeric_limits<double>::infinity();

struct PolicyRequest {
  const RequestMeta* meta = nullptr;
  TokenCount expected_output{1};
  Slo slo;
};

enum class PolicyNeeds : uint8_t {
  kNothing,      // no state of any instance
  kLoads,        // the ledger, up to date
  kPredictions,  // a Prediction per candidate
  kExternality,  // with the harm to others
};

class Policy {
 public:
  virtual ~Policy() = default;
  virtual std::string_view name() const = 0;
  virtual PolicyNeeds needs() const = 0;
  // scores.size() == candidates.size(); every entry is written; kExcluded: not to be used. At least one candidate is given.
  virtual void Score(const PolicyRequest& request, std::span<const Candidate> candidates, Prng& prng,
                     std::span<double> scores) = 0;
  // How the latest decision valued one prediction; kNone when it read none.
  virtual ScoreRule score_rule() const { return {}; }
};

struct PolicyWeights {
  // slo: weight of (E2E + externality) in seconds beside violation probabilities; guard: a candidate whose TTFT exceeds the best
  // one's by more than this is excluded (a pure SLO score starves requests).
  double slo_latency_weight = 0.1;
  Duration slo_ttft_guard = Duration::Seconds(2);
  // auto: while the best candidate's expected violations are below this it goes by E2E + externality, else by the slo score. 0: always
  // by slo, which without stress ranks alike. Measured (3 H100 + 3 A100 + 2 L40S, Azure conv, 0.7 of saturation): 0 meets the SLO for
  // 100 % with mean E2E 4.10 s, 0.02 for 95 % with 4.03 s.
  double auto_stress = 0;
  // hybrid: seconds per request outstanding, and per uncached prompt token.
  double hybrid_load_weight = 0.002;
  double hybrid_prefill_weight = 0.0;
};

// Error: names the known policies.
Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name, const PolicyWeights& weights);
std::vector<std::string_view> KnownPolicies();

// Index of the lowest score; ties are broken by a hash of (seed, request, instance): fair, and the same on every run of a seed.
// runner_up: the second-best score, kExcluded when there is none. Returns -1 when all are excluded.
int PickLowest(std::span<const Candidate> candidates, std::span<const double> scores, uint64_t seed, RequestId request,
               double* runner_up);

}  // namespace foretoken
