// The gateway's counters, per-engine state and latency distributions as Prometheus text (version 0.0.4).
#pragma once

#include <string>

namespace foretoken {

class Gateway;

std::string MetricsText(Gateway& gateway);

}  // namespace foretoken
