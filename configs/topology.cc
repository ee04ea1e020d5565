#include "configs/topology.h"

namespace foretoken {

std::optional<InstanceId> Topology::FindInstance(std::string_view name) const {
  for (const InstanceSpec& i : instances)
    if (i.instance.name == name) return i.instance.id;
  return std::nullopt;
}

std::optional<ModelId> Topology::FindModel(std::string_view name) const {
  for (size_t i = 0; i < models.size(); ++i)
    if (models[i] == name) return ModelId(static_cast<uint32_t>(i));
  return std::nullopt;
}

std::vector<std::string> Topology::InstanceNames() const {
  std::vector<std::string> names;
  for (const InstanceSpec& i : instances) names.push_back(i.instance.name);
  return names;
}

std::string_view NameOf(SyncLevel level) {
  switch (level) {
    case SyncLevel::kNone: return "none";
    case SyncLevel::kPoll: return "poll";
    case SyncLevel::kAggregate: return "aggregate";
    case SyncLevel::kFull: return "full";
  }
  return "";
}

std::string_view NameOf(PredictorKind kind) {
  switch (kind) {
    case PredictorKind::kReference: return "reference";
    case PredictorKind::kPattern: return "pattern";
    case PredictorKind::kPatternReuse: return "pattern_reuse";
    case PredictorKind::kTimeline: return "timeline";
    case PredictorKind::kLedger: return "ledger";
  }
  return "";
}

std::string_view NameOf(LengthEstimatorKind kind) {
  switch (kind) {
    case LengthEstimatorKind::kOracle: return "oracle";
    case LengthEstimatorKind::kMaxTokens: return "max_tokens";
    case LengthEstimatorKind::kHint: return "hint";
    case LengthEstimatorKind::kMean: return "mean";
    case LengthEstimatorKind::kSampled: return "sampled";
  }
  return "";
}

}  // namespace foretoken
