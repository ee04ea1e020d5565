#include "integration/serve/instance_kind.h"

#include <optional>
#include <vector>

namespace foretoken {

Result<InstanceId> InstanceOfKind(const Topology& topology, const std::string& kind) {
  std::string known;
  std::vector<bool> named(topology.engines.size());
  for (const InstanceSpec& s : topology.instances) {
    const EngineSpec& engine = topology.engines[s.engine];
    if (engine.name == kind || s.instance.name == kind) {
      if (engine.adapter != EngineAdapter::kEmulated)
        return Error{"kind \"" + kind + "\": only emulated engines are made here; a real one is named by its URL"};
      return s.instance.id;
    }
    if (engine.adapter == EngineAdapter::kEmulated && !named[s.engine]) known += (known.empty() ? "" : ", ") + engine.name;
    named[s.engine] = true;
  }
  return Error{"no kind \"" + kind.substr(0, 80) +
               "\" in the topology: " + (known.empty() ? "it has no emulated engine" : known)};
}

}  // namespace foretoken
