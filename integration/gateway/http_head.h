// The heads of HTTP/1.1 messages, parsed by Boost.Beast's parser without building its containers: what the gateway needs of a head
// is picked out, what is to be passed on is copied byte for byte into one string. Stricter than Beast where proxies get
// attacked: two Content-Length fields, Content-Length with Transfer-Encoding, and codings other than chunked are errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace foretoken {

enum class HeadResult : uint8_t { kDone, kNeedMore, kTooLarge, kBad };

struct RequestHead {
  std::string method;
  std::string target;            // as sent
  std::string forwarded;         // end-to-end fields, "Name: value\r\n" each, as sent
  std::string request_id;        // of the first field that carries one; empty: none
  bool made_request_id = false;  // it was made here: the engine is to be told
  std::string authorization;     // as sent
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  bool http_1_0 = false;
  bool expects_continue = false;
  bool has_upgrade = false;
  uint64_t session = 0;                // hash of the affinity key; 0: none
  std::optional<double> slo_ttft_ms;   // x-slo-ttft-ms
  std::optional<double> slo_tpot_ms;   // x-slo-tpot-ms
  std::optional<int64_t> length_hint;  // x-output-length-hint, tokens
  std::optional<int32_t> priority;     // x-priority; lower first
  std::string_view path() const { return std::string_view(target).substr(0, target.find('?')); }
  std::string complaint;  // of a hint or target that is no number: "x-slo-ttft-ms: \"abc\" ..."
};

struct ResponseHead {
  int status = 0;
  std::string reason;
  std::string forwarded;  // end-to-end fields; without Content-Length
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool keep_alive = true;
  bool event_stream = false;
  bool encoded = false;  // Content-Encoding other than identity: the body cannot be read here
  bool has_request_id = false;
};

struct HeadOptions {
  size_t most_bytes = 32768;
  // Lower case; besides x-request-id. The first that a request carries names it.
  std::vector<std::string> request_id_fields;
};

// Position behind "\r\n\r\n" in bytes, looking from `from` on (which moves so that no byte is looked at twice); 0: not there yet.
size_t FindHeadEnd(std::string_view bytes, size_t& from);

// `bytes` holds at least the whole head. `consumed`: its length. `error`: what is wrong, when kBad.
HeadResult ParseRequestHead(std::string_view bytes, const HeadOptions& options, RequestHead& head, size_t& consumed,
                            std::string& error);
HeadResult ParseResponseHead(std::string_view bytes, ResponseHead& head, size_t& consumed, std::string& error);

}  // namespace foretoken
