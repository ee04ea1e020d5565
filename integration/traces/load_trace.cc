#include "integration/traces/load_trace.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <optional>

#include "integration/traces/text_number.h"
#include "integration/traces/trace_builder.h"

namespace foretoken {
namespace {

using traces::TextSource;

constexpr size_t kPeek = 1 << 16;

bool Has(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// What a file is, by its first bytes; absent if it is none of ours.
std::optional<TraceFormat> FormatOf(std::string_view start) {
  if (start.substr(0, 3) == "\xEF\xBB\xBF") start.remove_prefix(3);
  const size_t first = start.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return std::nullopt;
  start.remove_prefix(first);
  const std::string_view line = start.substr(0, start.find('\n'));
  if (start[0] == '[') return TraceFormat::kShareGpt;
  if (start[0] != '{') {
    if (Has(line, "TIMESTAMP") && Has(line, "ContextTokens")) return TraceFormat::kAzure;
    if (Has(line, "Timestamp") && Has(line, "Request tokens")) return TraceFormat::kBurstGpt;
    return std::nullopt;
  }
  // A key of one format may be a key of another's, so the telling ones come first.
  if (Has(line, "\"prompt_len\"")) return TraceFormat::kJsonl;
  if (Has(line, "\"input_length\"")) return TraceFormat::kMooncake;
  if (Has(line, "\"type\"") && (Has(line, "\"hello\"") || Has(line, "\"add\"") || Has(line, "\"step\"")))
    return TraceFormat::kVllmSteps;
  if (Has(start, "\"num_prompts\"") || Has(start, "\"input_lens\"") || Has(start, "\"request_throughput\""))
    return TraceFormat::kVllmBench;
  return std::nullopt;
}

Result<LoadedTrace> Read(TextSource& source, TraceFormat format, const LoadTraceOptions& options) {
  switch (format) {
    case TraceFormat::kAzure:
    case TraceFormat::kBurstGpt: return traces::ReadCsvTrace(source, format, options);
    case TraceFormat::kMooncake: return traces::ReadMooncake(source, options);
    case TraceFormat::kVllmSteps: return traces::ReadVllmSteps(source, options);
    case TraceFormat::kJsonl: return traces::ReadJsonl(source, options);
    case TraceFormat::kShareGpt: return traces::ReadShareGpt(source, options);
    case TraceFormat::kVllmBench: return traces::ReadVllmBench(source, options);
  }
  return Error{source.path() + ": unknown format"};
}

// "p:r7" and the like: names that LoadTrace turns back into the same content.
std::string ContentName(uint64_t content) {
  char text[40];
  if (content >> 63 != 0) {
    std::snprintf(text, sizeof text, "c:%016" PRIx64, content);
  } else {
    std::snprintf(text, sizeof text, "%s:r%" PRIu64, content % 2 == 1 ? "out" : "p",
                  content % 2 == 1 ? (content - 1) / 2 : (content - 2) / 2);
  }
  return text;
}

void AppendSeconds(std::string& row, const char* key, int64_t nanos) {
  char text[64];
  std::snprintf(text, sizeof text, ", \"%s\": %" PRId64 ".%09" PRId64, key, nanos / 1'000'000'000, nanos % 1'000'000'000);
  row += text;
}

void AppendWhole(std::string& row, const char* key, int64_t value) {
  row += ", \"" + std::string(key) + "\": " + std::to_string(value);
}

}  // namespace

std::string_view TraceFormatName(TraceFormat format) {
  switch (format) {
    case TraceFormat::kAzure: return "azure";
    case TraceFormat::kBurstGpt: return "burstgpt";
    case TraceFormat::kMooncake: return "mooncake";
    case TraceFormat::kVllmSteps: return "vllm-steps";
    case TraceFormat::kJsonl: return "jsonl";
    case TraceFormat::kShareGpt: return "sharegpt";
    case TraceFormat::kVllmBench: return "vllm-bench";
  }
  return "unknown";
}

Result<LoadedTrace> LoadTraceFile(const std::string& path, const LoadTraceOptions& options) {
  if (!(options.rate_scale > 0) || !std::isfinite(options.rate_scale)) return Error{"rate_scale: must be above 0"};
  if (!(options.assumed_rate > 0) || !std::isfinite(options.assumed_rate)) return Error{"assumed rate: must be above 0"};
  Result<TextSource> source = TextSource::Open(path);
  if (!source.ok()) return source.error();
  const Result<std::string_view> start = source->Peek(kPeek);
  if (!start.ok()) return start.error();
  if (start->empty()) return Error{path + ": is empty"};
  const std::optional<TraceFormat> format = FormatOf(*start);
  if (!format) {
    return traces::TraceError(
        path, 1, 1, start->substr(0, start->find_first_of("\r\n")),
        "no known trace begins like this; known are azure and burstgpt (CSV with their header), mooncake, "
        "jsonl and vllm-steps (JSON Lines), sharegpt and vllm-bench (JSON)");
  }
  return Read(*source, *format, options);
}

Result<Trace> LoadTrace(const std::string& path, const LoadTraceOptions& options) {
  Result<LoadedTrace> loaded = LoadTraceFile(path, options);
  if (!loaded.ok()) return loaded.error();
  return std::move(loaded->trace);
}

std::string TraceRow(const TraceRequest& request) {
  const RequestMeta& m = request.meta;
  std::string row = "{\"id\": \"r" + std::to_string(m.id.value()) + "\"";
  AppendSeconds(row, "arrival", m.arrival.nanos());
  AppendWhole(row, "prompt_len", m.prompt_tokens.value());
  AppendWhole(row, "output_len", request.truth.output_tokens.value());
  if (m.max_tokens) AppendWhole(row, "max_tokens", m.max_tokens->value());
  if (m.output_hint) AppendWhole(row, "output_hint", m.output_hint->value());
  if (m.priority != 0) AppendWhole(row, "priority", m.priority);
  if (m.model.value() != 0) AppendWhole(row, "model", m.model.value());
  if (m.length_class != 0) AppendWhole(row, "length_class", m.length_class);
  if (m.session != 0) AppendWhole(row, "session", static_cast<int64_t>(m.session & INT64_MAX));
  if (m.slo) {
    AppendSeconds(row, "slo_ttft", m.slo->ttft.nanos());
    AppendSeconds(row, "slo_tpot", m.slo->tpot.nanos());
  }
  for (size_t i = 0; i < m.segments.size(); ++i) {
    row += i == 0 ? ", \"segments\": [[\"" : ", [\"";
    row += ContentName(m.segments[i].content) + "\", " + std::to_string(m.segments[i].length.value()) + "]";
  }
  return row + (m.segments.empty() ? "}\n" : "]}\n");
}

}  // namespace foretoken
