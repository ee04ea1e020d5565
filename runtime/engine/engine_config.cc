#include "runtime/engine/engine_config.h"

#include <iterator>
#include <string>

namespace foretoken {
namespace {

// What changed between vLLM releases; everything else in EngineConfig is a user's setting (vllm-scheduler.md).
struct VersionRules {
  std::string_view name;
  bool reserve_full_isl;
  FreeListRule free_list;
  bool lone_long_prefill_full;
  bool self_preempt_continues;
};

constexpr VersionRules kVersions[] = {
    {"2026-01", false, FreeListRule::kAppend, false, false},
    {"2026-05", true, FreeListRule::kAppend, false, false},
    {"0.19", true, FreeListRule::kAppend, false, false},
    {"2026-08", true, FreeListRule::kUnhashedToFront, false, false},
    {"0.32", true, FreeListRule::kUnhashedToFront, true, false},
    {"0.33", true, FreeListRule::kUnhashedToFront, true, true},
};

}  // namespace

Status ApplyVllmVersion(std::string_view version, EngineConfig& config) {
  constexpr std::string_view kPrefix = "vllm-";
  std::string_view name = version;
  if (name.substr(0, kPrefix.size()) == kPrefix) name.remove_prefix(kPrefix.size());
  for (const VersionRules& v : kVersions) {
    if (v.name != name) continue;
    config.reserve_full_isl = v.reserve_full_isl;
    config.free_list = v.free_list;
    config.lone_long_prefill_full = v.lone_long_prefill_full;
    config.self_preempt_continues = v.self_preempt_continues;
    return {};
  }
  std::string known;
  for (const VersionRules& v : kVersions) known += (known.empty() ? "" : ", ") + std::string(v.name);
  return Error{"unknown vLLM version \"" + std::string(version) + "\"; known: " + known};
}

std::vector<std::string_view> KnownVllmVersions() {
  std::vector<std::string_view> names;
  for (const VersionRules& v : kVersions) names.push_back(v.name);
  return names;
}

std::string_view ApplyRulesOfServer(std::string_view version, EngineConfig& config) {
  const std::string_view minor = version.substr(0, version.find('.', version.find('.') + 1));
  for (const VersionRules& v : kVersions)
    if (v.name == minor && ApplyVllmVersion(minor, config).ok()) return v.name;
  const std::string_view newest = std::rbegin(kVersions)->name;
  (void)ApplyVllmVersion(newest, config);
  return newest;
}

}  // namespace foretoken
