// Grid: an experiment as a list of cells, one virtual run each, in a fixed order. Seeds come innermost, so the runs that are
// averaged stand together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "configs/experiment.h"

namespace foretoken {

// One thing that varies, or could. Its values as a reader sees them: "8-homogeneous", "poll:100ms", "0.8".
struct GridDimension {
  std::string name;  // "topology", "workload", "faults", "load" or "rate_scale", a topology path ("scheduler.policy"), "seed"
  std::vector<std::string> values;
};

struct GridCell {
  std::vector<size_t> at;  // index of its value, per dimension
  // Of an experiment with measured runs, instead of what follows: the run, and what is shown of it. Absent: as it was measured;
  // else a replay, after calibration on its first so many requests.
  std::optional<MeasuredCase> measured;
  std::optional<int64_t> replay_calibrated_on;

  std::string topology, workload;
  std::string faults;            // path; empty: the topology's own
  std::vector<std::string> set;  // topology overrides, the seed among them
  double factor = 1;             // a load or a rate scale
  uint64_t seed = 1;
};

struct Grid {
  std::string name, question;
  std::vector<GridDimension> dimensions;  // the last one is "seed"
  std::vector<GridCell> cells;
  size_t uncounted_first = 0;  // of measured runs: what replays may have been calibrated on counts in no row
  bool stand_in = false;       // take a workload's stand-in for its trace (LoadWorkload)
  bool by_load = false;        // GridCell::factor is the share of the rate at which the fleet saturates
  size_t limit = 0;            // requests per run; 0: all of the workload
  double warmup_share = 0, drain_share = 0;
  double truth_sample = 0;  // RunOptions::truth_sample
  size_t seeds = 1;

  // "topology=8-homogeneous;...;seed=1": names a cell across runs of the program.
  std::string KeyOf(const GridCell& cell) const;
  // Index of a dimension; its count if there is none of that name.
  size_t Find(const std::string& dimension) const;
};

// `smoke`: every combination still, but one seed and smoke_limit requests each.
Grid ExpandGrid(const Experiment& experiment, bool smoke);

}  // namespace foretoken
