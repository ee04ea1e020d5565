// PredictionRun: a server's real run as the messages that a mirror of it gets, in order and on one clock, and apart from them what
// came. Two sources: a step-by-step recording of a live vLLM server, whose messages are all the server's own; and a run of which
// only the requests were measured, whose steps an emulated engine makes up (what came is the measurement all the same).
//
// Time. An engine takes requests in between two batches only, and so an `add` is recorded in the fraction of a millisecond
// between a result and the next schedule(); the engine that a mirror models spends no time there. Everything between a result and
// the next schedule() is therefore one instant here, the control point: the result, or the first add where the engine was idle.
// A step lasts from its control point, or the end of the step before it if that is later, to its result: steps of a busy engine
// follow each other without a hole, and the host's time between them belongs to them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "integration/accuracy/measured_run.h"
#include "integration/engines/vllm/recording.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/engine/engine_config.h"
#include "runtime/model/batch_trace.h"
#include "runtime/model/request.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken::accuracy {

struct PredictionRun {
  struct Arrival {
    RequestMeta meta;  // max_tokens set if the server was told; arrival: the control point
    Duration since;    // from the control point to the engine's add
  };
  using Gone = RequestId;  // the client went away
  struct Event {
    Instant at;  // control point of an arrival or abort; end of a step
    std::variant<Arrival, BatchTrace, Gone> what;
  };
  // From the engine's add to its result with the first and the last token. Absent: it never came (aborted).
  struct Came {
    std::optional<Duration> ttft, e2e;
  };

  EngineConfig limits;
  std::vector<Event> events;  // in the engine's order
  std::vector<Came> came;     // by RequestId, which counts from 1 ([0] is unused)
  int64_t requests = 0;
  int64_t steps = 0;
};

PredictionRun RunOfRecording(const Recording& recording);

// Steps are made up by the full-fidelity engine over `step_time`; requests, arrivals and what came are measured. The requests
// carry no max_tokens: the run does not say what was asked for. Error: a request that the engine refuses; names it.
Result<PredictionRun> RunOfMeasurement(const MeasuredRun& run, const StepTimeModel& step_time);

}  // namespace foretoken::accuracy
