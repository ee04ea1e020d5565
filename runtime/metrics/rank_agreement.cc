#include "runtime/metrics/rank_agreement.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/base/check.h"

namespace foretoken {

std::vector<double> Ranks(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) { return values[x] < values[y]; });
  std::vector<double> ranks(values.size());
  for (size_t i = 0; i < order.size();) {
    size_t end = i;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    if (end == i) end = i + 1;  // a NaN equals nothing: it has a rank of its own
    const double rank = static_cast<double>(i + 1 + end) / 2;
    for (; i < end; ++i) ranks[order[i]] = rank;
  }
  return ranks;
}

std::optional<double> Spearman(const std::vector<double>& a, const std::vector<double>& b) {
  FT_CHECK(a.size() == b.size());
  if (a.size() < 2) return std::nullopt;
  const std::vector<double> x = Ranks(a), y = Ranks(b);
  const double mean = (static_cast<double>(a.size()) + 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  if (xx == 0 || yy == 0) return std::nullopt;
  return xy / std::sqrt(xx * yy);
}

void AgreeAtOne::Add(const std::vector<double>& a, const std::vector<double>& b) {
  FT_CHECK(a.size() == b.size());
  if (a.empty()) return;
  const double best_a = *std::min_element(a.begin(), a.end());
  const double best_b = *std::min_element(b.begin(), b.end());
  bool agree = false;
  for (size_t i = 0; i < a.size(); ++i) agree |= a[i] == best_a && b[i] == best_b;
  Add(agree);
}

std::optional<double> AgreeAtOne::Share() const {
  if (questions_ == 0) return std::nullopt;
  return static_cast<double>(agreed_) / static_cast<double>(questions_);
}

}  // namespace foretoken
