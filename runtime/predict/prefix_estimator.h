// PrefixEstimator: how many prompt tokens an engine will find in its prefix cache, from what was assigned to it. Blocks are entered
// when a request is assigned although the engine registers them at admission: whoever is asked about from then on is admitted
// later. The expected output is entered too, for the next turn of a conversation. Private prompts are entered once anybody
// shares, since they push others out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/engine/block_hasher.h"
#include "runtime/engine/engine_config.h"
#include "runtime/predict/prefix_index.h"

namespace foretoken {

class PrefixEstimator {
 public:
  struct Request {
    RequestId id;
    int64_t prompt = 0;
    int64_t output = 1;
    const std::vector<PromptSegment>* segments = nullptr;
  };

  explicit PrefixEstimator(const EngineConfig& limits)
      : block_size_(limits.block_size),
        enabled_(limits.prefix_caching),
        blocks_(limits.num_gpu_blocks - 1),
        index_(1, blocks_) {}

  // Tokens of whole blocks; never the whole prompt: an engine computes at least its last token anew.
  int32_t ExpectedCached(const Request& r) {
    if (!enabled_ || r.segments->empty() || index_.size() == 0) return 0;
    Hash(r);
    const auto most = std::min<size_t>(hashes_.size(), static_cast<size_t>((r.prompt - 1) / block_size_));
    return static_cast<int32_t>(index_.Match(0, {hashes_.data(), most}) * block_size_);
  }

  void Enter(const Request& r) {
    if (!enabled_ || (r.segments->empty() && index_.size() == 0)) return;
    Hash(r);
    index_.Insert(0, hashes_);
  }

  size_t memory_bytes() const { return index_.memory_bytes() + hashes_.capacity() * sizeof(BlockHash); }

 private:
  // The request asked about is most often the next one entered: its hashes are kept.
  void Hash(const Request& r) {
    const int64_t blocks = std::min((r.prompt + r.output - 1) / block_size_, blocks_);
    if (hashed_id_ == r.id && hashed_blocks_ == blocks) return;
    hashed_id_ = r.id;
    hashed_blocks_ = blocks;
    hashes_.clear();
    ExtendBlockHashes({r.id, r.prompt, r.segments}, block_size_, blocks, hashes_);
  }

  int32_t block_size_;
  bool enabled_;
  int64_t blocks_;
  PrefixIndex index_;
  RequestId hashed_id_;
  int64_t hashed_blocks_ = -1;
  std::vector<BlockHash> hashes_;
};

}  // namespace foretoken
