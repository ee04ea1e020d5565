// What the charts of a report need of one run, in few numbers whatever its length: quantile curves, a sample of predicted and
// true latencies, and the course of the run in slices of time.
#pragma once

#include <boost/json.hpp>

#include "runtime/eval/virtual_host.h"

namespace foretoken {

// {"ttft": [101 quantiles of the counted requests, s], "tpot": ..., "e2e": ..., "scatter": [[predicted E2E, true E2E], ...],
//  "slice_s": length of a slice, "slices": [[requests that arrived in it, mean TTFT s, mean E2E s, bias of predicted E2E,
//  mean absolute error of predicted E2E relative to the true mean], ...]}; what a slice lacks is null. Slices are over the whole
// run. A curve is empty if no request has the latency.
boost::json::object DetailOf(const RunResult& result, double warmup_share, double drain_share);

}  // namespace foretoken
