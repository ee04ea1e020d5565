// The text of OpenAI-style requests and answers as an engine reads and writes them, in the shape of vLLM's. For the fake and the emulated
// engines; the gateway has its own, since it passes everything on as it came.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

// What an engine needs of a request.
struct EngineCall {
  bool chat = true;
  bool stream = false;
  bool include_usage = false;
  std::string model;
  int64_t tokens = 1;               // max_tokens or max_completion_tokens, else the default
  std::string text;                 // the prompt, or the messages one after another
  std::vector<uint32_t> token_ids;  // instead of text, when the prompt came as tokens
  int32_t priority = 0;
};

// Error: the body is no JSON object. `with_prompt`: also fill text and token_ids.
Result<EngineCall> ParseEngineCall(std::string_view body, bool chat, int64_t default_tokens, bool with_prompt);

// The body of an OpenAI error.
std::string ErrorBody(std::string_view type, std::string_view message, int code);

// The body of /v1/models.
std::string ModelsBody(const std::vector<std::string>& models, int64_t max_model_len);

// A Prometheus gauge with vLLM's labels.
std::string VllmGauge(std::string_view name, std::string_view model, double value);

// The pieces of one answer. Texts must need no JSON escapes.
class AnswerText {
 public:
  AnswerText(const EngineCall& call, std::string id) : chat_(call.chat), model_(call.model), id_(std::move(id)) {}

  // One event of a stream; `finish`: null or "\"stop\"". Without text the delta is empty.
  std::string Chunk(std::string_view text, std::string_view finish = "null") const;
  std::string UsageChunk(int64_t prompt_tokens, int64_t output_tokens) const;
  std::string Whole(std::string_view text, std::string_view finish, int64_t prompt_tokens, int64_t output_tokens) const;

 private:
  std::string Opening(std::string_view object) const;

  bool chat_;
  std::string model_;
  std::string id_;
};

}  // namespace foretoken
