#include "integration/gateway/http_head.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <charconv>
#include <cstring>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

namespace http = boost::beast::http;
using boost::beast::iequals;
using View = boost::beast::string_view;

std::string_view ToStd(View v) { return {v.data(), v.size()}; }

uint64_t HashOf(std::string_view text) {
  uint64_t h = 0x9AE16A3B2F90404Full;
  for (const char c : text) h = Mix64(h, static_cast<unsigned char>(c));
  return h == 0 ? 1 : h;
}

void AppendField(std::string& out, View name, View value) {
  out.append(name.data(), name.size());
  out.append(": ", 2);
  out.append(value.data(), value.size());
  out.append("\r\n", 2);
}

// Fields between two neighbours only (RFC 9110, 7.6.1), and those that the gateway writes itself.
bool IsHopByHop(http::field f) {
  switch (f) {
    case http::field::connection:
    case http::field::keep_alive:
    case http::field::proxy_connection:
    case http::field::transfer_encoding:
    case http::field::te:
    case http::field::trailer:
    case http::field::upgrade:
    case http::field::proxy_authenticate:
    case http::field::proxy_authorization:
    case http::field::content_length: return true;
    default: return false;
  }
}

// Removes the fields that a Connection field named: they too are between two neighbours only.
void DropNamed(const std::string& connection, std::string& forwarded) {
  for (size_t at = 0; at < connection.size();) {
    const size_t end = std::min(connection.find(',', at), connection.size());
    std::string_view name = std::string_view(connection).substr(at, end - at);
    at = end + 1;
    while (!name.empty() && (name.front() == ' ' || name.front() == '\t')) name.remove_prefix(1);
    while (!name.empty() && (name.back() == ' ' || name.back() == '\t')) name.remove_suffix(1);
    for (size_t line = 0; !name.empty() && line < forwarded.size();) {
      const size_t next = forwarded.find("\r\n", line) + 2;
      const bool named = forwarded[std::min(line + name.size(), forwarded.size() - 1)] == ':' &&
                         iequals(View(forwarded.data() + line, name.size()), View(name.data(), name.size()));
      if (named) {
        forwarded.erase(line, next - line);
      } else {
        line = next;
      }
    }
  }
}

// What both kinds of head have in common; bodies are not parsed here.
template <bool kRequest>
class HeadParser : public http::basic_parser<kRequest> {
 public:
  using Code = boost::beast::error_code;

  bool CountLength(http::field f, Code& ec) {
    if (f == http::field::content_length && ++lengths_ > 1) ec = http::error::multiple_content_length;
    return !ec;
  }

 private:
  void on_header_impl(Code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, Code&) override {}
  std::size_t on_body_impl(View body, Code&) override { return body.size(); }
  void on_chunk_header_impl(std::uint64_t, View, Code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, View body, Code&) override { return body.size(); }
  void on_finish_impl(Code&) override {}

  int lengths_ = 0;
};

template <class T>
void ReadNumber(std::string_view name, std::string_view value, T least, T most, std::optional<T>& out, std::string& complaint) {
  T number{};
  const auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (ec != std::errc() || end != value.data() + value.size() || !(number >= least && number <= most)) {
    complaint = std::string(name) + ": \"" + std::string(value.substr(0, 40)) + "\" is not a number in range";
    return;
  }
  out = number;
}

class RequestParser final : public HeadParser<true> {
 public:
  RequestParser(const HeadOptions& options, RequestHead& head) : options_(options), head_(head) {}

  const std::string& connection() const { return connection_; }

 private:
  void on_request_impl(http::verb, View method, View target, int version, Code&) override {
    head_.method.assign(method.data(), method.size());
    head_.target.assign(target.data(), target.size());
    head_.http_1_0 = version == 10;
  }
  void on_response_impl(int, View, int, Code&) override {}

  void on_field_impl(http::field f, View name, View value, Code& ec) override {
    if (!CountLength(f, ec)) return;
    if (f == http::field::transfer_encoding && !iequals(value, "chunked")) {
      ec = http::error::bad_transfer_encoding;
      return;
    }
    if (f == http::field::expect) {
      head_.expects_continue = iequals(value, "100-continue");
      return;
    }
    if (f == http::field::upgrade) head_.has_upgrade = true;
    if (f == http::field::connection) connection_.append(value.data(), value.size()).append(",");
    if (f == http::field::host || IsHopByHop(f)) return;
    if (f == http::field::authorization) head_.authorization.assign(value.data(), value.size());
    if (f == http::field::unknown || (name.size() > 2 && (name[0] | 0x20) == 'x' && name[1] == '-')) OwnField(name, value);
    AppendField(head_.forwarded, name, value);
  }

