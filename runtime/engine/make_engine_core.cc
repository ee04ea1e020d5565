#include "runtime/engine/engine_core.h"
#include "runtime/engine/sglang_core.h"
#include "runtime/engine/vllm_core.h"

namespace foretoken {

Result<std::unique_ptr<EngineCore>> MakeEngineCore(const EngineConfig& config) {
  if (config.kind == EngineKind::kSglang) return MakeSglangCore(config);
  return VllmCore::Make(config);
}

Result<std::unique_ptr<EngineCore>> RestoreEngineCore(const EngineConfig& config, const Snapshot& snapshot,
                                                      std::span<const EngineRequest> requests) {
  if (config.kind != EngineKind::kVllm) return Error{"an engine is restored from a snapshot only with kind vllm"};
  return VllmCore::Restore(config, snapshot, requests);
}

}  // namespace foretoken
