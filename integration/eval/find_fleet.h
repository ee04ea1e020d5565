// FindFleet: the cheapest mix of GPU kinds that meets the targets at a given rate: mixes are tried in order of their price, from
// those on whose measured saturation the rate could fit at all, until one meets the share.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

struct FindFleetOptions {
  std::string topology;  // its pool's engines are the kinds; how many it has of each does not matter
  std::string workload;
  std::vector<std::string> set;
  std::map<std::string, double> prices;  // by engine name, of one instance, in any unit; every kind needs one
  double rate = 0;                       // requests per second
  double slo_share = 0.9;                // of the requests offered
  int instances_max = 32;                // of a mix
  size_t limit = 0;                      // requests per run; 0: all of the workload
  std::vector<uint64_t> seeds = {1};
  double warmup_share = 0.1, drain_share = 0.05;
  std::function<void(size_t)> show;  // after each mix that was tried
};

// {"fleet": {engine: count}, "price", "slo_attainment" (mean over seeds), "requests_per_second", "saturation": {engine: rate of one},
//  "tried": [[{engine: count}, price, attainment], ...], "figures": of the answer, first seed}.
// Error: bad input, or no mix of at most instances_max meets the share.
Result<boost::json::object> FindFleet(const FindFleetOptions& options);

}  // namespace foretoken
