// Block hashes: the identity of a KV block's content, chained over everything before it.
// Guarantee: equal token sequences give equal hashes whatever segments they were described by (a block is hashed as its maximal
// runs of consecutive tokens); different sequences differ but for a 64-bit collision. Only full blocks have a hash.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/model/request.h"

namespace foretoken {

// Tokens (content, offset), (content, offset + 1), ... of one content.
struct TokenRun {
  uint64_t content = 0;
  int64_t offset = 0;
  int64_t length = 0;
};

// Hashes a token sequence that is appended run by run. Cheap to copy.
class BlockHasher {
 public:
  explicit BlockHasher(int32_t block_tokens) : block_tokens_(block_tokens) {}
  // Continues behind full blocks, the last of which has the hash `parent`.
  BlockHasher(int32_t block_tokens, BlockHash parent);

  // Appends `run`; the hash of every block that it fills is pushed to `hashes`.
  void Append(TokenRun run, std::vector<BlockHash>& hashes);

 private:
  void CloseRun();

  int32_t block_tokens_;
  uint64_t chain_ = 0;  // of the blocks before, then of this block's closed runs
  int64_t filled_ = 0;  // tokens in the open block
  TokenRun open_;       // the last run of the open block; length 0: none
};

// What a request's tokens are: its prompt (segments cut or padded with its private content to `prompt_tokens`), then its output.
struct TokenLayout {
  RequestId request;
  int64_t prompt_tokens = 0;
  const std::vector<PromptSegment>* segments = nullptr;
};

// Extends `hashes` (of the sequence's first blocks) to its first `blocks` blocks.
void ExtendBlockHashes(const TokenLayout& layout, int32_t block_tokens, int64_t blocks, std::vector<BlockHash>& hashes);

}  // namespace foretoken
