// TextBinding: which blocks of an engine a prompt's text will have, learnt from prompts that began alike. A router sees text, in blocks
// whose hashes are chained (PromptDigest); the engine says of the same request which blocks of tokens it became (Arrived). Of a
// later prompt that shares the text up to some point, the blocks up to there are known before it is sent. Pure; bounded.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/model/request.h"

namespace foretoken {

class TextBinding {
 public:
  // The engine's blocks of a request, whose text is `text`; it has `prompt_tokens` tokens.
  void OnArrived(const std::vector<PromptSegment>& text, int64_t prompt_tokens, int32_t block_tokens,
                 const std::vector<BlockHash>& blocks);
  // It ended with these blocks behind those of its prompt, and that many tokens in all. What goes on from its text is the next turn.
  void OnEnded(const std::vector<PromptSegment>& text, int64_t all_tokens, const std::vector<BlockHash>& behind);
  // Blocks that a prompt of this text is expected to begin with, of `prompt_tokens` expected in all.
  std::span<const BlockHash> Expected(const std::vector<PromptSegment>& text, int64_t prompt_tokens,
                                      int32_t block_tokens) const;

  size_t size() const { return entries_.size(); }

 private:
  static constexpr size_t kMost = 65536;  // entries
  struct Prompt {
    std::vector<BlockHash> blocks;  // those of its output behind those of its prompt
    int64_t tokens = 0;             // prompt and output; 0: it goes on
  };
  struct Entry {
    std::shared_ptr<Prompt> prompt;
    size_t estimated = 0;  // of its blocks, up to here
    size_t shared = 0;     // of its blocks, with the latest prompt that parted from it here
    bool parted = false;   // one has
    bool is_end = false;   // of the prompt's text, but for less than a block
  };

  const Entry* Deepest(const std::vector<PromptSegment>& text, size_t* at = nullptr) const;

  std::unordered_map<uint64_t, Entry> entries_;  // by the text's hash
  std::deque<uint64_t> order_;                   // oldest first
};

}  // namespace foretoken
