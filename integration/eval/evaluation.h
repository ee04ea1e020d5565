// Evaluation: a grid with its rows, grouped over seeds. A combination is everything about a cell but its seed. All arrivals of one
// seed are the same whatever the combination, so combinations are compared seed by seed (common random numbers).
#pragma once

#include <boost/json.hpp>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "integration/eval/figures.h"
#include "integration/eval/grid.h"

namespace foretoken {

// Over seeds.
struct Spread {
  size_t count = 0;  // seeds that have the figure
  double mean = 0;
  double deviation = 0;  // of the sample; 0 for one seed
  double low = 0, high = 0;
};

enum class Verdict { kBetter, kWorse, kTie, kUnknown };  // kUnknown: fewer than two common seeds

// `a` against `b`, over the seeds that both have: mean of the differences with a 95 % confidence interval (Student's t).
struct Comparison {
  double change = 0;  // of `a` against the mean of `b`; 0.1 = 10 % higher. A share (SLO met): difference, 0.1 = 10 points
  double half_width = 0;
  Verdict verdict = Verdict::kUnknown;
};

// Over time: 95 % of block resamples lie in between.
struct Interval {
  double low = 0, high = 0;  // of the change, as Comparison::change
};

class Evaluation {
 public:
  // One row per cell of the grid, in its order.
  Evaluation(Grid grid, std::vector<boost::json::object> rows);

  const Grid& grid() const { return grid_; }
  const std::vector<boost::json::object>& rows() const { return rows_; }
  size_t combinations() const { return rows_.size() / grid_.seeds; }
  // Of a combination: index of its value per dimension; the seed's place holds 0.
  const std::vector<size_t>& At(size_t combination) const { return grid_.cells[combination * grid_.seeds].at; }
  const boost::json::object& Row(size_t combination, size_t seed) const { return rows_[combination * grid_.seeds + seed]; }
  std::optional<double> Value(size_t combination, size_t seed, std::string_view figure) const;
  std::optional<Spread> Over(size_t combination, std::string_view figure) const;
  std::optional<Comparison> Compare(size_t a, size_t b, const Figure& figure) const;
  // The same change by block bootstrap: pieces of time, of all seeds, are drawn anew a thousand times, the same for both. Absent for
  // figures that blocks do not have (other than mean TTFT, mean E2E and SLO met), and for runs too small for blocks.
  std::optional<Interval> Bootstrap(size_t a, size_t b, const Figure& figure) const;
  // The combination like `combination` but for one dimension's value.
  size_t With(size_t combination, size_t dimension, size_t value) const;
  // Dimensions with more than one value, the seed left out.
  std::vector<size_t> Varied() const;
  // "topology 8-homogeneous, load 0.8": the varied dimensions of a combination but those in `without`.
  std::string Name(size_t combination, const std::vector<size_t>& without = {}) const;
  // The same of what does not vary.
  std::string Constants() const;

 private:
  Grid grid_;
  std::vector<boost::json::object> rows_;
};

}  // namespace foretoken
