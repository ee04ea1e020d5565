// Answers that the gateway gives itself: OpenAI-style error objects, JSON documents, and the event that ends a broken stream.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace foretoken {

struct GatewayError {
  int status = 500;
  std::string message;
  std::string type;   // "invalid_request_error", "server_error", ...
  std::string param;  // empty: null
  std::string code;   // empty: null
  std::optional<int> retry_after_s;
  std::string_view allow = {};  // of a 405: the methods that the address takes
};

std::string_view ReasonPhrase(int status);

// {"error":{"message":...,"type":...,"param":...,"code":...}}
std::string ErrorObject(const GatewayError& error);

// A whole HTTP/1.1 response. request_id: echoed when not empty.
struct AnswerOptions {
  int status = 200;
  std::string_view content_type = "application/json";
  std::string_view request_id;
  bool keep_alive = true;
  std::optional<int> retry_after_s;
  std::string_view allow;  // Allow; empty: none
  bool head_only = false;
};
std::string WholeAnswer(std::string_view body, const AnswerOptions& options);

// "data: {...}\n\n"
std::string ErrorEvent(const GatewayError& error);

std::string JsonString(std::string_view text);  // quoted and escaped

}  // namespace foretoken
