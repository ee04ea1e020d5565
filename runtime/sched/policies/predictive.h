// Policies over predictions (predictors.md, "Scores"): what would happen to this request, and to the others, on each candidate.
#pragma once

#include <memory>
#include <string_view>

#include "runtime/sched/policy.h"

namespace foretoken {
// Null: not one of these.
std::unique_ptr<Policy> MakePredictivePolicy(std::string_view name, const PolicyWeights& weights);
}  // namespace foretoken
