// ComparePolicies: the same workload under several policies, one virtual run each (common arrivals, common seed), and a table with
// bars that a person can read at a terminal.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "configs/topology.h"
#include "runtime/base/result.h"
#include "runtime/workload/trace.h"

namespace foretoken {

struct PolicyFigures {
  std::string policy;
  double ttft_mean = 0, ttft_p99 = 0;  // seconds, as E2E
  double e2e_mean = 0, e2e_p99 = 0;
  double slo_attainment = 0;  // 0..1
  size_t completed = 0, requests = 0;
};

// `show`: (requests done over all runs, of how many). Error: what cannot be run.
Result<std::vector<PolicyFigures>> ComparePolicies(const Topology& topology, const Trace& trace,
                                                   const std::vector<std::string>& policies,
                                                   const std::function<void(size_t, size_t)>& show);

// The first row is ours; the best figure of each column is marked.
void PrintComparison(const std::vector<PolicyFigures>& figures, std::ostream& out);

}  // namespace foretoken
