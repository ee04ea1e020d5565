// A recording of a live vLLM server by the step-trace scheduler plugin (JSON Lines: hello, add, step, free, snapshot), joined
// with the requests' token content from the engine trace beside it.
// Guarantees: events are in the order in which the engine reported them; every request that a step names was added before.
// Snapshots in a recording are skipped: nothing was lost on the way to the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "integration/engines/vllm/engine_trace.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/engine/engine_config.h"
#include "runtime/engine/engine_core.h"
#include "runtime/sync/shadow_engine.h"

namespace foretoken {

struct RecordedEvent {
  using Aborted = std::vector<RequestId>;
  using Step = std::shared_ptr<const ReportedStep>;
  Instant at;         // when it acted: enqueue, abort, end of a step's update; engine's monotonic clock
  int64_t bytes = 0;  // of its record
  std::variant<EngineRequest, Aborted, Step> what;
};

struct Recording {
  EngineConfig config;
  std::string version;     // as the server states it
  std::string rules_from;  // the version whose rules apply to it
  TokenNames names{{}};
  std::vector<RecordedEvent> events;
};

// Error: "file:line: what", naming the value and the rule.
Result<Recording> ReadRecording(const std::string& steps_path, const std::string& trace_path);

}  // namespace foretoken
