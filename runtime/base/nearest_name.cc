#include "runtime/base/nearest_name.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace foretoken {

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);  // row[j]: distance of a[0..i) to b[0..j)
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i) + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const int replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string NearestName(std::string_view name, const std::vector<std::string_view>& names) {
  name = name.substr(0, 200);  // the distance costs the product of the lengths
  std::string_view nearest;
  int least = std::numeric_limits<int>::max();
  for (const std::string_view candidate : names) {
    const int distance = EditDistance(name, candidate);
    if (distance < least) {
      least = distance;
      nearest = candidate;
    }
  }
  return std::string(nearest);
}

}  // namespace foretoken
