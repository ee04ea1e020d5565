// The formats with one JSON object a line: Mooncake's, vLLM step logs, and our own.
#include <algorithm>
#include <map>
#include <optional>

#include "integration/traces/text_number.h"
#include "integration/traces/trace_builder.h"

namespace foretoken::traces {
namespace {

// Calls row(json, line) for each line that is not blank, until the builder is full. row: reads the object; false if it failed.
template <class Row>
Status ForEachLine(TextSource& source, TraceBuilder& builder, Row row) {
  std::string_view line;
  while (!builder.full()) {
    const Result<bool> more = source.Next(line);
    if (!more.ok()) return more.error();
    if (!*more) break;
    if (source.line() == 1 && line.substr(0, 3) == "\xEF\xBB\xBF") line.remove_prefix(3);
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    size_t bad = 0;
    if (!IsUtf8(line, bad)) return builder.At(source.line(), bad + 1, line.substr(bad, 8), "is not UTF-8");
    JsonCursor json(line);
    if (const Status s = row(json); !s.ok()) return s;
    if (!json.failed()) json.End();
    if (json.failed()) return builder.Of(json, source.line());
  }
  return {};
}

bool ReadHashes(JsonCursor& json, std::vector<int64_t>& out) {
  out.clear();
  if (!json.BeginArray()) return false;
  while (json.NextElement()) {
    int64_t hash = 0;
    if (!json.Number(0, 0, hash)) return false;
    out.push_back(hash);
  }
  return !json.failed();
}

// A token count, at least 1 unless it is an output that never came.
bool Tokens(JsonCursor& json, int64_t least, TokenCount& out) {
  int64_t n = 0;
  if (!json.Number(0, least, n)) return false;
  if (n > INT32_MAX) return json.Fail("must be at most 2147483647");
  out = TokenCount(n);
  return true;
}

// The first of the keys that are needed and missing, as an error of this line.
Status NeedAll(const TraceBuilder& builder, size_t line, std::initializer_list<std::pair<std::string_view, bool>> keys) {
  for (const auto& [key, found] : keys)
    if (!found) return builder.At(line, 1, key, "this key is needed in every row");
  return {};
}

class JsonlRow {
 public:
  JsonlRow(TraceBuilder& builder, size_t line) : builder_(builder), line_(line) {}

  // False if `json` failed.
  bool Read(JsonCursor& json) {
    std::string_view key;
    if (!json.BeginObject()) return false;
    while (json.NextKey(key))
      if (!Value(json, key)) return false;
    return !json.failed();
  }

  Status Take() {
    const Status needed =
        NeedAll(builder_, line_, {{"arrival", has_arrival_}, {"prompt_len", has_prompt_}, {"output_len", has_output_}});
    if (!needed.ok()) return needed;
    if (id_.empty()) id_ = "r" + std::to_string(builder_.next_id().value() - 1);  // as the executable specification names it
    if (builder_.Known(id_)) return builder_.At(line_, 1, id_, "this id stands in a row above; ids are unique");
    if (slo_) request_.meta.slo = slo_;
    int64_t sum = 0;
    for (const auto& [name, tokens] : segments_) sum += tokens;
    if (has_segments_ && sum != request_.meta.prompt_tokens.value()) {
      return builder_.At(
          line_, 1, std::to_string(sum),
          "the segments' lengths must add up to prompt_len = " + std::to_string(request_.meta.prompt_tokens.value()));
    }
    builder_.Name(id_);
    for (const auto& [name, tokens] : segments_)
      if (tokens > 0) builder_.AddSegment(request_, name, tokens);
    if (!has_segments_ && !hashes_.empty())
      builder_.AddHashes(request_, hashes_,
                         builder_.options().hash_block_tokens > 0 ? builder_.options().hash_block_tokens : 16);
    return builder_.Add(arrival_, std::move(request_), {line_, arrival_column_});
  }

