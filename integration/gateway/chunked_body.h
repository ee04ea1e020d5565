// ChunkedDecoder: takes the framing off a body in HTTP/1.1's chunked transfer coding (RFC 9112, 7.1), incrementally and in place.
// Pure: no I/O, no allocation. It accepts and ignores chunk extensions and trailer fields.
#pragma once

#include <cstddef>
#include <cstdint>

namespace foretoken {

class ChunkedDecoder {
 public:
  enum class State : uint8_t { kMore, kDone, kBad };
  struct Step {
    State state = State::kMore;
    size_t payload = 0;   // bytes of payload, now at the front of the data
    size_t consumed = 0;  // bytes of input used; less than given only behind the end of the body
  };

  // Decodes data[0, size): the payload is moved to the front of it. kBad: not chunked coding, or a line beyond the limits.
  Step Decode(char* data, size_t size);
  bool done() const { return at_ == At::kDone; }

 private:
  enum class At : uint8_t {
    kSize,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailerStart,
    kTrailer,
    kTrailerLf,
    kEndLf,
    kDone
  };
  static constexpr uint64_t kMostChunk = uint64_t{1} << 40;
  static constexpr uint32_t kMostLine = 8192;  // bytes of extensions per chunk, of trailers in all

  bool Framing(char c);

  At at_ = At::kSize;
  uint64_t left_ = 0;  // of the chunk
  uint32_t digits_ = 0;
  uint32_t line_ = 0;
};

}  // namespace foretoken
