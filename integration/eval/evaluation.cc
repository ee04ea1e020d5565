#include "integration/eval/evaluation.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "runtime/base/check.h"
#include "runtime/base/prng.h"

namespace foretoken {
namespace {

// Two-sided 95 % quantiles of Student's t with 1, 2, ... degrees of freedom; beyond the table, the normal's.
double StudentT(size_t degrees) {
  constexpr double kT[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                           2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                           2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
  return degrees <= std::size(kT) ? kT[degrees - 1] : 1.96;
}

Spread SpreadOf(const std::vector<double>& values) {
  Spread s;
  s.count = values.size();
  s.low = *std::min_element(values.begin(), values.end());
  s.high = *std::max_element(values.begin(), values.end());
  for (const double v : values) s.mean += v / static_cast<double>(values.size());
  if (values.size() < 2) return s;
  for (const double v : values) s.deviation += (v - s.mean) * (v - s.mean);
  s.deviation = std::sqrt(s.deviation / static_cast<double>(values.size() - 1));
  return s;
}

constexpr double kTieBelow = 0.005;  // a change of less than half a percent (or point) is a tie however certain it is

// A figure's place in a block; negative: blocks do not have it.
int BlockIndex(std::string_view figure) {
  return figure == "ttft_mean" ? 0 : figure == "e2e_mean" ? 1 : figure == "slo_attainment" ? 2 : -1;
}

// One figure of all blocks of a combination, seed by seed; empty if any run has none.
std::vector<double> BlockValues(const Evaluation& e, size_t combination, size_t index) {
  std::vector<double> values;
  for (size_t s = 0; s < e.grid().seeds; ++s) {
    const boost::json::value* detail = e.Row(combination, s).if_contains("detail");
    const boost::json::value* blocks = detail == nullptr ? nullptr : detail->as_object().if_contains("blocks");
    if (blocks == nullptr || blocks->as_array().empty()) return {};
    for (const boost::json::value& b : blocks->as_array()) values.push_back(b.as_array().at(index).to_number<double>());
  }
  return values;
}

}  // namespace

Evaluation::Evaluation(Grid grid, std::vector<boost::json::object> rows) : grid_(std::move(grid)), rows_(std::move(rows)) {
  FT_CHECK(rows_.size() == grid_.cells.size());
}

std::optional<double> Evaluation::Value(size_t combination, size_t seed, std::string_view figure) const {
  const boost::json::value* v = Row(combination, seed).at("figures").as_object().if_contains(figure);
  if (v == nullptr || !v->is_number()) return std::nullopt;
  return v->to_number<double>();
}

std::optional<Spread> Evaluation::Over(size_t combination, std::string_view figure) const {
  std::vector<double> values;
  for (size_t s = 0; s < grid_.seeds; ++s)
    if (const std::optional<double> v = Value(combination, s, figure)) values.push_back(*v);
  if (values.empty()) return std::nullopt;
  return SpreadOf(values);
}

std::optional<Comparison> Evaluation::Compare(size_t a, size_t b, const Figure& figure) const {
  std::vector<double> differences;
  double base = 0;
  for (size_t s = 0; s < grid_.seeds; ++s) {
    const std::optional<double> va = Value(a, s, figure.key), vb = Value(b, s, figure.key);
    if (!va || !vb) continue;
    differences.push_back(*va - *vb);
    base += *vb;
  }
  if (differences.empty()) return std::nullopt;
  const Spread d = SpreadOf(differences);
  const bool share = figure.key == "slo_attainment";
  const double unit = share ? 1 : std::abs(base / static_cast<double>(d.count));
  if (!(unit > 0)) return std::nullopt;  // a relative change of nothing
  Comparison out;
  out.change = d.mean / unit;
  if (d.count < 2) return out;
  out.half_width = StudentT(d.count - 1) * d.deviation / std::sqrt(static_cast<double>(d.count)) / unit;
  const bool certain = std::abs(out.change) > out.half_width && std::abs(out.change) >= kTieBelow;
  const bool gain = figure.better == Better::kHigher ? out.change > 0 : out.change < 0;
  out.verdict = !certain ? Verdict::kTie : gain ? Verdict::kBetter : Verdict::kWorse;
  return out;
}

std::optional<Interval> Evaluation::Bootstrap(size_t a, size_t b, const Figure& figure) const {
  const int index = BlockIndex(figure.key);
  if (index < 0) return std::nullopt;
  const std::vector<double> va = BlockValues(*this, a, static_cast<size_t>(index));
  const std::vector<double> vb = BlockValues(*this, b, static_cast<size_t>(index));
  if (va.empty() || va.size() != vb.size()) return std::nullopt;
  constexpr size_t kResamples = 1000;
  Prng prng(0xB007);  // the same draws for every comparison
  std::vector<double> changes;
  for (size_t k = 0; k < kResamples; ++k) {
    double sum_a = 0, sum_b = 0;
    for (size_t i = 0; i < va.size(); ++i) {
      const size_t at = prng.Below(va.size());
      sum_a += va[at];
      sum_b += vb[at];
    }
    const double unit = index == 2 ? static_cast<double>(va.size()) : sum_b;
    if (!(unit > 0)) return std::nullopt;
    changes.push_back((sum_a - sum_b) / unit);
  }
  std::sort(changes.begin(), changes.end());
  return Interval{changes[kResamples / 40], changes[kResamples - 1 - kResamples / 40]};
}

size_t Evaluation::With(size_t combination, size_t dimension, size_t value) const {
  size_t stride = 1;
  for (size_t d = grid_.dimensions.size() - 2; d > dimension; --d) stride *= grid_.dimensions[d].values.size();
  return combination + (value - At(combination)[dimension]) * stride;  // modulo arithmetic: the sum is never below zero
}

std::vector<size_t> Evaluation::Varied() const {
  std::vector<size_t> out;
  for (size_t d = 0; d + 1 < grid_.dimensions.size(); ++d)
    if (grid_.dimensions[d].values.size() > 1) out.push_back(d);
  return out;
}

std::string Evaluation::Name(size_t combination, const std::vector<size_t>& without) const {
  std::string name;
  for (const size_t d : Varied()) {
    if (std::find(without.begin(), without.end(), d) != without.end()) continue;
    name += (name.empty() ? "" : ", ") + grid_.dimensions[d].name + " " + grid_.dimensions[d].values[At(combination)[d]];
  }
  return name;
}

std::string Evaluation::Constants() const {
  std::string name;
  for (size_t d = 0; d + 1 < grid_.dimensions.size(); ++d)
    if (grid_.dimensions[d].values.size() == 1)
      name += (name.empty() ? "" : ", ") + grid_.dimensions[d].name + " " + grid_.dimensions[d].values[0];
  return name;
}

}  // namespace foretoken
