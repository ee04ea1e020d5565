// FindCapacity: the highest rate at which a policy still meets its targets for a share of the requests, by bisection over how many
// times as fast the workload's requests arrive.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "integration/eval/grid.h"
#include "runtime/base/result.h"

namespace foretoken {

struct FindCapacityOptions {
  std::string topology, workload;
  std::vector<std::string> set;  // topology overrides: the policy and the like
  std::string faults;            // path; empty: the topology's
  double slo_share = 0.9;        // of the requests offered
  size_t limit = 0;              // requests per run; 0: all of the workload
  std::vector<uint64_t> seeds = {1};
  double precision = 0.01;  // the answer meets the share, and 1 % more does not
  double warmup_share = 0.1, drain_share = 0.05;
  std::function<void(size_t)> show;  // after each rate that was tried
};

// {"rate_scale", "requests_per_second", "load", "slo_attainment" (mean over seeds), "tried": [[rate scale, attainment], ...],
//  "figures": of the answer, first seed}. Attainment need not fall everywhere with the rate: the answer is one where it crosses
// the share. Error: bad input, or no rate from 1/1000 of saturation on meets the share.
Result<boost::json::object> FindCapacity(const FindCapacityOptions& options);

}  // namespace foretoken
