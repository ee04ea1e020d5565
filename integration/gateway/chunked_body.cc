#include "integration/gateway/chunked_body.h"

#include <algorithm>
#include <cstring>

namespace foretoken {
namespace {

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

// One byte that is not payload. False: it cannot stand there.
bool ChunkedDecoder::Framing(char c) {
  switch (at_) {
    case At::kSize: {
      const int value = HexValue(c);
      if (value >= 0) {
        left_ = left_ * 16 + static_cast<uint64_t>(value);
        return ++digits_ <= 16 && left_ <= kMostChunk;
      }
      if (digits_ == 0) return false;
      line_ = 0;
      at_ = c == '\r' ? At::kSizeLf : At::kExtension;
      return c == '\r' || c == ';' || c == ' ' || c == '\t';
    }
    case At::kExtension:
      if (c == '\r') at_ = At::kSizeLf;
      return ++line_ <= kMostLine && c != '\n';
    case At::kSizeLf:
      at_ = left_ == 0 ? At::kTrailerStart : At::kData;
      digits_ = 0;
      line_ = 0;
      return c == '\n';
    case At::kDataCr: at_ = At::kDataLf; return c == '\r';
    case At::kDataLf: at_ = At::kSize; return c == '\n';
    case At::kTrailerStart: at_ = c == '\r' ? At::kEndLf : At::kTrailer; return c != '\n' && ++line_ <= kMostLine;
    case At::kTrailer:
      if (c == '\r') at_ = At::kTrailerLf;
      return c != '\n' && ++line_ <= kMostLine;
    case At::kTrailerLf: at_ = At::kTrailerStart; return c == '\n';
    case At::kEndLf: at_ = At::kDone; return c == '\n';
    case At::kData:
    case At::kDone: return false;
  }
  return false;
}

ChunkedDecoder::Step ChunkedDecoder::Decode(char* data, size_t size) {
  Step step;
  while (step.consumed < size && at_ != At::kDone) {
    if (at_ != At::kData) {
      if (!Framing(data[step.consumed++])) {
        step.state = State::kBad;
        return step;
      }
      continue;
    }
    const size_t n = static_cast<size_t>(std::min<uint64_t>(left_, size - step.consumed));
    std::memmove(data + step.payload, data + step.consumed, n);
    step.payload += n;
    step.consumed += n;
    left_ -= n;
    if (left_ == 0) at_ = At::kDataCr;
  }
  step.state = done() ? State::kDone : State::kMore;
  return step;
}

}  // namespace foretoken
