// EngineRequestOf: a traced request as an emulated engine gets it: what scheduling may see, and the true output length, which only the
// engine may. Every host of emulated engines uses it, so that they run the same requests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "runtime/engine/engine_core.h"
#include "runtime/workload/trace.h"

namespace foretoken {

// True when some prompt of the trace names another request's output (a later turn of a conversation).
inline bool NamesOutputs(const Trace& trace) {
  const uint64_t n = trace.requests.size();
  for (const TraceRequest& r : trace.requests)
    for (const PromptSegment& s : r.meta.segments)
      if (s.content % 2 == 1 && (s.content - 1) / 2 - 1 < n) return true;
  return false;
}

// `stop_at_eos`: of the engine (EngineConfig); `outputs_named`: NamesOutputs of the trace.
inline EngineRequest EngineRequestOf(const TraceRequest& r, bool stop_at_eos, bool outputs_named) {
  EngineRequest e;
  e.id = r.meta.id;
  e.priority = r.meta.priority;
  e.arrival_key = r.meta.arrival.seconds();
  e.prompt_tokens = r.meta.prompt_tokens.value();
  e.output_tokens = r.truth.output_tokens.value();
  const int64_t limit = r.meta.max_tokens.value_or(TokenCount(std::numeric_limits<int32_t>::max())).value();
  e.max_tokens = stop_at_eos ? limit : std::min(limit, e.output_tokens);
  e.segments = r.meta.segments;
  e.output_named_later = outputs_named;
  return e;
}

}  // namespace foretoken
