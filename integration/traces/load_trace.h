// LoadTrace: a recorded or generated workload from a file, in whichever of the known formats it is; the format is told from the
// header or the first line, never from the file's name. gzip-compressed files are read as they are.
// It writes nothing and keeps nothing open. Every complaint is "file:line:column: value: rule".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/result.h"
#include "runtime/workload/trace.h"

namespace foretoken {

enum class TraceFormat : uint8_t {
  kAzure,      // CSV: TIMESTAMP,ContextTokens,GeneratedTokens
  kBurstGpt,   // CSV: Timestamp,...,Request tokens,Response tokens,... (seconds)
  kMooncake,   // JSON Lines: timestamp (ms), input_length, output_length, hash_ids (of blocks of 512 tokens)
  kVllmSteps,  // JSON Lines: hello, add, step, ... records of a vLLM server with a step log (the adds and the ends are read)
  kJsonl,      // JSON Lines: ours and the executable specification's (docs/workloads.md)
  kShareGpt,   // JSON: conversations; texts without times: lengths are estimated at 4 bytes a token, arrivals are Poisson
  kVllmBench,  // JSON: the result of `vllm bench serve --save-result --save-detailed`
};

std::string_view TraceFormatName(TraceFormat format);

struct LoadTraceOptions {
  size_t limit = 0;               // the first so many requests; 0: all
  double rate_scale = 1;          // arrivals come so many times as fast; > 0
  int64_t hash_block_tokens = 0;  // tokens that a hash id stands for; 0: the format's (mooncake 512, jsonl 16)
  double assumed_rate = 1;        // arrivals per second for formats without times
  uint64_t seed = 1;              // of those arrivals
};

struct LoadedTrace {
  Trace trace;
  TraceFormat format = TraceFormat::kJsonl;
  size_t skipped = 0;  // rows of requests that failed or had not ended when they were recorded: they have no output
};

// Requests get the ids 1, 2, ... in order. Arrivals count from the first request, but in formats whose times are relative
// already (mooncake, jsonl) from the file's 0. Segments whose names mean the same content have equal `content`; content named by
// a file has its top bit set, so that it is never OutputContent or PrivateContent of a request.
Result<LoadedTrace> LoadTraceFile(const std::string& path, const LoadTraceOptions& options = {});
// The same, without the particulars.
Result<Trace> LoadTrace(const std::string& path, const LoadTraceOptions& options = {});

// One row of our format, with its newline. LoadTrace gives back what was written, bit by bit, when ids are 1, 2, ... in order.
std::string TraceRow(const TraceRequest& request);

}  // namespace foretoken
