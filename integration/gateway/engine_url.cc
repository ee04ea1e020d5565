#include "integration/gateway/engine_url.h"

#include <charconv>
#include <string_view>

namespace foretoken {
namespace {

constexpr std::string_view kHostLetters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_";

}  // namespace

Result<EngineUrl> EngineUrl::Parse(const std::string& text) {
  const auto wrong = [&](const std::string& rule) {
    return Error{"worker URL \"" + text + "\": " + rule + " (as in http://127.0.0.1:8000)"};
  };
  EngineUrl u;
  std::string rest = text;
  if (rest.rfind("https://", 0) == 0)
    return wrong("engines behind https are not supported: put the gateway on their side of it");
  if (rest.rfind("http://", 0) == 0) rest.erase(0, 7);
  if (rest.find("://") != std::string::npos) return wrong("only http:// is known");
  if (const size_t at = rest.rfind('@'); at != std::string::npos) {
    uint32_t rank = 0;
    const char* first = rest.data() + at + 1;
    const char* last = rest.data() + rest.size();
    const auto [end, ec] = std::from_chars(first, last, rank);
    if (ec != std::errc() || end != last) return wrong("what follows @ must be a data-parallel rank");
    u.rank = rank;
    rest.erase(at);
  }
  while (!rest.empty() && rest.back() == '/') rest.pop_back();
  const size_t slash = rest.find('/');
  if (slash != std::string::npos) u.prefix = rest.substr(slash);
  std::string authority = rest.substr(0, slash);
  const bool six = !authority.empty() && authority.front() == '[';  // an IPv6 address
  const size_t close = six ? authority.find(']') : 0;
  if (close == std::string::npos) return wrong("the address is not closed by ]");
  const size_t colon = authority.find(':', close);
  u.host = six ? authority.substr(1, close - 1) : authority.substr(0, colon);
  u.port = colon == std::string::npos ? "80" : authority.substr(colon + 1);
  const std::string_view allowed = six ? "0123456789abcdefABCDEF:.%" : kHostLetters;
  if (u.host.find_first_not_of(allowed) != std::string::npos || (six && colon != close + 1 && colon != std::string::npos))
    return wrong("the host is no name and no address");
  uint32_t port = 0;
  const auto [end, ec] = std::from_chars(u.port.data(), u.port.data() + u.port.size(), port);
  if (u.host.empty()) return wrong("the host is missing");
  if (ec != std::errc() || end != u.port.data() + u.port.size() || port == 0 || port > 65535)
    return wrong("the port must be 1..65535");
  u.url = "http://" + rest;
  return u;
}

}  // namespace foretoken
