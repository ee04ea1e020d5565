// Scenario: one whole-cluster run as a value - topology, load, policy, predictor, sync level, faults, withdrawals - drawn from a
// seed, so that every seed is another cluster under other faults. It can be made smaller part by part (shrink.h). Runs nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/workload/trace.h"

namespace foretoken::testing {

struct Scenario {
  struct Withdrawal {
    size_t request = 0;  // index in the trace
    Instant at;          // not before its arrival
  };
  struct SimulatorDeath {
    size_t host = 0;  // index of the SIMULATOR host
    Instant at;
  };

  uint64_t seed = 0;
  RunOptions options;  // without make_predictor and make_lengths: the runner sets them
  PredictorKind predictor = PredictorKind::kTimeline;
  size_t shard_size = 1;
  size_t open_rounds_max = 1024;
  Trace trace;
  std::vector<bool> submitted;  // per request of the trace; shrinking clears some
  std::vector<Withdrawal> withdrawals;
  std::vector<SimulatorDeath> deaths;
  Instant freeze;  // when every mirror is given a snapshot and compared with its engine

  size_t requests() const;
  // One line a part: what there is to know of it to understand a failure.
  std::string Describe() const;
};

Scenario DrawScenario(uint64_t seed);

// The smallest scenario found that still fails, by leaving out parts for as long as `fails` holds; at most `runs_max` runs.
Scenario Shrink(Scenario scenario, const std::function<bool(const Scenario&)>& fails, int runs_max);

}  // namespace foretoken::testing
