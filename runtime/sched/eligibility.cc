#include "runtime/sched/eligibility.h"

#include <algorithm>

namespace foretoken {
namespace {

bool Serves(const Instance& instance, ModelId model) {
  const auto has = [model](const std::vector<ModelId>& list) {
    return std::find(list.begin(), list.end(), model) != list.end();
  };
  return has(instance.models) || has(instance.adapters);
}

bool DoesPart(const Instance& instance, PlacementRole part) {
  switch (part) {
    case PlacementRole::kWhole: return instance.role == InstanceRole::kBoth;
    case PlacementRole::kPrefill: return instance.role != InstanceRole::kDecode;
    case PlacementRole::kDecode: return instance.role != InstanceRole::kPrefill;
  }
  return false;
}

}  // namespace

Exclusion ExclusionOf(const RequestMeta& request, PlacementRole part, const Instance& instance) {
  const bool known = !instance.models.empty() || !instance.adapters.empty();  // else it is yet to be learnt
  if (known && !Serves(instance, request.model)) return Exclusion::kModel;
  if (!DoesPart(instance, part)) return Exclusion::kRole;
  const int64_t prompt = request.prompt_tokens.value();
  if (instance.max_model_len > 0 && prompt >= instance.max_model_len) return Exclusion::kTooLong;
  if (instance.kv_tokens > 0 && prompt > instance.kv_tokens) return Exclusion::kNeverFits;
  switch (instance.state) {
    case InstanceState::kServing: return Exclusion::kNone;
    case InstanceState::kWarming: return Exclusion::kWarming;
    case InstanceState::kCordoned: return Exclusion::kCordoned;
    case InstanceState::kDraining: return Exclusion::kDraining;
    case InstanceState::kAsleep: return Exclusion::kAsleep;
    case InstanceState::kDead: return Exclusion::kDead;
  }
  return Exclusion::kDead;
}

std::vector<Exclusion> Eligibility(const RequestMeta& request, PlacementRole part, std::span<const Instance> instances) {
  std::vector<Exclusion> out;
  out.reserve(instances.size());
  for (const Instance& instance : instances) out.push_back(ExclusionOf(request, part, instance));
  return out;
}

std::string_view ReasonOf(Exclusion exclusion) {
  switch (exclusion) {
    case Exclusion::kNone: return "can serve it";
    case Exclusion::kModel: return "serves another model";
    case Exclusion::kRole: return "does only the other part of a request";
    case Exclusion::kTooLong: return "its max_model_len is not above the prompt's length";
    case Exclusion::kNeverFits: return "its KV cache is smaller than the prompt";
    case Exclusion::kWarming: return "is warming up";
    case Exclusion::kCordoned: return "is cordoned";
    case Exclusion::kDraining: return "is being drained";
    case Exclusion::kAsleep: return "is asleep";
    case Exclusion::kDead: return "is dead";
  }
  return "";
}

OutcomeReason RejectionOf(std::span<const Exclusion> exclusions) {
  bool too_long = false, never_fits = false;
  for (const Exclusion e : exclusions) {
    if (e > Exclusion::kNeverFits) return OutcomeReason::kNoCandidate;  // one that could serve it later
    too_long |= e == Exclusion::kTooLong;
    never_fits |= e == Exclusion::kNeverFits;
  }
  if (never_fits) return OutcomeReason::kNeverFits;
  return too_long ? OutcomeReason::kTooLong : OutcomeReason::kNoCandidate;
}

}  // namespace foretoken
