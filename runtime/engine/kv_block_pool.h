// KvBlockPool: the physical KV blocks of one engine - reference counts, the free list in vLLM's order, and the map from block
// hash to the blocks that hold it (vllm-scheduler.md 1.5). Block 0 is the null block and never given out.
// A block's content is unhashed, hashed (findable), or private: counted and ordered as a hashed one, but findable by nobody,
// which saves the map entry when no other request can name the content.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/engine/engine_config.h"
#include "runtime/engine/hash_index.h"

namespace foretoken {

class KvBlockPool {
 public:
  static constexpr uint32_t kNone = 0;  // the null block: no block

  KvBlockPool(int32_t num_blocks, bool caching, FreeListRule rule);

  int64_t free() const { return free_; }
  int64_t usable() const { return static_cast<int64_t>(blocks_.size()) - 1; }
  int32_t refs(uint32_t block) const { return blocks_[block].refs; }

  // The first registered block that holds `hash`; kNone if there is none.
  uint32_t Find(BlockHash hash) const { return index_.Head(hash); }
  // Takes `count` <= free() blocks from the front of the free list; their old content is evicted.
  void Allocate(int64_t count, std::vector<uint32_t>& out);
  uint32_t AllocateOne();
  // One more reference to a block found by its hash; a free one leaves the free list.
  void Touch(uint32_t block);
  // The block now holds `hash`. Another block may hold the same: the oldest is found.
  void Register(uint32_t block, BlockHash hash);
  // Drops one reference to each, last block first; blocks at positions [private_from, private_until) hold private content.
  void Free(std::span<const uint32_t> blocks, int64_t private_from, int64_t private_until);

  // Hashed blocks that lost their content since the last call.
  int32_t TakeEvicted() { return std::exchange(evicted_, 0); }
  // Grows with whatever may change the answer of Find().
  uint64_t index_version() const { return index_version_; }

  // Front first.
  std::vector<uint32_t> FreeList() const;
  // In an order that keeps the registration order of equal hashes. Private blocks get a hash that nothing else has.
  std::vector<std::pair<uint32_t, BlockHash>> HashedBlocks() const;
  // Makes the pool's content that of a snapshot; `refs` per block. Error: the lists contradict each other.
  Status Restore(const std::vector<uint32_t>& free_list, const std::vector<std::pair<uint32_t, BlockHash>>& hashed,
                 const std::vector<int32_t>& refs);
  Status CheckInvariants() const;

 private:
  enum class Content : uint8_t { kNone, kHashed, kPrivate };
  // The free list is a ring through blocks_[0]: its next is the front.
  struct Block {
    uint32_t next = 0;
    uint32_t prev = 0;
    int32_t refs = 0;
    Content content = Content::kNone;
  };

  void Unlink(uint32_t block);
  void LinkAfter(uint32_t position, uint32_t block);
  void Evict(uint32_t block);

  std::vector<Block> blocks_;
  HashIndex index_;
  int64_t free_ = 0;
  int32_t evicted_ = 0;
  uint64_t index_version_ = 0;
  bool caching_ = true;
  FreeListRule rule_ = FreeListRule::kUnhashedToFront;
};

}  // namespace foretoken
