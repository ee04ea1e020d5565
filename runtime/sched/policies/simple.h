// Policies that read no prediction: from random to the strongest O(1) rules known (policy-findings.md, 3). Sources: p2c
// (Mitzenmacher), kv_load (Llumnix), prefix_weighted (llm-d's scorers), kv_router_cost (NVIDIA Dynamo), lmetric (LMetric), lmetricw
// and v0 (research simulator), lwl (least work left).
#pragma once

#include <memory>
#include <string_view>

#include "runtime/sched/policy.h"

namespace foretoken {
// Null: not one of these.
std::unique_ptr<Policy> MakeSimplePolicy(std::string_view name, const PolicyWeights& weights);
}  // namespace foretoken
