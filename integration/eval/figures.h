// The figures that tables and charts show of a run, with the names that people read. results.csv has all others too.
#pragma once

#include <span>
#include <string_view>

namespace foretoken {

enum class Better { kLower, kHigher, kNeither };

struct Figure {
  std::string_view key;  // in a row's "figures"
  std::string_view label;
  std::string_view unit;
  double scale;  // shown = value * scale
  int decimals;
  Better better;
  bool in_table;  // of summary.md; the others are for charts
};

std::span<const Figure> Figures();
const Figure& FigureOf(std::string_view key);  // one of the above

}  // namespace foretoken
