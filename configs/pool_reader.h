// Reads the `pools:` section of a topology: which instances there are, what they serve, and with which engine.
#pragma once

#include "configs/config_reader.h"
#include "configs/topology.h"

namespace foretoken {

// Needs topology.engines and topology.slo; fills models, pools and instances.
void ReadPools(ConfigMap& root, Topology& topology);

// `slo: { ttft: 1s, tpot: 50ms }` at key "slo" of `parent`; absent keys keep what `slo` holds.
void ReadSlo(ConfigMap& parent, Slo& slo);

}  // namespace foretoken
