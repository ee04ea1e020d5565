// The one JSON form of an Observation: what /status.json serves, the page reads, and `foretoken status --json` prints (docs/dashboard.md).
// Durations are seconds, keys snake_case, absent means not known.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>

#include "integration/observe/observation.h"

namespace foretoken {

// Of each decision the best `candidates_most` candidates; how many there were is in `candidates_total`.
boost::json::object JsonOf(const Observation& observation, size_t candidates_most = 8);

}  // namespace foretoken
