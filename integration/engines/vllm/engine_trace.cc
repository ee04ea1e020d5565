#include "integration/engines/vllm/engine_trace.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();

// Reads one row; the first thing that is wrong ends up in `error`.
class RowReader {
 public:
  RowReader(const JsonValue& value, EngineTraceRow& row) : value_(value), row_(row) {}

  std::string Read() {
    if (!value_.is_object()) return "expected an object";
    if (const JsonValue* id = value_.Find("id")) {
      if (!id->is_string()) return "id: must be a string";
      row_.id = id->text;
    }
    const JsonValue* arrival = value_.Find("arrival");
    const auto at = arrival == nullptr ? std::nullopt : AsPythonNumber(*arrival);
    if (!at) return "arrival: a number of seconds is needed";
    row_.arrival = *at;
    if (!Needed("prompt_len", 0, row_.prompt_len) || !Needed("output_len", 0, row_.output_len)) return error_;
    int64_t priority = 0;
    int64_t max_tokens = 0;
    if (value_.Find("priority") != nullptr && !Needed("priority", std::numeric_limits<int32_t>::min(), priority)) return error_;
    row_.priority = static_cast<int32_t>(priority);
    if (value_.Find("max_tokens") != nullptr) {
      if (!Needed("max_tokens", 0, max_tokens)) return error_;
      row_.max_tokens = max_tokens;
    }
    return Content();
  }

 private:
  bool Needed(const char* key, int64_t least, int64_t& out) {
    const JsonValue* value = value_.Find(key);
    const auto n = value == nullptr ? std::nullopt : value->AsInt();
    if (!n || *n < least || *n > kMaxTokens) {
      error_ = std::string(key) + (value == nullptr ? " is missing" : " = " + value->text) + ": must be a whole number from " +
               std::to_string(least) + " to " + std::to_string(kMaxTokens);
      return false;
    }
    out = *n;
    return true;
  }

  std::string Content() {
    if (const JsonValue* segments = value_.Find("segments")) {
      row_.has_segments = true;
      if (!segments->is_array()) return "segments: must be an array of [name, tokens]";
      for (const JsonValue& s : segments->values) {
        const auto tokens =
            s.is_array() && s.values.size() == 2 && s.values[0].is_string() ? s.values[1].AsInt() : std::nullopt;
        if (!tokens || *tokens < 0 || *tokens > kMaxTokens) return "segments: each must be [name, tokens >= 0]";
        row_.segments.emplace_back(s.values[0].text, *tokens);
      }
    } else if (const JsonValue* hash_ids = value_.Find("hash_ids")) {
      if (!hash_ids->is_array()) return "hash_ids: must be an array";
      for (const JsonValue& h : hash_ids->values) {
        if (!h.is_string() && !h.AsInt()) return "hash_ids: must be whole numbers or strings";
        row_.hash_ids.push_back(h.text);
      }
    }
    return "";
  }

  const JsonValue& value_;
  EngineTraceRow& row_;
  std::string error_;
};

uint64_t HashName(std::string_view name) {
  uint64_t h = 0xCBF29CE484222325ull;  // FNV-1a, mixed: names are few and short
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
  return Mix64(h) | (1ull << 63);  // apart from the contents of RequestIds, which are small
}

}  // namespace

Result<std::vector<std::string>> ReadLines(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (file == nullptr) return Error{path + ": cannot be opened for reading"};
  std::vector<std::string> lines;
  std::string line;
  std::vector<char> buffer(1 << 16);
  for (int n; (n = gzread(file.get(), buffer.data(), static_cast<unsigned>(buffer.size()))) != 0;) {
    if (n < 0) return Error{path + ": cannot be read (is it complete?)"};
    std::string_view rest(buffer.data(), static_cast<size_t>(n));
    for (size_t end; (end = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(end + 1)) {
      line.append(rest.substr(0, end));
      lines.push_back(std::move(line));
      line.clear();
    }
    line.append(rest);
  }
  if (!line.empty()) lines.push_back(std::move(line));
  return lines;
}

Result<std::vector<EngineTraceRow>> ReadEngineTrace(const std::string& path) {
  auto lines = ReadLines(path);
  if (!lines.ok()) return lines.error();
  std::vector<EngineTraceRow> rows;
  std::map<std::string, size_t> seen;  // id -> line number
  for (size_t i = 0; i < lines->size(); ++i) {
    const std::string& line = (*lines)[i];
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = path + ":" + std::to_string(i + 1) + ": ";
    const auto value = ParseJson(line);
    if (!value.ok()) return Error{where + value.error().message};
    EngineTraceRow row;
    row.id = "r" + std::to_string(rows.size());
    if (const std::string error = RowReader(value.value(), row).Read(); !error.empty()) return Error{where + error};
    if (const auto [at, added] = seen.emplace(row.id, i + 1); !added)
      return Error{where + "id \"" + row.id + "\" is already on line " + std::to_string(at->second) + ": ids must differ"};
    rows.push_back(std::move(row));
  }
  return rows;
}

TokenNames::TokenNames(std::vector<std::string> ids) : ids_(std::move(ids)) {
  std::sort(ids_.begin(), ids_.end());
  ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
}

std::optional<RequestId> TokenNames::IdOf(std::string_view id) const {
  const auto at = std::lower_bound(ids_.begin(), ids_.end(), id);
  if (at == ids_.end() || *at != id) return std::nullopt;
  return RequestId(static_cast<uint64_t>(at - ids_.begin()) + 1);
}

uint64_t TokenNames::ContentOf(std::string_view name) const {
  if (name.substr(0, 4) == "out:")
    if (const auto id = IdOf(name.substr(4))) return OutputContent(*id);
  if (name.substr(0, 2) == "p:")
    if (const auto id = IdOf(name.substr(2))) return PrivateContent(*id);
  return HashName(name);
}

std::vector<PromptSegment> PromptOf(const EngineTraceRow& row, const TokenNames& names, int64_t hash_block_tokens) {
  std::vector<PromptSegment> prompt;
  const auto add = [&prompt](uint64_t content, int64_t tokens) {
    if (tokens > 0) prompt.push_back({content, TokenCount(tokens)});
  };
  if (row.has_segments) {
    for (const auto& [name, tokens] : row.segments) add(names.ContentOf(name), tokens);
    return prompt;
  }
  int64_t left = row.prompt_len;
  for (const std::string& h : row.hash_ids) {
    const int64_t tokens = std::min(left, hash_block_tokens);
    add(names.ContentOf("h" + h), tokens);
    left -= tokens;
  }
  add(names.ContentOf("p:" + row.id), left);
  return prompt;
}

int64_t PromptTokens(const std::vector<PromptSegment>& segments) {
  int64_t n = 0;
  for (const PromptSegment& s : segments) n += s.length.value();
  return n;
}

}  // namespace foretoken