 private:
  bool Value(JsonCursor& json, std::string_view key) {
    RequestMeta& meta = request_.meta;
    int64_t n = 0;
    TokenCount tokens;
    if (key == "id") return json.NumberOrText(id_);
    if (key == "arrival") return (has_arrival_ = json.Number(9, 0, arrival_));
    if (key == "prompt_len") return (has_prompt_ = Tokens(json, 1, meta.prompt_tokens));
    if (key == "output_len") return (has_output_ = Tokens(json, 1, request_.truth.output_tokens));
    if (key == "segments") return Segments(json);
    if (key == "hash_ids") return ReadHashes(json, hashes_);
    if (key == "max_tokens") return json.Null() || (Tokens(json, 1, tokens) && (meta.max_tokens = tokens, true));
    if (key == "output_hint") return json.Null() || (Tokens(json, 1, tokens) && (meta.output_hint = tokens, true));
    if (key == "priority") return Bounded(json, INT32_MIN, INT32_MAX, n) && (meta.priority = static_cast<int32_t>(n), true);
    if (key == "length_class") return Bounded(json, 0, UINT32_MAX, n) && (meta.length_class = static_cast<uint32_t>(n), true);
    if (key == "model") return Bounded(json, 0, UINT32_MAX, n) && (meta.model = ModelId(static_cast<uint32_t>(n)), true);
    if (key == "session") return json.Number(0, 0, n) && (meta.session = static_cast<uint64_t>(n), true);
    if (key == "slo_ttft") return json.Number(9, 0, n) && (SloOf().ttft = Duration::Nanos(n), true);
    if (key == "slo_tpot") return json.Number(9, 0, n) && (SloOf().tpot = Duration::Nanos(n), true);
    return json.Skip();
  }

  Slo& SloOf() { return slo_ ? *slo_ : slo_.emplace(); }

  static bool Bounded(JsonCursor& json, int64_t least, int64_t most, int64_t& out) {
    return json.Number(0, least, out) && (out <= most || json.Fail("must be at most " + std::to_string(most)));
  }

  bool Segments(JsonCursor& json) {
    has_segments_ = true;
    segments_.clear();
    if (!json.BeginArray()) return false;
    while (json.NextElement()) {
      std::string name;
      TokenCount tokens;
      if (!json.BeginArray()) return false;
      if (!json.NextElement()) return json.failed() ? false : json.Fail("a segment is [name, length]");
      if (!json.NumberOrText(name)) return false;
      if (!json.NextElement()) return json.failed() ? false : json.Fail("a segment is [name, length]");
      if (!Tokens(json, 0, tokens)) return false;
      if (json.NextElement()) return json.Fail("a segment is [name, length]");
      if (json.failed()) return false;
      segments_.emplace_back(std::move(name), tokens.value());
    }
    return !json.failed();
  }

  TraceBuilder& builder_;
  size_t line_;
  size_t arrival_column_ = 1;
  TraceRequest request_;
  std::string id_;
  std::optional<Slo> slo_;
  int64_t arrival_ = 0;
  bool has_arrival_ = false, has_prompt_ = false, has_output_ = false, has_segments_ = false;
  std::vector<std::pair<std::string, int64_t>> segments_;
  std::vector<int64_t> hashes_;
};

// A request of a step log: known from its add record, complete with its end.
struct StepLogRequest {
  std::string id;
  int64_t at_ns = 0;
  int64_t prompt = 0;
  int64_t max_tokens = 0;
  int64_t priority = 0;
  int64_t output = 0;  // 0: no end was recorded
};

class StepLog {
 public:
  bool Read(JsonCursor& json) {
    StepLogRequest add;
    std::string type;
    std::string_view key;
    if (!json.BeginObject()) return false;
    while (json.NextKey(key)) {
      const bool read = key == "type"         ? json.Text(type)
                        : key == "id"         ? json.NumberOrText(add.id)
                        : key == "t"          ? json.Number(0, 0, add.at_ns)
                        : key == "prompt"     ? json.Number(0, 1, add.prompt)
                        : key == "max_tokens" ? json.Number(0, 0, add.max_tokens)
                        : key == "prio"       ? json.Number(0, INT32_MIN, add.priority)
                        : key == "ended"      ? Ended(json)
                                              : json.Skip();
      if (!read) return false;
    }
    if (json.failed() || type != "add") return !json.failed();
    if (add.id.empty() || add.prompt == 0) return json.Fail("an add record needs id, t, prompt and max_tokens");
    if (add.prompt > INT32_MAX || add.max_tokens > INT32_MAX) return json.Fail("a token count must be at most 2147483647");
    if (!index_.emplace(add.id, requests_.size()).second) return json.Fail("this id was added above; ids are unique");
    requests_.push_back(std::move(add));
    return true;
  }

