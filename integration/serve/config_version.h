// ConfigVersion: a number that two nodes compare to see that they mean the same by an instance: what serves it and how fast it is believed
// to be. Instances are compared one by one, so that a topology can be changed node by node.
#pragma once

#include <cstdint>

#include "configs/topology.h"

namespace foretoken {

uint64_t ConfigVersionOf(const Topology& topology, InstanceId instance);

}  // namespace foretoken
