// Tune: one search with one budget for the constants of every policy, ours and the simple ones' alike: nine points per policy, around
// its defaults (times 1/3, 1, 3 for each of two constants; times 1/16 ... 16 for one), all with the same arrivals. What comes out is
// to be used on a workload that was not tuned on.
#pragma once

#include <boost/json.hpp>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "configs/experiment.h"
#include "integration/eval/figures.h"
#include "runtime/base/result.h"

namespace foretoken {

struct TuneOptions {
  std::string folder;  // of the logs of finished runs, one per policy
  size_t jobs = 0;
  bool resume = false, smoke = false;
  std::string goal = "slo_attainment";       // key of a figure that has a better side
  std::function<void(size_t, size_t)> show;  // (runs done, of how many in all)
};

// One policy where the experiment varies nothing but topology, workload and load: {"policy", "where", "default": goal with the
// constants as they are, "best", "weights": {path: value} of the best point, "tried"}. A policy without constants has one point.
// The experiment's axis scheduler.policy names the policies; its other axes are left out.
// Error: no such axis, a goal that has no better side, or what cannot be run.
Result<boost::json::array> Tune(const Experiment& experiment, const TuneOptions& options);

}  // namespace foretoken
