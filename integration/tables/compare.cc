#include "integration/tables/compare.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/base/prng.h"

namespace foretoken::tables {
namespace {

constexpr size_t kSteps = 8000;
constexpr size_t kGroup = 8;

std::vector<double> Ranks(const std::vector<double>& x) {
  std::vector<size_t> order(x.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&x](size_t i, size_t j) { return x[i] < x[j]; });
  std::vector<double> ranks(x.size());
  for (size_t i = 0; i < order.size();) {  // equal values share their mean rank
    size_t j = i;
    while (j < order.size() && x[order[j]] == x[order[i]]) ++j;
    for (size_t k = i; k < j; ++k) ranks[order[k]] = 0.5 * static_cast<double>(i + j - 1);
    i = j;
  }
  return ranks;
}

double Correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const double n = static_cast<double>(x.size());
  const double mx = std::accumulate(x.begin(), x.end(), 0.0) / n, my = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mx) * (y[i] - my);
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
  }
  return xx == 0 || yy == 0 ? 0 : xy / std::sqrt(xx * yy);
}

}  // namespace

Comparison CompareTables(const StepTimeTable& a, const StepTimeTable& b) {
  Prng prng(1);
  const StepTableGrid &ga = a.grid(), &gb = b.grid();
  const double prefill = static_cast<double>(std::min(ga.prefill_tokens.back(), gb.prefill_tokens.back()));
  const double seqs = static_cast<double>(std::min(ga.decode_seqs.back(), gb.decode_seqs.back()));
  const double ctx = static_cast<double>(std::min(ga.decode_ctx.back(), gb.decode_ctx.back()));
  const auto draw = [&](double most) {
    return most <= 1 ? int64_t{1} : static_cast<int64_t>(std::exp(prng.Unit() * std::log(most)));
  };
  std::vector<double> ta, tb, differences;
  for (size_t i = 0; i < kSteps; ++i) {
    StepShape s;
    if (prefill > 0 && prng.Chance(0.3)) s.prefill_tokens = draw(prefill);
    s.decode_seqs = draw(seqs);
    s.decode_kv_tokens = s.decode_seqs * draw(std::min(ctx, 400000 / static_cast<double>(s.decode_seqs)));
    ta.push_back(a.NanosOf(s));
    tb.push_back(b.NanosOf(s));
    differences.push_back(std::abs(tb.back() / ta.back() - 1));
  }
  Comparison c;
  c.steps = kSteps;
  c.spearman = Correlation(Ranks(ta), Ranks(tb));
  for (size_t i = 0; i + kGroup <= kSteps; i += kGroup) {
    const auto first = [i](const std::vector<double>& t) {
      const auto from = t.begin() + static_cast<std::ptrdiff_t>(i);
      return std::min_element(from, from + kGroup) - from;
    };
    c.agree_at_1 += (first(ta) == first(tb)) * static_cast<double>(kGroup) / kSteps;
  }
  c.bias = std::accumulate(tb.begin(), tb.end(), 0.0) / std::accumulate(ta.begin(), ta.end(), 0.0) - 1;
  c.mean = std::accumulate(differences.begin(), differences.end(), 0.0) / kSteps;
  std::sort(differences.begin(), differences.end());
  c.p95 = differences[kSteps * 95 / 100];
  c.p99 = differences[kSteps * 99 / 100];
  return c;
}

}  // namespace foretoken::tables