  void OwnField(View name, View value) {
    const std::string_view text = ToStd(value);
    if (iequals(name, "x-session-id") || (head_.session == 0 && iequals(name, "x-user-id"))) {
      head_.session = HashOf(text);
    } else if (iequals(name, "x-slo-ttft-ms")) {
      ReadNumber("x-slo-ttft-ms", text, 0.001, 1e9, head_.slo_ttft_ms, head_.complaint);
    } else if (iequals(name, "x-slo-tpot-ms")) {
      ReadNumber("x-slo-tpot-ms", text, 0.001, 1e9, head_.slo_tpot_ms, head_.complaint);
    } else if (iequals(name, "x-output-length-hint")) {
      ReadNumber<int64_t>("x-output-length-hint", text, 1, int64_t{1} << 31, head_.length_hint, head_.complaint);
    } else if (iequals(name, "x-priority")) {
      ReadNumber<int32_t>("x-priority", text, -32768, 32767, head_.priority, head_.complaint);
    } else if (head_.request_id.empty() && NamesRequest(name)) {
      head_.request_id.assign(text.substr(0, 256));
    }
  }

  bool NamesRequest(View name) const {
    if (iequals(name, "x-request-id")) return true;
    return std::any_of(options_.request_id_fields.begin(), options_.request_id_fields.end(),
                       [&](const std::string& f) { return iequals(name, View(f.data(), f.size())); });
  }

  const HeadOptions& options_;
  RequestHead& head_;
  std::string connection_;  // what Connection fields say, one after another
};

class ResponseParser final : public HeadParser<false> {
 public:
  explicit ResponseParser(ResponseHead& head) : head_(head) {}

 private:
  void on_request_impl(http::verb, View, View, int, Code&) override {}
  void on_response_impl(int code, View reason, int, Code&) override {
    head_.status = code;
    head_.reason.assign(reason.data(), reason.size());
  }
  void on_field_impl(http::field f, View name, View value, Code& ec) override {
    if (!CountLength(f, ec) || IsHopByHop(f)) return;
    if (f == http::field::content_type)
      head_.event_stream = value.size() >= 17 && iequals(value.substr(0, 17), "text/event-stream");
    if (f == http::field::content_encoding) head_.encoded = !iequals(value, "identity");
    if (name.size() == 12 && iequals(name, "x-request-id")) head_.has_request_id = true;
    AppendField(head_.forwarded, name, value);
  }

  ResponseHead& head_;
};

template <class Parser>
HeadResult Run(Parser& parser, std::string_view bytes, size_t most, size_t& consumed, std::string& error) {
  boost::beast::error_code ec;
  parser.header_limit(static_cast<std::uint32_t>(most));
  parser.eager(false);
  parser.skip(true);
  consumed = parser.put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
  if (ec == http::error::need_more) return HeadResult::kNeedMore;
  if (ec == http::error::header_limit) return HeadResult::kTooLarge;
  if (!ec) return HeadResult::kDone;
  error = ec.message();
  return HeadResult::kBad;
}

}  // namespace

size_t FindHeadEnd(std::string_view bytes, size_t& from) {
  const size_t start = from < 3 ? 0 : from - 3;
  const void* at = bytes.size() < start + 4 ? nullptr : memmem(bytes.data() + start, bytes.size() - start, "\r\n\r\n", 4);
  from = bytes.size();
  return at == nullptr ? 0 : static_cast<size_t>(static_cast<const char*>(at) - bytes.data()) + 4;
}

HeadResult ParseRequestHead(std::string_view bytes, const HeadOptions& options, RequestHead& head, size_t& consumed,
                            std::string& error) {
  RequestParser parser(options, head);
  const HeadResult result = Run(parser, bytes, options.most_bytes, consumed, error);
  if (result != HeadResult::kDone) return result;
  if (const auto length = parser.content_length()) head.content_length = *length;
  head.chunked = parser.chunked();
  head.keep_alive = parser.keep_alive();
  DropNamed(parser.connection(), head.forwarded);
  return result;
}

HeadResult ParseResponseHead(std::string_view bytes, ResponseHead& head, size_t& consumed, std::string& error) {
  ResponseParser parser(head);
  const HeadResult result = Run(parser, bytes, 65536, consumed, error);
  if (result != HeadResult::kDone) return result;
  if (const auto length = parser.content_length()) head.content_length = *length;
  head.chunked = parser.chunked();
  head.keep_alive = parser.keep_alive();
  return result;
}

}  // namespace foretoken
