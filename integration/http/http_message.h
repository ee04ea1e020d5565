// Just enough HTTP/1.1 for the programs around the gateway: heads and bodies of requests and of answers, incrementally.
// Lenient where it does no harm: it serves tests and measurements behind or in front of the gateway, never the world.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace foretoken {

// Views into the text that was parsed.
struct HttpHead {
  std::string_view first_line;  // without its end
  std::string_view fields;      // "Name: value\r\n"...
  size_t size = 0;              // bytes up to the body
  std::optional<uint64_t> content_length;
  bool chunked = false;
  bool close = false;  // Connection: close

  // Of the first field of this name (any case); empty if there is none.
  std::string_view Field(std::string_view name) const;
  int status() const;               // of an answer; 0: not an answer
  std::string_view method() const;  // of a request
  std::string_view target() const;
};

// nullopt: the head is not complete yet.
Result<std::optional<HttpHead>> ParseHead(std::string_view text);

// Takes a body's bytes off the wire.
class BodyDecoder {
 public:
  static BodyDecoder Of(const HttpHead& head, bool of_request);

  // Appends what is body to `out`; returns how many bytes of `wire` were used up. Nothing is used once done().
  size_t Feed(std::string_view wire, std::string& out);
  bool done() const { return state_ == State::kDone; }
  bool malformed() const { return state_ == State::kMalformed; }
  bool until_close() const { return state_ == State::kUntilClose; }

 private:
  enum class State : uint8_t { kLength, kUntilClose, kChunkSize, kChunk, kChunkEnd, kTrailer, kDone, kMalformed };
  size_t FeedLine(std::string_view wire);
  void OnLine(std::string_view line);

  State state_ = State::kDone;
  uint64_t left_ = 0;  // of the body or the chunk
  std::string line_;   // a part of a size line or trailer
};

}  // namespace foretoken