  const std::vector<StepLogRequest>& requests() const { return requests_; }

 private:
  // [[id, status, outputs, preemptions], ...]; a `free` record has ids alone.
  bool Ended(JsonCursor& json) {
    if (!json.BeginArray()) return false;
    while (json.NextElement()) {
      std::string id, status;
      int64_t outputs = 0;
      if (!json.AtArray()) {
        if (!json.NumberOrText(id)) return false;
        continue;
      }
      if (!json.BeginArray()) return false;
      for (int k = 0; json.NextElement(); ++k) {
        const bool read = k == 0   ? json.NumberOrText(id)
                          : k == 1 ? json.Text(status)
                          : k == 2 ? json.Number(0, 0, outputs)
                                   : json.Skip();
        if (!read) return false;
      }
      if (json.failed()) return false;
      if (const auto found = index_.find(id); found != index_.end())
        requests_[found->second].output = std::min<int64_t>(outputs, INT32_MAX);
    }
    return !json.failed();
  }

  std::vector<StepLogRequest> requests_;
  std::map<std::string, size_t> index_;
};

}  // namespace

Result<LoadedTrace> ReadMooncake(TextSource& source, const LoadTraceOptions& options) {
  const int64_t block = options.hash_block_tokens > 0 ? options.hash_block_tokens : 512;
  TraceBuilder builder(source.path(), options, true);
  std::vector<int64_t> hashes;
  const auto row = [&](JsonCursor& json) -> Status {
    TraceRequest request;
    int64_t at = 0;
    bool has_at = false, has_input = false, has_output = false;
    std::string_view key;
    hashes.clear();
    json.BeginObject();
    while (json.NextKey(key)) {
      const bool read = key == "timestamp"       ? (has_at = json.Number(6, 0, at))
                        : key == "input_length"  ? (has_input = Tokens(json, 1, request.meta.prompt_tokens))
                        : key == "output_length" ? (has_output = Tokens(json, 0, request.truth.output_tokens))
                        : key == "hash_ids"      ? ReadHashes(json, hashes)
                                                 : json.Skip();
      if (!read) break;
    }
    if (json.failed()) return {};
    const Status needed =
        NeedAll(builder, source.line(), {{"timestamp", has_at}, {"input_length", has_input}, {"output_length", has_output}});
    if (!needed.ok()) return needed;
    if (request.truth.output_tokens.value() == 0) {
      builder.Skip();
      return {};
    }
    if (!hashes.empty()) builder.AddHashes(request, hashes, block);
    return builder.Add(at, std::move(request), {source.line(), 1});
  };
  if (const Status s = ForEachLine(source, builder, row); !s.ok()) return s.error();
  return builder.Finish(TraceFormat::kMooncake);
}

Result<LoadedTrace> ReadJsonl(TextSource& source, const LoadTraceOptions& options) {
  TraceBuilder builder(source.path(), options, true);
  const auto row = [&](JsonCursor& json) -> Status {
    JsonlRow reader(builder, source.line());
    return reader.Read(json) ? reader.Take() : Status();
  };
  if (const Status s = ForEachLine(source, builder, row); !s.ok()) return s.error();
  return builder.Finish(TraceFormat::kJsonl);
}

Result<LoadedTrace> ReadVllmSteps(TextSource& source, const LoadTraceOptions& options) {
  TraceBuilder builder(source.path(), options, false);
  StepLog log;
  const auto row = [&](JsonCursor& json) -> Status {
    log.Read(json);
    return {};
  };
  if (const Status s = ForEachLine(source, builder, row); !s.ok()) return s.error();
  for (const StepLogRequest& r : log.requests()) {
    if (builder.full()) break;
    if (r.output == 0) {
      builder.Skip();
      continue;
    }
    TraceRequest request;
    request.meta.prompt_tokens = TokenCount(r.prompt);
    if (r.max_tokens > 0) request.meta.max_tokens = TokenCount(r.max_tokens);
    request.meta.priority = static_cast<int32_t>(r.priority);
    request.truth.output_tokens = TokenCount(r.output);
    if (const Status s = builder.Add(r.at_ns, std::move(request), {source.line(), 1}); !s.ok()) return s.error();
  }
  return builder.Finish(TraceFormat::kVllmSteps);
}

}  // namespace foretoken::traces
