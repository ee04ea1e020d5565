// The formats that are one JSON document: ShareGPT's conversations and the result file of vLLM's serving benchmark.
#include <algorithm>
#include <array>
#include <numeric>

#include "integration/traces/text_number.h"
#include "integration/traces/trace_builder.h"
#include "runtime/base/prng.h"

namespace foretoken::traces {
namespace {

constexpr size_t kDocumentLimit = size_t{2} << 30;
constexpr int64_t kBytesPerToken = 4;  // of English text under the usual tokenizers, roughly; there is no tokenizer here

// A complaint about a document: the cursor counts bytes, people count lines.
Error InDocument(const TraceBuilder& builder, std::string_view text, const JsonCursor& json) {
  const std::string_view before = text.substr(0, json.error_at());
  const size_t line = static_cast<size_t>(std::count(before.begin(), before.end(), '\n')) + 1;
  const size_t start = before.find_last_of('\n');
  const size_t column = json.error_at() - (start == std::string_view::npos ? 0 : start + 1) + 1;
  return builder.At(line, column, json.error_value(), json.error_rule());
}

Result<std::string> Document(TextSource& source, const TraceBuilder& builder) {
  Result<std::string> text = source.Rest(kDocumentLimit);
  if (!text.ok()) return text;
  if (text->substr(0, 3) == "\xEF\xBB\xBF") text->replace(0, 3, "   ");
  size_t bad = 0;
  if (!IsUtf8(*text, bad)) {
    const size_t line =
        static_cast<size_t>(std::count(text->begin(), text->begin() + static_cast<std::ptrdiff_t>(bad), '\n')) + 1;
    return builder.At(line, 1, std::string_view(*text).substr(bad, 8), "is not UTF-8");
  }
  return text;
}

// The lengths of the first exchange of a conversation, in bytes: what vLLM's benchmark takes from it.
struct Exchange {
  int64_t prompt = 0;
  int64_t output = 0;
};

bool ReadTurn(JsonCursor& json, std::string& from, int64_t& bytes) {
  std::string_view key;
  std::string text;
  if (!json.BeginObject()) return false;
  while (json.NextKey(key)) {
    if (key == "from" || key == "role") {
      if (!json.Text(from)) return false;
    } else if (key == "value" || key == "content") {
      if (!json.Text(text)) return false;
      bytes = static_cast<int64_t>(text.size());
    } else if (!json.Skip()) {
      return false;
    }
  }
  return !json.failed();
}

bool ReadConversation(JsonCursor& json, Exchange& out) {
  std::string_view key;
  if (!json.BeginObject()) return false;
  while (json.NextKey(key)) {
    if (key != "conversations" && key != "conversation") {
      if (!json.Skip()) return false;
      continue;
    }
    if (!json.BeginArray()) return false;
    while (json.NextElement()) {
      std::string from;
      int64_t bytes = 0;
      if (!ReadTurn(json, from, bytes)) return false;
      const bool human = from == "human" || from == "user";
      const bool model = from == "gpt" || from == "assistant" || from == "chatgpt";
      if (human && out.prompt == 0) out.prompt = bytes;
      if (model && out.prompt > 0 && out.output == 0) out.output = bytes;
    }
  }
  return !json.failed();
}

TraceRequest OfLengths(int64_t prompt, int64_t output) {
  TraceRequest request;
  request.meta.prompt_tokens = TokenCount(prompt);
  request.truth.output_tokens = TokenCount(output);
  return request;
}

// The arrays of a benchmark's result that matter here.
struct BenchArrays {
  std::vector<int64_t> input_lens, output_lens, start_ns;
};

bool ReadNumbers(JsonCursor& json, int scale, std::vector<int64_t>& out) {
  if (!json.BeginArray()) return false;
  while (json.NextElement()) {
    int64_t n = 0;
    if (!json.Number(scale, 0, n)) return false;
    if (scale == 0 && n > INT32_MAX) return json.Fail("must be at most 2147483647");
    out.push_back(n);
  }
  return !json.failed();
}

bool ReadBench(JsonCursor& json, BenchArrays& out) {
  std::string_view key;
  if (!json.BeginObject()) return false;
  while (json.NextKey(key)) {
    const bool read = key == "input_lens"    ? ReadNumbers(json, 0, out.input_lens)
                      : key == "output_lens" ? ReadNumbers(json, 0, out.output_lens)
                      : key == "start_times" ? ReadNumbers(json, 9, out.start_ns)
                                             : json.Skip();
    if (!read) return false;
  }
  return json.End();
}

}  // namespace

Result<LoadedTrace> ReadShareGpt(TextSource& source, const LoadTraceOptions& options) {
  TraceBuilder builder(source.path(), options, false);
  const Result<std::string> text = Document(source, builder);
  if (!text.ok()) return text.error();
  JsonCursor json(*text);
  Prng prng(options.seed);
  int64_t at = 0;
  json.BeginArray();
  while (!builder.full() && json.NextElement()) {
    Exchange exchange;
    if (!ReadConversation(json, exchange)) break;
    if (exchange.prompt == 0 || exchange.output == 0) {
      builder.Skip();
      continue;
    }
    const auto tokens = [](int64_t bytes) { return (bytes + kBytesPerToken - 1) / kBytesPerToken; };
    const Status s = builder.Add(at, OfLengths(tokens(exchange.prompt), tokens(exchange.output)), {1, 1});
    if (!s.ok()) return s.error();
    at += Duration::FromSeconds(prng.Exponential(1 / options.assumed_rate)).nanos();
  }
  if (!builder.full() && !json.failed()) json.End();
  if (json.failed()) return InDocument(builder, *text, json);
  return builder.Finish(TraceFormat::kShareGpt);
}

Result<LoadedTrace> ReadVllmBench(TextSource& source, const LoadTraceOptions& options) {
  TraceBuilder builder(source.path(), options, false);
  const Result<std::string> text = Document(source, builder);
  if (!text.ok()) return text.error();
  JsonCursor json(*text);
  BenchArrays bench;
  if (!ReadBench(json, bench)) return InDocument(builder, *text, json);
  if (bench.input_lens.empty() || bench.output_lens.size() != bench.input_lens.size()) {
    return builder.At(
        1, 1,
        std::to_string(bench.input_lens.size()) + " input_lens, " + std::to_string(bench.output_lens.size()) + " output_lens",
        "both are needed, of the same length: save the result with --save-detailed");
  }
  if (!bench.start_ns.empty() && bench.start_ns.size() != bench.input_lens.size())
    return builder.At(1, 1, std::to_string(bench.start_ns.size()) + " start_times", "there must be as many as input_lens");
  std::vector<size_t> order(bench.input_lens.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (!bench.start_ns.empty())
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return bench.start_ns[a] < bench.start_ns[b]; });
  Prng prng(options.seed);
  int64_t at = 0;
  for (const size_t i : order) {
    if (builder.full()) break;
    if (bench.input_lens[i] == 0 || bench.output_lens[i] == 0) {
      builder.Skip();
      continue;
    }
    const int64_t start = bench.start_ns.empty() ? at : bench.start_ns[i];
    if (const Status s = builder.Add(start, OfLengths(bench.input_lens[i], bench.output_lens[i]), {1, 1}); !s.ok())
      return s.error();
    at += Duration::FromSeconds(prng.Exponential(1 / options.assumed_rate)).nanos();
  }
  return builder.Finish(TraceFormat::kVllmBench);
}

}  // namespace foretoken::traces
