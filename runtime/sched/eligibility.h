// Eligibility: which instances can serve a request at all, and why each of the others cannot. Pure facts only (model, role,
// size, state); how well an instance would serve it is the policies' question.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/model/instance.h"
#include "runtime/model/messages.h"
#include "runtime/model/request.h"

namespace foretoken {

enum class Exclusion : uint8_t {
  kNone,       // it can serve the request
  kModel,      // serves neither this model nor this adapter
  kRole,       // does only the other part of a request
  kTooLong,    // prompt >= max_model_len
  kNeverFits,  // the prompt alone needs more KV cache than it has
  kWarming,
  kCordoned,
  kDraining,
  kAsleep,
  kDead,
};

// In the order of the enumeration: what can never be served comes before what may pass.
Exclusion ExclusionOf(const RequestMeta& request, PlacementRole part, const Instance& instance);

// One entry per instance, in their order.
std::vector<Exclusion> Eligibility(const RequestMeta& request, PlacementRole part, std::span<const Instance> instances);

// For users: "serves another model", "is cordoned", ...
std::string_view ReasonOf(Exclusion exclusion);

// What to tell the user of a request that no instance can serve: kTooLong or kNeverFits if that alone is what excludes it from
// an instance of its model, else kNoCandidate. `exclusions` has no kNone.
OutcomeReason RejectionOf(std::span<const Exclusion> exclusions);

}  // namespace foretoken
