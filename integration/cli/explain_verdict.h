// The end of an explanation: what was predicted of a request where it went against what happened there, and what each other candidate was
// predicted to give, from the events of `foretoken explain`.
#pragma once

#include <boost/json/object.hpp>
#include <vector>

namespace foretoken {

// Of the last decision: `instance`, `predicted`, `actual` (from the decision on, as predictions are; what did not happen is absent),
// `error` (predicted / actual - 1) and `others`, best score first. Empty: never decided, or without predictions.
boost::json::object VerdictOf(const std::vector<boost::json::object>& events);

void PrintVerdict(const boost::json::object& verdict);

}  // namespace foretoken
