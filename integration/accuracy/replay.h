// Replays the requests of a measured run through the full-fidelity engine in virtual time and compares what each one sees.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "integration/accuracy/measured_run.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/perf/profile_step_law.h"

namespace foretoken::accuracy {

// Nanoseconds of a step of exactly this composition.
using StepNanos = std::function<double(const StepComposition&)>;

struct StepCost {
  StepNanos nanos;
  double factor = 1.0;     // on the law's time
  Duration host_overhead;  // per step
};

struct Served {
  Duration ttft, e2e;
};

// One entry per request, in their order: the engine's own loop (two batches in flight with async scheduling), nothing else.
// Error: a request that the engine refuses or never finishes; names it.
Result<std::vector<Served>> Replay(const MeasuredRun& run, const StepCost& cost);

// Relative errors of one metric over requests.
struct MetricError {
  double mean_error = 0;                // mean(predicted) / mean(measured) - 1
  double mape = 0;                      // mean of |predicted / measured - 1|
  double p50_error = 0, p99_error = 0;  // quantile of predicted / the same of measured - 1
  size_t requests = 0;
};
struct Accuracy {
  MetricError ttft, tpot, e2e;
};
// Over the requests from `skip` on.
Accuracy Compare(const MeasuredRun& run, const std::vector<Served>& served, size_t skip);

// The factor on step times, 0.25..4, that the first `count` requests tell: the one with which their times per output token are
// right on (geometric) average, shrunk towards 1 by what the start of a run cannot tell about the rest. Nothing that is
// measured on later requests is read; that they arrive is.
Result<double> CalibrateFactor(const MeasuredRun& run, const StepCost& cost, size_t count);

}  // namespace foretoken::accuracy
