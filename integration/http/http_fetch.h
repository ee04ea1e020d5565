// HttpFetch: one blocking request with a time limit, for control and for looking at what a server says; not for load.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

struct HttpAnswer {
  int status = 0;
  std::string body;
};

struct HttpCall {
  std::string method = "GET";
  std::string path;
  std::string body = {};     // JSON; empty: none
  std::string api_key = {};  // sent as a bearer token; empty: none
};

// Error: no complete answer within `limit`. `host` is an IPv4 address.
Result<HttpAnswer> HttpFetch(const std::string& host, uint16_t port, const HttpCall& call, Duration limit);
// Error: no complete answer within `limit`. `host` is an IPv4 address.
Result<HttpAnswer> HttpFetch(const std::string& host, uint16_t port, const std::string& path, Duration limit);

// A TCP port of this address that is free now. Another program may take it before it is used.
Result<uint16_t> FreePort(const std::string& host);

}  // namespace foretoken
