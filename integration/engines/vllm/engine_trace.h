// The trace format of the executable specification (and of the recordings of live servers): JSON Lines, one request a line -
// id, arrival (s), prompt_len, output_len, optional max_tokens, priority, segments [[name, length], ...] or hash_ids.
// Two prompt tokens are equal iff (segment name, offset) are equal; output token k of request r is ("out:r", k).
// Ids become RequestIds in the order of the id strings, so that comparing RequestIds breaks ties as comparing strings does.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "integration/engines/vllm/python_json.h"
#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/model/request.h"

namespace foretoken {

struct EngineTraceRow {
  std::string id;
  PythonNumber arrival;
  int64_t prompt_len = 0;
  int64_t output_len = 0;
  std::optional<int64_t> max_tokens;
  int32_t priority = 0;
  bool has_segments = false;                              // even if empty: then the prompt has no token
  std::vector<std::pair<std::string, int64_t>> segments;  // (name, tokens)
  std::vector<std::string> hash_ids;                      // as printed
};

// The whole file, which may be gzip-compressed. Rows keep the order of the file; a row without id gets "r<index>".
// Error: "file:line: column: what", naming the value and the rule. An id may not occur twice.
Result<std::vector<EngineTraceRow>> ReadEngineTrace(const std::string& path);

// Lines of a file, decompressed if it is gzip. Error: names the file.
Result<std::vector<std::string>> ReadLines(const std::string& path);

// Ids of requests and names of token content, as numbers.
class TokenNames {
 public:
  // Known ids: 1, 2, ... in string order.
  explicit TokenNames(std::vector<std::string> ids);

  // Absent: not among the known ids.
  std::optional<RequestId> IdOf(std::string_view id) const;
  const std::string& NameOf(RequestId id) const { return ids_[id.value() - 1]; }
  size_t size() const { return ids_.size(); }
  // "out:<id>" and "p:<id>" of a known id are that request's output and private prompt; any other name is hashed.
  uint64_t ContentOf(std::string_view name) const;

 private:
  std::vector<std::string> ids_;  // ascending
};

// A row's prompt. hash_ids stand for `hash_block_tokens` tokens each; what they do not cover is private.
std::vector<PromptSegment> PromptOf(const EngineTraceRow& row, const TokenNames& names, int64_t hash_block_tokens);
int64_t PromptTokens(const std::vector<PromptSegment>& segments);

}  // namespace foretoken
