// Loaded mirrors for the decision benchmarks: recorded scripts of a busy engine's steps, SIMULATORs that stand at the start of a
// script, and the sync stream that goes on from there. Only the engines are missing: what they would send was recorded beforehand,
// so that an engine's own work is not measured.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/base/result.h"
#include "runtime/engine/emulated_engine.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/model/stream_message.h"
#include "runtime/perf/step_time_model.h"
#include "runtime/predict/simulator_core.h"
#include "runtime/sched/scheduler_core.h"

namespace foretoken {

struct LoadOptions {
  PredictorKind predictor = PredictorKind::kTimeline;
  bool reuse = true;     // timeline: keep the reach between predictions
  int32_t running = 32;  // per instance
  int32_t waiting = 16;  // at least
  uint64_t seed = 1;
};

// A loaded engine's state and the steps that follow it.
struct SyncScript {
  Snapshot start;
  std::vector<BatchTrace> steps;
  std::vector<EngineRequest> requests;
};

// Different scripts; instance k plays script k mod their number. Error: no load can keep as many waiting as asked for.
Result<std::vector<SyncScript>> RecordScripts(const StepTimeModel& model, const LoadOptions& load);

// Plays a script as the sync stream of one instance, again and again: steps end now, one after another. One message in ten is the
// snapshot from which the script begins anew: a state that the mirror could not foresee.
class SyncStream {
 public:
  SyncStream(InstanceId instance, const SyncScript* script) : instance_(instance), script_(script) {}
  // The next message is that snapshot.
  bool begins() const { return next_ == 0; }
  StreamMessage Next(Instant now);

 private:
  InstanceId instance_;
  const SyncScript* script_;
  uint64_t seq_ = 0;
  uint64_t steps_ = 0;
  size_t next_ = 0;
};

// Lengths like a chat service's: prompts of 1,000 and outputs of 250 tokens in the mean.
int64_t DrawPromptTokens(Prng& prng);
int64_t DrawOutputTokens(Prng& prng);
// What a router knows of such a request.
RequestMeta DrawRequest(Prng& prng, RequestId id, Instant arrival);

// The SCHEDULER that the decision benchmarks measure: it waits for every prediction, since the price of all is wanted.
SchedulerCore::Options BenchScheduler(uint64_t seed);

// Nothing is lost here, so nobody asks for a snapshot.
class NoSimulatorEffects final : public SimulatorEffects {
 public:
  void RequestResync(InstanceId, Epoch, uint64_t, Instant) override;
};

// The SIMULATOR of the instance that `stream` plays, advanced to the script's start.
Result<std::unique_ptr<SimulatorCore>> MakeLoadedSimulator(InstanceId instance, const StepTimeModel& model,
                                                           const LoadOptions& load, const SyncScript& script,
                                                           SyncStream& stream, Instant now);

}  // namespace foretoken
