// FrameAssembler: finds the frames in a connection's bytes. A frame is a Cap'n Proto message in standard stream framing:
//   uint32 segments - 1, one uint32 of words per segment, padding to 8 bytes, the segments
// all little-endian. Pure: no sockets, no Cap'n Proto.
// Guarantees: memory is bounded by kFrameBytesMax plus what one Append brings; nothing is allocated from a length that the bytes claim;
// after an invalid head nothing more comes out. What is in a frame is the codec's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace foretoken {

struct FrameHead {
  enum class State : uint8_t { kIncomplete, kComplete, kInvalid };
  State state = State::kIncomplete;
  size_t bytes = 0;                   // of the whole frame, when kComplete
  std::string_view broken_rule = {};  // when kInvalid
};

inline constexpr uint32_t kFrameSegmentsMax = 64;

// How long the frame is that begins here, as far as the bytes at hand tell.
inline FrameHead ReadFrameHead(std::span<const std::byte> in, size_t bytes_max) {
  const auto word = [&in](size_t k) {
    uint32_t v = 0;
    std::memcpy(&v, in.data() + 4 * k, 4);
    return v;
  };
  if (in.size() < 4) return {};
  const uint32_t segments = word(0) + 1;  // wraps to 0 for the largest claim
  if (segments == 0 || segments > kFrameSegmentsMax) return {FrameHead::State::kInvalid, 0, "at most 64 segments"};
  const size_t table = (4 * (size_t{segments} + 1) + 7) / 8 * 8;
  size_t bytes = table;
  for (uint32_t s = 0; s < segments; ++s) {
    if (in.size() < 4 * (size_t{s} + 2)) return {};
    bytes += 8 * size_t{word(s + 1)};
    if (bytes > bytes_max) return {FrameHead::State::kInvalid, 0, "at most 1 MiB"};
  }
  if (bytes == table) return {FrameHead::State::kInvalid, 0, "not empty"};
  return {FrameHead::State::kComplete, bytes, {}};
}

class FrameAssembler {
 public:
  explicit FrameAssembler(size_t bytes_max) : bytes_max_(bytes_max) {}

  // Frames that were handed out before are void.
  void Append(std::span<const std::byte> in) {
    if (begin_ > 0) {
      std::memmove(bytes(), bytes() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    if (buffer_.size() * 8 < end_ + in.size()) buffer_.resize((end_ + in.size() + 7) / 8);
    if (!in.empty()) std::memcpy(bytes() + end_, in.data(), in.size());
    end_ += in.size();
  }

  // The next whole frame, 8-byte aligned, valid until Append; empty: there is none (yet).
  std::span<const std::byte> Next() {
    if (!broken_rule_.empty()) return {};
    const std::span<const std::byte> rest(bytes() + begin_, end_ - begin_);
    const FrameHead head = ReadFrameHead(rest, bytes_max_);
    if (head.state == FrameHead::State::kInvalid) broken_rule_ = head.broken_rule;
    if (head.state != FrameHead::State::kComplete || rest.size() < head.bytes) return {};
    begin_ += head.bytes;
    return rest.first(head.bytes);
  }

  // Not empty: the peer does not speak frames; nothing more will come out.
  std::string_view broken_rule() const { return broken_rule_; }
  size_t held_bytes() const { return end_ - begin_; }
  size_t memory_bytes() const { return buffer_.capacity() * 8; }

 private:
  std::byte* bytes() { return reinterpret_cast<std::byte*>(buffer_.data()); }

  size_t bytes_max_;
  std::vector<uint64_t> buffer_;  // every frame is a multiple of 8 bytes long, so that all stay aligned
  size_t begin_ = 0;
  size_t end_ = 0;
  std::string_view broken_rule_;
};

}  // namespace foretoken
