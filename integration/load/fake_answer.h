// What a FakeEngine sends for one request: the JSON of answers and chunks in the shape of vLLM's, and when.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "integration/http/http_server.h"
#include "integration/load/fake_engine.h"

namespace foretoken {

// What of a request matters here.
struct FakeRequest {
  bool chat = true;
  bool stream = false;
  bool include_usage = false;
  std::string model;
  int64_t tokens = 1;
};

// Error: the body is no JSON object with a model.
Result<FakeRequest> ParseFakeRequest(std::string_view body, bool chat, int64_t default_tokens);

// The body of an OpenAI error.
std::string ErrorBody(std::string_view type, std::string_view message, int code);

// Answers at the engine's pace, with its faults; the connection holds the answer until it has ended.
void AnswerFake(FakeEngine& engine, HttpConnection& connection, FakeRequest request, Instant received);

}  // namespace foretoken
