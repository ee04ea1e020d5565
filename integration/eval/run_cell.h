// RunCell: one cell of a grid as one virtual run, by the same steps as `foretoken simulate`, and its row.
//
// A row is a JSON object: {"key", "figures": {name: number or null}, "digest", "wall_seconds", "detail"}. Figures are the numbers
// of `simulate --json`, nested names joined by "_". Latencies, SLO attainment, goodput and prediction errors are over the counted
// requests: those that arrived neither in the warm-up nor in the drain share of the run; what happened to requests (completed,
// lost, ...), steps, sync and drift are over the whole run. "detail" is what the charts need.
//
// Pure but for reading files: cells may run on several threads at once.
#pragma once

#include <boost/json.hpp>

#include "configs/topology.h"
#include "integration/eval/grid.h"
#include "runtime/base/result.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/workload/trace.h"

namespace foretoken {

// What a cell runs, as files and flags say.
Result<Topology> TopologyOf(const GridCell& cell);

// The figures of a run; the shares are of its requests, in order of arrival.
boost::json::object FiguresOf(const Topology& topology, const Trace& trace, const RunResult& result, double warmup_share,
                              double drain_share);

// `rate_scale`: arrivals come so many times as fast.
Result<boost::json::object> RunCell(const Grid& grid, const GridCell& cell, double rate_scale);
// The same on a topology that is not quite the cell's file.
Result<boost::json::object> RunCellOn(const Topology& topology, const Grid& grid, const GridCell& cell, double rate_scale);

}  // namespace foretoken
