// A kind of instance, for one that is to be made like it: the name of an engine of the topology, or of an instance.
#pragma once

#include <string>

#include "configs/topology.h"
#include "runtime/base/result.h"

namespace foretoken {

// The instance that says what one of this kind is. Error: which kinds there are.
Result<InstanceId> InstanceOfKind(const Topology& topology, const std::string& kind);

}  // namespace foretoken
