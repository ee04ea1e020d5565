// PromptDigest: what a prompt's text is reduced to as it streams by: its size, what kind of text it is, and the chained hashes of
// its blocks, by which two prompts with the same beginning are recognised. Pure. The same text gives the same digest however it
// is cut into pieces. Token ids are text of another kind: they are counted exactly.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace foretoken {

// Kinds of text that tokenizers treat differently, told apart by bytes.
enum class TextClass : uint8_t { kProse, kCode, kMixed, kNonLatin };
inline constexpr size_t kTextClasses = 4;

class PromptDigest {
 public:
  // Block sizes in bytes: fine at the beginning, where prompts differ, coarse far behind it, so that a long prompt has a few
  // hundred blocks.
  static constexpr size_t kFineBlock = 256;
  static constexpr size_t kCoarseBlock = 4096;
  static constexpr size_t kFineBytes = 64 * 1024;

  struct Block {
    uint64_t hash = 0;   // of everything up to its end
    uint32_t bytes = 0;  // or token ids, in a prompt of token ids
  };

  void Add(std::string_view text);
  void AddTokenId(int64_t id);
  // Ends a part (a message, a prompt of several): the next one does not run on from it.
  void EndPart();
  // Call once, when all is in: closes the last block.
  void Finish();

  int64_t bytes() const { return bytes_; }
  int64_t token_ids() const { return token_ids_; }
  int32_t parts() const { return parts_; }
  TextClass text_class() const;
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  static constexpr int64_t kSampledBytes = 16 * 1024;  // enough to tell the kind of text

  size_t BlockBytes() const { return blocked_ < kFineBytes ? kFineBlock : kCoarseBlock; }
  void Close();

  int64_t bytes_ = 0;
  int64_t token_ids_ = 0;
  int32_t parts_ = 0;
  int64_t sampled_ = 0, non_ascii_ = 0, marks_ = 0;
  std::array<char, kCoarseBlock> open_;  // of the block being filled; only the first open_size_ bytes are set
  size_t open_size_ = 0;
  size_t blocked_ = 0;
  uint64_t chain_ = 0x51ED270B0A1F39C1ull;
  std::vector<Block> blocks_;
};

}  // namespace foretoken
