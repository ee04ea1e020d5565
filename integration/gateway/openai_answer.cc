#include "integration/gateway/openai_answer.h"

#include <charconv>
#include <cstring>

namespace foretoken {
namespace {

size_t Find(std::string_view text, std::string_view mark, size_t from = 0) {
  if (from >= text.size()) return std::string_view::npos;
  const void* at = memmem(text.data() + from, text.size() - from, mark.data(), mark.size());
  return at == nullptr ? std::string_view::npos : static_cast<size_t>(static_cast<const char*>(at) - text.data());
}

size_t SkipSpace(std::string_view text, size_t at) {
  while (at < text.size() && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t')) ++at;
  return at;
}

std::optional<int64_t> NumberAfter(std::string_view text, std::string_view key) {
  const size_t at = Find(text, key);
  if (at == std::string_view::npos) return std::nullopt;
  size_t from = SkipSpace(text, at + key.size());
  if (from >= text.size() || text[from] != ':') return std::nullopt;
  from = SkipSpace(text, from + 1);
  int64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data() + from, text.data() + text.size(), value);
  if (ec != std::errc() || value < 0 || end == text.data() + from) return std::nullopt;
  return value;
}

// Whether `key` is there with a value that is neither null nor "" nor [].
bool HasValue(std::string_view text, std::string_view key) {
  for (size_t at = Find(text, key); at != std::string_view::npos; at = Find(text, key, at + key.size())) {
    size_t from = SkipSpace(text, at + key.size());
    if (from >= text.size() || text[from] != ':') continue;
    from = SkipSpace(text, from + 1);
    const std::string_view rest = text.substr(from, 4);
    if (rest.substr(0, 2) == "\"\"" || rest.substr(0, 2) == "[]" || rest == "null") continue;
    return !rest.empty();
  }
  return false;
}

// Most events have their output under the first of these names.
bool HasOutput(std::string_view data) {
  return HasValue(data, "\"content\"") || HasValue(data, "\"text\"") || HasValue(data, "\"tool_calls\"") ||
         HasValue(data, "\"reasoning_content\"") || HasValue(data, "\"reasoning\"");
}

}  // namespace

std::optional<Usage> FindUsage(std::string_view json) {
  constexpr std::string_view kKey = "\"usage\"";
  for (size_t at = Find(json, kKey); at != std::string_view::npos; at = Find(json, kKey, at + kKey.size())) {
    size_t from = SkipSpace(json, at + kKey.size());
    if (from >= json.size() || json[from] != ':') continue;
    from = SkipSpace(json, from + 1);
    if (from >= json.size() || json[from] != '{') continue;
    const std::string_view object = json.substr(from, 1024);
    const auto prompt = NumberAfter(object, "\"prompt_tokens\"");
    const auto completion = NumberAfter(object, "\"completion_tokens\"");
    if (prompt && completion) return Usage{*prompt, *completion, NumberAfter(object, "\"cached_tokens\"")};
  }
  return std::nullopt;
}

size_t WholeEvents(std::string_view text) {
  for (size_t end = text.size(); end >= 2; --end) {
    const void* at = memrchr(text.data(), '\n', end);
    if (at == nullptr) return 0;
    end = static_cast<size_t>(static_cast<const char*>(at) - text.data()) + 1;
    if (end >= 2 && text[end - 2] == '\n') return end;
    if (end >= 3 && text[end - 2] == '\r' && text[end - 3] == '\n') return end;
  }
  return 0;
}

EventScan ScanEvents(std::string_view events) {
  EventScan scan;
  for (size_t at = 0; at < events.size();) {
    const void* newline = std::memchr(events.data() + at, '\n', events.size() - at);
    const size_t end =
        newline == nullptr ? events.size() : static_cast<size_t>(static_cast<const char*>(newline) - events.data());
    const std::string_view line = events.substr(at, end - at);
    at = end + 1;
    if (line.substr(0, 5) != "data:") continue;
    const std::string_view data = line.substr(SkipSpace(line, 5));
    if (data.substr(0, 6) == "[DONE]") {
      scan.done = true;
      continue;
    }
    ++scan.events;
    if (HasOutput(data)) {
      ++scan.content_events;
    } else if (data.substr(0, 8) == "{\"error\"") {
      scan.error = true;
    }
    if (auto usage = FindUsage(data)) scan.usage = usage;
  }
  return scan;
}

}  // namespace foretoken
