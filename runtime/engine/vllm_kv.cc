// VllmCore's KV cache rules (vllm-scheduler.md 1.5): lookup, allocate, cache, free.
#include <algorithm>
#include <limits>

#include "runtime/engine/block_hasher.h"
#include "runtime/engine/vllm_core.h"

namespace foretoken {

void VllmCore::HashUpTo(ScheduledRequest& r, int64_t blocks) {
  if (static_cast<int64_t>(r.hashes.size()) >= blocks) return;
  ExtendBlockHashes({r.id, r.prompt, &r.segments}, config_.block_size, blocks, r.hashes);
}

// Registers the hashes of the request's full blocks among its first `tokens` tokens. Private blocks are only counted: they are
// marked when they are freed, since nobody can look them up while they are held.
void VllmCore::CacheUpTo(ScheduledRequest& r, int64_t tokens) {
  if (!config_.prefix_caching) return;
  const int64_t full = tokens / config_.block_size;
  if (full <= r.registered) return;
  const int64_t findable = std::min(full, r.private_from);
  if (r.registered < findable) HashUpTo(r, findable);
  for (int64_t k = r.registered; k < findable; ++k)
    pool_.Register(r.blocks[static_cast<size_t>(k)], r.hashes[static_cast<size_t>(k)]);
  r.registered = full;
  r.has_registered = true;
}

// Never the whole of the known tokens: at least the last one is computed again.
void VllmCore::Lookup(ScheduledRequest& r) {
  hits_.clear();
  if (!config_.prefix_caching) return;
  const int64_t limit = std::min((r.known_tokens() - 1) / config_.block_size, r.private_from);
  for (int64_t k = 0; k < limit; ++k) {
    // Hash only as far as blocks are found, a few at a time: most prompts miss at once.
    if (k >= static_cast<int64_t>(r.hashes.size())) HashUpTo(r, std::min(limit, k + 8));
    const uint32_t b = pool_.Find(r.hashes[static_cast<size_t>(k)]);
    if (b == KvBlockPool::kNone) break;
    hits_.push_back(b);
  }
}

int64_t VllmCore::CachedBlocks(std::span<const BlockHash> hashes) const {
  if (!config_.prefix_caching) return 0;
  const auto miss =
      std::find_if(hashes.begin(), hashes.end(), [&](BlockHash h) { return pool_.Find(h) == KvBlockPool::kNone; });
  return miss - hashes.begin();
}

bool VllmCore::Allocate(ScheduledRequest& r, int64_t tokens, bool admit) {
  const int64_t bs = config_.block_size, max_len = config_.max_model_len;
  const int64_t hits = admit ? static_cast<int64_t>(hits_.size()) : 0;
  const int64_t held = static_cast<int64_t>(r.blocks.size());
  const int64_t reserve = admit && !running_.empty() ? watermark_blocks_ : 0;
  const int64_t local = r.computed + hits * bs;
  int64_t evictable = 0;  // hits that would leave the free list
  for (int64_t i = 0; i < hits; ++i) evictable += pool_.refs(hits_[static_cast<size_t>(i)]) == 0 ? 1 : 0;
  auto need = [&](int64_t total) {
    if (r.has_registered) return std::max<int64_t>(BlocksOf(total) - held, 0);
    return std::max<int64_t>(BlocksOf(total) - hits - held, 0) + evictable;
  };
  if (admit && config_.reserve_full_isl && need(std::min(r.known_tokens(), max_len)) + reserve > pool_.free()) return false;
  const int64_t total = std::min(std::min(local, max_len) + tokens, max_len);
  if (need(total) + reserve > pool_.free()) return false;
  if (hits > 0) {
    for (uint32_t b : hits_) pool_.Touch(b);
    r.blocks.assign(hits_.begin(), hits_.end());
    r.registered = hits;
    r.has_registered = true;
  }
  const int64_t fresh = BlocksOf(total) - static_cast<int64_t>(r.blocks.size());
  if (fresh == 1) {
    r.blocks.push_back(pool_.AllocateOne());
  } else if (fresh > 0) {
    pool_.Allocate(fresh, r.blocks);
  }
  CacheUpTo(r, std::min(local + tokens, r.known_tokens()));
  return true;
}

void VllmCore::FreeBlocks(ScheduledRequest& r) {
  blocked_.slot = kNoSlot;
  pool_.Free(r.blocks, r.private_from, r.registered);
  r.blocks.clear();
  r.registered = 0;
  r.has_registered = false;
}

// A preempted request may come back and find its own blocks: from now on they have real hashes.
void VllmCore::MakeFindable(ScheduledRequest& r) {
  if (config_.prefix_caching && r.private_from < r.registered) {
    HashUpTo(r, r.registered);
    for (int64_t k = r.private_from; k < r.registered; ++k)
      pool_.Register(r.blocks[static_cast<size_t>(k)], r.hashes[static_cast<size_t>(k)]);
  }
  r.private_from = std::numeric_limits<int64_t>::max();
}

}  // namespace foretoken
