// MirrorView: one SIMULATOR as whoever watches sees it: a value, taken by its owner.
#pragma once

#include <cstdint>
#include <string_view>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/perf/step_cost.h"
#include "runtime/predict/ledger.h"
#include "runtime/predict/simulator_core.h"
#include "runtime/sync/sequencer.h"

namespace foretoken {

struct MirrorView {
  InstanceId instance;
  Liveness liveness = Liveness::kFresh;
  Epoch epoch;
  Versions versions;
  int32_t running = 0;  // believed, as the next
  int32_t waiting = 0;  // reservations that are not confirmed included
  int32_t unconfirmed = 0;
  int32_t assigned = 0;
  int64_t free_blocks = 0;  // of the KV cache, as the engine said last
  int64_t total_blocks = 0;
  Duration age;                                        // of the state: 0 when idle and heard of
  Duration unheard;                                    // since anything came from the INSTANCE
  bool heard = false;                                  // anything ever
  PredictorKind predictor = PredictorKind::kTimeline;  // configured
  PredictorKind answers = PredictorKind::kTimeline;    // who gave the latest answer
  uint64_t demotions = 0;
  ErrorSummary ttft, e2e;  // predicted against actual, over the ledger's window
  DriftCounters drift;
  SequencerCounters sync;
  SimulatorCounters counters;
  StepCost cost;         // as its step time is known now
  double kv_tokens = 0;  // that its KV cache holds; 0: not known
};

// O(window of the ledger).
MirrorView ViewOf(const SimulatorCore& core, Instant now);

std::string_view LivenessName(Liveness liveness);  // "fresh", "stale", "hung", "unreachable"

}  // namespace foretoken
