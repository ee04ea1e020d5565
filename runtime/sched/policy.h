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
  // slo: weight of seconds (score.h) beside violation probabilities; guard: a candidate whose TTFT exceeds the best one's by more
  // than this is excluded (a pure SLO score starves requests).
  double slo_latency_weight = 0.25;
  Duration slo_ttft_guard = Duration::Seconds(2);
  // auto, on equal instances whose first tokens come well in time: weight of TTFT^2 over the TTFT that one in a hundred gets at best,
  // beside the slo score, so that the tail of TTFT is not what the rest is paid with. 0: as slo.
  double auto_tail = 8;
  // hybrid: seconds per request outstanding, and per uncached prompt token.
  double hybrid_load_weight = 0.002;
  double hybrid_prefill_weight = 0.0;
  // Constants of the simple rules, as their authors have them; all can be tuned (docs/evaluation.md).
  double prefix_queue = 2;  // prefix_weighted: queue, KV use, missing prefix
  double prefix_kv = 2;
  double prefix_missing = 3;
  double kv_router_prefill = 1;  // kv_router_cost: a prefill block against an active decode block
  double lmetricw_output = 1;    // lmetricw: the output's time against the prefill's
  double lwl_output = 1;         // lwl: as before
  double v0_steps = 1.5;         // v0: decode steps ahead of a prefill
  double affinity_bound = 1.25;  // session_affinity: load over the mean from which a session moves
  double cache_gap = 32;         // cache_aware: gap in requests that counts as unbalanced,
  double cache_ratio = 1.1;      // and ratio
  bool operator==(const PolicyWeights&) const = default;
};

// Error: names the known policies.
Result<std::unique_ptr<Policy>> MakePolicy(std::string_view name, const PolicyWeights& weights);
std::vector<std::string_view> KnownPolicies();

// Index of the lowest score; ties are broken by a hash of (seed, request, instance): fair, and the same on every run of a seed.
// runner_up: the second-best score, kExcluded when there is none. Returns -1 when all are excluded.
int PickLowest(std::span<const Candidate> candidates, std::span<const double> scores, uint64_t seed, RequestId request,
               double* runner_up);

}  // namespace foretoken
