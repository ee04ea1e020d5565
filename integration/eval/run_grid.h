// RunGrid: all cells of a grid, several at once, each on a thread of its own; rows in the order of the grid whatever finished
// first. Finished cells are on disk at once (CellLog).
#pragma once

#include <boost/json.hpp>
#include <functional>
#include <string>
#include <vector>

#include "integration/eval/grid.h"
#include "runtime/base/result.h"

namespace foretoken {

struct RunGridOptions {
  std::string log;  // path of cells.jsonl
  size_t jobs = 0;  // threads; 0: one per core
  bool resume = false;
  std::function<void(size_t, size_t)> show;  // (cells done, of how many); called from one thread at a time
};

// The rate scale of each (topology, workload, factor): as given, or from the load by measuring saturation, once, with the first
// seed's workload. Error: what cannot be simulated.
Result<std::vector<double>> RateScalesOf(const Grid& grid);

// One row per cell. Error: the first cell that cannot be run, or a full disk; what had finished stays in the log.
Result<std::vector<boost::json::object>> RunGrid(const Grid& grid, const RunGridOptions& options);

}  // namespace foretoken
