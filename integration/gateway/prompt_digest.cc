#include "integration/gateway/prompt_digest.h"

#include <algorithm>
#include <cstring>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

uint64_t HashBytes(uint64_t chain, const char* data, size_t size) {
  uint64_t h = Mix64(chain, size);
  size_t i = 0;
  for (; i + 8 <= size; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    h = (h ^ word) * 0x9FB21C651E98DF25ull;
    h ^= h >> 29;
  }
  uint64_t rest = 0;
  std::memcpy(&rest, data + i, size - i);
  return Mix64(h, rest);
}

// What prose has few of and program text many.
bool IsMark(unsigned char c) { return (c >= '0' && c <= '9') || std::strchr("{}[]()<>=;_/\\\"#*|&+$\n\t", c) != nullptr; }

}  // namespace

void PromptDigest::Add(std::string_view text) {
  bytes_ += static_cast<int64_t>(text.size());
  for (size_t i = 0; i < text.size() && sampled_ < kSampledBytes; ++i, ++sampled_) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x80) {
      ++non_ascii_;
    } else if (c != 0 && IsMark(c)) {
      ++marks_;
    }
  }
  while (!text.empty()) {
    const size_t block = BlockBytes();
    const size_t n = std::min(text.size(), block - open_size_);
    std::memcpy(open_.data() + open_size_, text.data(), n);
    open_size_ += n;
    text.remove_prefix(n);
    if (open_size_ == block) Close();
  }
}

void PromptDigest::AddTokenId(int64_t id) {
  ++token_ids_;
  std::memcpy(open_.data() + open_size_, &id, sizeof id);
  open_size_ += sizeof id;
  if (open_size_ >= BlockBytes()) Close();
}

void PromptDigest::EndPart() {
  ++parts_;
  chain_ = Mix64(chain_, 0x1F);
}

void PromptDigest::Finish() {
  if (open_size_ > 0) Close();
}

void PromptDigest::Close() {
  chain_ = HashBytes(chain_, open_.data(), open_size_);
  const size_t units = token_ids_ > 0 && bytes_ == 0 ? open_size_ / sizeof(int64_t) : open_size_;
  blocks_.push_back({chain_, static_cast<uint32_t>(units)});
  blocked_ += open_size_;
  open_size_ = 0;
}

TextClass PromptDigest::text_class() const {
  if (sampled_ == 0) return TextClass::kProse;
  const double n = static_cast<double>(sampled_);
  if (static_cast<double>(non_ascii_) > 0.3 * n) return TextClass::kNonLatin;
  if (static_cast<double>(non_ascii_) > 0.03 * n) return TextClass::kMixed;
  return static_cast<double>(marks_) > 0.1 * n ? TextClass::kCode : TextClass::kProse;
}

}  // namespace foretoken
