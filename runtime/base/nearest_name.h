// The valid name nearest to a mistyped one, for messages such as `unknown command "simulat": did you mean "simulate"?`.
// Does not decide whether a suggestion is good enough to show: the nearest is returned however far it is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace foretoken {

// Levenshtein distance: insertions, deletions and replacements of one byte, each at cost 1.
int EditDistance(std::string_view a, std::string_view b);

// Of several at the same distance, the first in `names`. Empty if `names` is.
std::string NearestName(std::string_view name, const std::vector<std::string_view>& names);

}  // namespace foretoken
