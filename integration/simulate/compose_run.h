// ComposeRun: from a topology to the options of a virtual run: which truth each instance has, what its predictor knows, which
// predictor and estimator are made.
#pragma once

#include "configs/topology.h"
#include "runtime/base/result.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/workload/trace.h"

namespace foretoken {

// `trace` is read by the oracle estimator only and must outlive the run. Error: an instance that cannot be simulated (a real
// engine's adapter), by name.
Result<RunOptions> ComposeRun(const Topology& topology, const Trace& trace);

// The SCHEDULER's part of it.
SchedulerCore::Options SchedulerOptionsOf(const Topology& topology);

}  // namespace foretoken
