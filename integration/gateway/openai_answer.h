// What an engine's answer tells about its progress: server-sent events counted as they pass, and the usage that it reports. Pure;
// reads text by fixed marks, not by a JSON parser, since this happens for every token that goes through.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace foretoken {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  std::optional<int64_t> cached_tokens;
  bool operator==(const Usage&) const = default;
};

struct EventScan {
  int32_t events = 0;          // with data
  int32_t content_events = 0;  // of these, with output in them
  bool done = false;           // [DONE] came
  bool error = false;          // an error object instead of a choice
  std::optional<Usage> usage;
};

// `events`: whole server-sent events.
EventScan ScanEvents(std::string_view events);

// Length of the part of `text` that consists of whole events: up to behind the last blank line. 0: none is complete.
size_t WholeEvents(std::string_view text);

// The first usage object in `json`, which may be any part of an answer that holds it whole.
std::optional<Usage> FindUsage(std::string_view json);

}  // namespace foretoken
