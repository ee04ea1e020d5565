// The body of an OpenAI-style request as far as routing needs it: read once, by Boost.JSON's incremental parser without building
// a document. The bytes themselves are passed on untouched; what is not named here is none of the gateway's business.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "integration/gateway/prompt_digest.h"

namespace foretoken {

enum class Endpoint : uint8_t { kChatCompletions, kCompletions };

struct OpenAiBody {
  std::string model;
  bool stream = false;
  bool include_usage = false;
  int64_t choices = 1;  // n
  int64_t prompts = 1;  // of /v1/completions, which takes several
  std::optional<int64_t> max_tokens;
  std::optional<int32_t> priority;
  PromptDigest prompt;
};

struct BodyError {
  std::string message;
  std::string param;  // the field at fault; empty: the body as a whole
};

// Nothing wrong: nullopt. Nesting is bounded; text must be valid UTF-8.
std::optional<BodyError> ReadOpenAiBody(std::string_view json, Endpoint endpoint, OpenAiBody& body);

}  // namespace foretoken
