// What an Observation says, as metrics (docs/operations.md lists them): names `foretoken:...`, and vLLM's names per instance, so that
// dashboards made for vLLM show a fleet. Read from a board, they cost the system that is watched nothing.
//
// Labels are names that the operator gave (engine, model), and kinds, reasons and states of fixed lists. At most kEnginesMost engines are
// told apart; those beyond are counted in foretoken:metrics_engines_left_out.
#pragma once

#include <cstddef>

#include "integration/metrics/metric_set.h"
#include "integration/observe/observation.h"

namespace foretoken {

inline constexpr size_t kEnginesMost = 1024;

// How the system decides and predicts, and how well its mirrors follow: of every host.
void AddObservation(const Observation& observation, MetricSet& out);
// Requests, engines and the vLLM names, of hosts that do not count for themselves (a gateway does).
void AddTotals(const Observation& observation, MetricSet& out);

}  // namespace foretoken
