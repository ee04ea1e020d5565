#include "integration/gateway/openai_error.h"

#include <cstdio>

namespace foretoken {

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200: return "OK";
    case 202: return "Accepted";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 429: return "Too Many Requests";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return "Unknown";
  }
}

std::string JsonString(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (u < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(u));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string ErrorObject(const GatewayError& e) {
  const auto text_or_null = [](const std::string& s) { return s.empty() ? std::string("null") : JsonString(s); };
  return "{\"error\":{\"message\":" + JsonString(e.message) + ",\"type\":" + JsonString(e.type) +
         ",\"param\":" + text_or_null(e.param) + ",\"code\":" + text_or_null(e.code) + "}}";
}

std::string ErrorEvent(const GatewayError& error) { return "data: " + ErrorObject(error) + "\n\n"; }

std::string WholeAnswer(std::string_view body, const AnswerOptions& o) {
  std::string out = "HTTP/1.1 " + std::to_string(o.status) + " ";
  out += ReasonPhrase(o.status);
  out += "\r\nContent-Type: ";
  out += o.content_type;
  out += "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  if (!o.request_id.empty()) {
    out += "X-Request-Id: ";
    out += o.request_id;
    out += "\r\n";
  }
  if (o.retry_after_s) out += "Retry-After: " + std::to_string(*o.retry_after_s) + "\r\n";
  if (!o.allow.empty()) {
    out += "Allow: ";
    out += o.allow;
    out += "\r\n";
  }
  if (!o.keep_alive) out += "Connection: close\r\n";
  out += "\r\n";
  if (!o.head_only) out += body;
  return out;
}

}  // namespace foretoken
