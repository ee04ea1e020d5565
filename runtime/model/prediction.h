// What a SIMULATOR is asked and what it answers: the counterfactual "this request, on this instance, now".
#pragma once

#include <optional>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/request.h"

namespace foretoken {

enum class PredictorKind : uint8_t { kReference, kPattern, kPatternReuse, kTimeline, kLedger };
enum class StateLevel : uint8_t { kExact, kFollowing, kAggregate, kInferred };

// Two versions of a simulator's state: `state` moves with every step, `reservations` with every accepted Enqueue or Cancel.
struct Versions {
  uint64_t state = 0;
  uint64_t reservations = 0;
  bool operator==(const Versions&) const = default;
};

struct PredictQuery {
  const RequestMeta* request = nullptr;  // not owned; outlives the call
  // The length estimate that this decision uses on every candidate alike: the drawn quantile and the tokens it stands for.
  double length_quantile = 0.5;
  TokenCount expected_output{1};  // >= 1
  Slo slo;
  bool want_externality = false;  // also ask what the others lose (costs more)
};

struct Prediction {
  InstanceId instance;
  Duration ttft;  // p50, from `now` of the question to the first output token
  Duration ttft_p90;
  Duration e2e;  // p50, from `now` to the last output token
  Duration e2e_p90;
  std::optional<Duration> tpot;    // absent for an output of one token
  Duration e2e_alone;              // as e2e (p50), with nobody coming after it: what a marginal cost is reckoned from
  Duration longest_gap;            // longest gap expected between two of its tokens
  double slo_violation = 0;        // P(TTFT or TPOT target missed), 0..1
  Duration externality;            // sum over the others there of the delay that this request adds to their ends
  double slo_violation_added = 0;  // sum over the others of the change of their P(violation)
  TokenCount cached_tokens;        // prefix hit assumed
  BlockCount kv_headroom;          // least free KV blocks over the request's stay; negative: it would preempt
  Versions versions;
  Instant as_of;  // state known up to here (receiver's clock)
  Duration age;   // now - as_of
  Duration age_uncertainty;
  PredictorKind predictor = PredictorKind::kTimeline;
  StateLevel level = StateLevel::kExact;
  bool stale = false;  // age passed stale_after
  bool usable = true;  // false: the instance is believed hung or unreachable
  bool operator==(const Prediction&) const = default;
};

}  // namespace foretoken
