// TraceStatistics: what a workload is like, for a person who chooses one and for a test that compares two.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/workload/trace.h"

namespace foretoken {

struct LengthStatistics {
  static constexpr std::array<double, 9> kQuantiles = {0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1};
  int64_t total = 0;
  double mean = 0;
  std::array<double, 9> quantiles{};
};

struct TraceStatistics {
  size_t requests = 0;
  Duration span;                // first to last arrival
  double rate_rps = 0;          // (requests - 1) / span; 0 if there is no span
  double gap_cv = 0;            // coefficient of variation of the gaps between arrivals: 1 for Poisson, above: bursty
  int64_t peak_per_second = 0;  // most arrivals in one of the seconds since the first
  double peak_over_mean = 0;    // that over the mean per second
  LengthStatistics prompt, output;
  double rank_correlation = 0;  // Spearman's, of prompt and output
  // Prefixes: what an unlimited cache would find when requests come in this order.
  double sharing_requests = 0;  // share of requests whose prompt begins like an earlier prompt (or goes on after its output)
  double reusable_tokens = 0;   // share of prompt tokens
  size_t sessions = 0;          // distinct ones
  size_t with_max_tokens = 0;
};

// At least one request.
TraceStatistics StatisticsOf(const Trace& trace);

// Bars over powers of two, one line each, `width` characters at most.
std::vector<std::string> LengthHistogram(const std::vector<int64_t>& lengths, size_t width);

}  // namespace foretoken
