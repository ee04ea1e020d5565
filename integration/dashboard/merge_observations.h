// MergeObservations: what the nodes of a cluster each observe, as one observation of the whole, in the same JSON (docs/dashboard.md).
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace foretoken {

struct NodeObserved {
  std::string node;
  std::string error;             // why `observed` is empty: it does not answer, or is not watched
  boost::json::object observed;  // as the node's own page has it
};

// Counts and rates are summed. Means are weighted. Of quantiles of several nodes the largest is given: at least that of all. Of an
// instance that several nodes know, what the owner of its SIMULATOR knows is shown. `nodes` says who answered.
boost::json::object MergeObservations(const std::string& name, const std::vector<NodeObserved>& nodes, uint64_t number,
                                      int64_t unix_ms);

}  // namespace foretoken
