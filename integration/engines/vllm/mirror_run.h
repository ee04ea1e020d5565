// Replays a recording as the live system would carry it: each record a message of the instance's stream, over a link that may
// lose, delay, double and reorder, through the Sequencer into a ShadowEngine. When messages stay missing the shadow is
// resynchronised by an exact snapshot, taken from a second shadow engine that gets every record at its source.
// Virtual time; deterministic: the same recording, faults and seed give the same report.
#pragma once

#include <cstdint>
#include <optional>

#include "integration/engines/vllm/recording.h"
#include "runtime/base/result.h"
#include "runtime/fault/fault_plan.h"
#include "runtime/fault/link.h"
#include "runtime/sync/sequencer.h"
#include "runtime/sync/shadow_engine.h"

namespace foretoken {

struct MirrorReport {
  ShadowCounters counters;  // of the whole recording: what a snapshot stands for is in the state that it carries
  uint64_t disagreements = 0;
  std::optional<ShadowDisagreement> first_disagreement;
  SequencerCounters sync;
  LinkCounters link;
  bool converged = true;  // at the end the shadow's state is that of the shadow at the source, block for block
};

// `faults` may be null: then nothing goes wrong. Error: the engine's limits or a fault are impossible.
Result<MirrorReport> RunMirror(const Recording& recording, const FaultPlan* faults, uint64_t seed);

}  // namespace foretoken
