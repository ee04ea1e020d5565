#include "runtime/engine/block_hasher.h"

#include <algorithm>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

constexpr uint64_t kChainSeed = 0x6b765f626c6f636bull;

// Appends tokens [from, until) of the layout, run by run.
void AppendRange(const TokenLayout& layout, int64_t from, int64_t until, BlockHasher& hasher, std::vector<BlockHash>& hashes) {
  auto part = [&](uint64_t content, int64_t begin, int64_t end, int64_t first_offset) {
    const int64_t lo = std::max(from, begin), hi = std::min(until, end);
    if (lo < hi) hasher.Append({content, first_offset + lo - begin, hi - lo}, hashes);
  };
  if (from < layout.prompt_tokens) {
    int64_t at = 0;
    for (const PromptSegment& s : *layout.segments) {
      const int64_t end = std::min(at + s.length.value(), layout.prompt_tokens);
      part(s.content, at, end, 0);
      at = end;
    }
    part(PrivateContent(layout.request), at, layout.prompt_tokens, 0);
  }
  part(OutputContent(layout.request), layout.prompt_tokens, until, 0);
}

}  // namespace

BlockHasher::BlockHasher(int32_t block_tokens, BlockHash parent)
    : block_tokens_(block_tokens), chain_(Mix64(parent.value(), kChainSeed)) {}

void BlockHasher::CloseRun() {
  if (open_.length == 0) return;
  chain_ = Mix64(Mix64(chain_, open_.content), Mix64(static_cast<uint64_t>(open_.offset), static_cast<uint64_t>(open_.length)));
  open_.length = 0;
}

void BlockHasher::Append(TokenRun run, std::vector<BlockHash>& hashes) {
  while (run.length > 0) {
    const int64_t n = std::min(run.length, block_tokens_ - filled_);
    if (open_.length > 0 && open_.content == run.content && open_.offset + open_.length == run.offset) {
      open_.length += n;
    } else {
      CloseRun();
      open_ = {run.content, run.offset, n};
    }
    filled_ += n;
    run.offset += n;
    run.length -= n;
    if (filled_ < block_tokens_) continue;
    CloseRun();
    hashes.push_back(BlockHash(chain_));
    chain_ = Mix64(chain_, kChainSeed);
    filled_ = 0;
  }
}

void ExtendBlockHashes(const TokenLayout& layout, int32_t block_tokens, int64_t blocks, std::vector<BlockHash>& hashes) {
  const int64_t have = static_cast<int64_t>(hashes.size());
  if (have >= blocks) return;
  BlockHasher hasher = have == 0 ? BlockHasher(block_tokens) : BlockHasher(block_tokens, hashes.back());
  AppendRange(layout, have * block_tokens, blocks * block_tokens, hasher, hashes);
}

}  // namespace foretoken
