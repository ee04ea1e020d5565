// How far one table is from another, over random steps of their common range.
#pragma once

#include <cstddef>

#include "runtime/perf/step_time_table.h"

namespace foretoken::tables {

struct Comparison {
  size_t steps = 0;
  double spearman = 0;                // rank correlation of the step times
  double agree_at_1 = 0;              // of 8 random steps, how often both find the same one shortest
  double bias = 0;                    // mean(B) / mean(A) - 1
  double mean = 0, p95 = 0, p99 = 0;  // of |B / A - 1|
};

// Deterministic: the steps are drawn with a fixed seed, evenly in the logarithms of the axes.
Comparison CompareTables(const StepTimeTable& a, const StepTimeTable& b);

}  // namespace foretoken::tables
