// EngineUrl: where an engine is, as people write it. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/base/result.h"

namespace foretoken {

// "http://host:port[/prefix][@rank]": rank, of a data-parallel engine behind that address, is sent as X-data-parallel-rank.
struct EngineUrl {
  std::string url;  // without the rank, no slash at the end
  std::string host;
  std::string port;
  std::string prefix;  // "" or "/prefix"
  std::optional<uint32_t> rank;

  // Error: what is wrong with it.
  static Result<EngineUrl> Parse(const std::string& text);
  std::string authority() const { return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + port; }
  std::string name() const { return rank ? url + "@" + std::to_string(*rank) : url; }
};

}  // namespace foretoken
