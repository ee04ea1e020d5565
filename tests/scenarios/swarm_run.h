// RunScenario: one scenario on the real actors in virtual time, with every invariant checked after every event and at its end
// (docs/scenarios.md lists them). The same scenario gives the same result, to the last bit.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/sync/sequencer.h"
#include "tests/scenarios/scenario.h"

namespace foretoken::testing {

struct SwarmResult {
  std::string failure;  // the first invariant that did not hold; empty: all held
  uint64_t digest = 0;  // of decisions, messages applied and outcomes
  uint64_t unseed = 0;  // the next draw of a generator that events advanced, and the links' counters
  // What the run was like.
  uint64_t decisions = 0;
  uint64_t retried = 0;
  uint64_t preemptions = 0;
  uint64_t engine_epochs = 0;     // beyond the first ones
  uint64_t mirrors_compared = 0;  // with their engine, right after a snapshot
  uint64_t answers_compared = 0;  // with those of a mirror that began with the snapshot
  SequencerCounters sync;
};

SwarmResult RunScenario(const Scenario& scenario);

}  // namespace foretoken::testing
