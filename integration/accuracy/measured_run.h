// A real engine run as recorded by a third party (data/truth of the reference data): what was asked, when, and what came.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/engine/engine_config.h"

namespace foretoken::accuracy {

struct MeasuredRequest {
  std::string id;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  Instant arrival;  // on the engine's clock, 0: the first of the run
  Duration ttft, e2e;
};

struct MeasuredRun {
  std::vector<MeasuredRequest> requests;  // by arrival
  EngineConfig config;
  std::vector<std::string> assumptions;  // engine keys that meta.json lacks, and what was taken instead
};

// Reads <directory>/requests.jsonl and meta.json. Arrivals are wall-clock times, everything else the engine's monotonic clock:
// a request arrives at arrival_time + min over requests(queued_ts - arrival_time). `kv_blocks` > 0 overrides the KV blocks.
// Error: file:line:column, the value, the rule.
Result<MeasuredRun> ReadMeasuredRun(const std::string& directory, int64_t kv_blocks);

}  // namespace foretoken::accuracy
