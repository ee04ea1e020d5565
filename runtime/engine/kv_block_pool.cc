#include "runtime/engine/kv_block_pool.h"

#include <string>

#include "runtime/base/check.h"
#include "runtime/base/prng.h"

namespace foretoken {

KvBlockPool::KvBlockPool(int32_t num_blocks, bool caching, FreeListRule rule)
    : blocks_(static_cast<size_t>(num_blocks)), caching_(caching), rule_(rule) {
  const uint32_t n = static_cast<uint32_t>(num_blocks);
  for (uint32_t b = 0; b < n; ++b) {
    blocks_[b].next = b + 1 == n ? 0 : b + 1;
    blocks_[b].prev = b == 0 ? n - 1 : b - 1;
  }
  free_ = num_blocks - 1;
}

void KvBlockPool::Unlink(uint32_t block) {
  const Block& b = blocks_[block];
  blocks_[b.prev].next = b.next;
  blocks_[b.next].prev = b.prev;
  --free_;
}

void KvBlockPool::LinkAfter(uint32_t position, uint32_t block) {
  const uint32_t next = blocks_[position].next;
  blocks_[position].next = block;
  blocks_[block].prev = position;
  blocks_[block].next = next;
  blocks_[next].prev = block;
  ++free_;
}

void KvBlockPool::Evict(uint32_t block) {
  if (blocks_[block].content == Content::kHashed) {
    index_.Erase(block);
    ++index_version_;
  }
  blocks_[block].content = Content::kNone;
  ++evicted_;
}

uint32_t KvBlockPool::AllocateOne() {
  const uint32_t b = blocks_[0].next;
  Unlink(b);
  if (blocks_[b].content != Content::kNone) Evict(b);
  blocks_[b].refs = 1;
  return b;
}

void KvBlockPool::Allocate(int64_t count, std::vector<uint32_t>& out) {
  FT_CHECK(count <= free_);
  uint32_t b = blocks_[0].next;
  for (int64_t i = 0; i < count; ++i) {
    Block& block = blocks_[b];
    if (block.content != Content::kNone) Evict(b);
    block.refs = 1;
    out.push_back(b);
    b = block.next;
  }
  blocks_[0].next = b;
  blocks_[b].prev = 0;
  free_ -= count;
}

void KvBlockPool::Touch(uint32_t block) {
  if (blocks_[block].refs++ == 0) Unlink(block);
}

void KvBlockPool::Register(uint32_t block, BlockHash hash) {
  FT_CHECK(blocks_[block].content == Content::kNone);
  index_.Insert(hash, block);
  blocks_[block].content = Content::kHashed;
  ++index_version_;
}

void KvBlockPool::Free(std::span<const uint32_t> blocks, int64_t private_from, int64_t private_until) {
  uint32_t front = 0;  // behind it goes the next block of the front part
  for (int64_t i = static_cast<int64_t>(blocks.size()) - 1; i >= 0; --i) {
    const uint32_t b = blocks[static_cast<size_t>(i)];
    Block& block = blocks_[b];
    if (i >= private_from && i < private_until) block.content = Content::kPrivate;
    if (--block.refs > 0) continue;
    const bool to_front = (block.content == Content::kNone || !caching_) && rule_ == FreeListRule::kUnhashedToFront;
    LinkAfter(to_front ? front : blocks_[0].prev, b);
    if (to_front) front = b;
  }
}

std::vector<uint32_t> KvBlockPool::FreeList() const {
  std::vector<uint32_t> list;
  list.reserve(static_cast<size_t>(free_));
  for (uint32_t b = blocks_[0].next; b != 0; b = blocks_[b].next) list.push_back(b);
  return list;
}

std::vector<std::pair<uint32_t, BlockHash>> KvBlockPool::HashedBlocks() const {
  constexpr uint64_t kPrivateSeed = 0x70726976617465ull;
  std::vector<std::pair<uint32_t, BlockHash>> out;
  for (uint32_t b = 1; b < blocks_.size(); ++b) {
    if (blocks_[b].content == Content::kPrivate) out.emplace_back(b, BlockHash(Mix64(kPrivateSeed, b)));
    if (blocks_[b].content != Content::kHashed || index_.Head(index_.HashOf(b)) != b) continue;
    for (uint32_t same = b; same != 0; same = index_.Next(same)) out.emplace_back(same, index_.HashOf(same));
  }
  return out;
}

Status KvBlockPool::Restore(const std::vector<uint32_t>& free_list, const std::vector<std::pair<uint32_t, BlockHash>>& hashed,
                            const std::vector<int32_t>& refs) {
  for (Block& b : blocks_) b = {};
  index_ = {};
  free_ = 0;
  std::vector<bool> listed(blocks_.size());
  for (uint32_t b : free_list) {
    if (b == 0 || b >= blocks_.size() || listed[b] || refs[b] != 0)
      return Error{"snapshot: block " + std::to_string(b) + " cannot be in the free list (once, in range, unreferenced)"};
    listed[b] = true;
    LinkAfter(blocks_[0].prev, b);
  }
  for (uint32_t b = 1; b < blocks_.size(); ++b) {
    if (!listed[b] && refs[b] == 0)
      return Error{"snapshot: block " + std::to_string(b) + " is neither free nor held by a request"};
    blocks_[b].refs = refs[b];
  }
  for (const auto& [b, hash] : hashed) {
    if (b == 0 || b >= blocks_.size() || blocks_[b].content != Content::kNone)
      return Error{"snapshot: block " + std::to_string(b) + " cannot be hashed (once, in range)"};
    Register(b, hash);
  }
  return {};
}

Status KvBlockPool::CheckInvariants() const {
  int64_t listed = 0;
  for (uint32_t b = blocks_[0].next; b != 0; b = blocks_[b].next) {
    if (blocks_[b].refs != 0) return Error{"block " + std::to_string(b) + " is in the free list and referenced"};
    if (blocks_[blocks_[b].next].prev != b) return Error{"the free list's links disagree at block " + std::to_string(b)};
    if (++listed > usable()) return Error{"the free list has a cycle"};
  }
  if (listed != free_) return Error{"free count " + std::to_string(free_) + ", free list " + std::to_string(listed)};
  int64_t held = 0;
  for (uint32_t b = 1; b < blocks_.size(); ++b) held += blocks_[b].refs > 0 ? 1 : 0;
  if (held + listed != usable())
    return Error{"free " + std::to_string(listed) + " + held " + std::to_string(held) + " != usable " +
                 std::to_string(usable())};
  return {};
}

}  // namespace foretoken
