// PrefixDirectory: what a SCHEDULER believes of every instance's prefix cache, from its own dispatches alone: so the policies that ask
// for no prediction know of shared prompts too. The prompt and the expected output of a request are entered when it is dispatched
// (the next turn of a conversation names both), by blocks of 16 tokens whatever an engine's are. As long as no request says what its
// prompt consists of, nothing is kept and nothing costs time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/engine/block_hasher.h"
#include "runtime/model/request.h"
#include "runtime/predict/prefix_index.h"

namespace foretoken {

class PrefixDirectory {
 public:
  // Tokens that each instance's KV cache holds; 0: not known, taken for half a million (an 8B model on an 80 GB card).
  explicit PrefixDirectory(const std::vector<int64_t>& kv_tokens) : index_(static_cast<uint32_t>(kv_tokens.size()), 0) {
    for (uint32_t i = 0; i < kv_tokens.size(); ++i) {
      index_.SetCapacity(i, (kv_tokens[i] > 0 ? kv_tokens[i] : kUnknownTokens) / kBlock);
    }
  }

  // Prompt tokens that each instance is expected to find, by instance; empty: none anywhere. Valid until the next call. Never the
  // whole prompt: an engine computes at least its last token anew.
  const std::vector<int32_t>& ExpectedCached(const RequestMeta& request) {
    cached_.clear();
    if (request.segments.empty() || index_.size() == 0) return cached_;
    Hash(request, (request.prompt_tokens.value() - 1) / kBlock);
    index_.MatchAll(hashes_, cached_);
    for (int32_t& tokens : cached_) tokens *= kBlock;
    return cached_;
  }

  void Enter(InstanceId instance, const RequestMeta& request, TokenCount output) {
    if (request.segments.empty() && index_.size() == 0) return;
    Hash(request, (request.prompt_tokens.value() + output.value() - 1) / kBlock);
    index_.Insert(instance.value(), hashes_);
  }

  // The engine restarted: its cache is empty.
  void Clear(InstanceId instance) { index_.Clear(instance.value()); }

 private:
  static constexpr int32_t kBlock = 16;
  static constexpr int64_t kUnknownTokens = 500'000;

  void Hash(const RequestMeta& r, int64_t blocks) {
    hashes_.clear();
    ExtendBlockHashes({r.id, r.prompt_tokens.value(), &r.segments}, kBlock, std::max<int64_t>(0, blocks), hashes_);
  }

  PrefixIndex index_;
  std::vector<BlockHash> hashes_;
  std::vector<int32_t> cached_;
};

}  // namespace foretoken
