// PrefixIndex: which instances hold which KV blocks, as far as a router can know: blocks are entered when a request is assigned and
// leave by least recent use, at most as many per instance as its engine has. One per scheduler process answers for all instances;
// a predictor keeps one of a single instance.
// Cost: 22 to 24 bytes per (block, instance): 48 bits of the hash and 16 of the instance, two links of the instance's use order, the
// bucket's chain, and a quarter of a bucket head. A block that many instances hold (a system prompt) is a crowd: one table of its
// owners, so that neither looking one of them up nor listing all of them walks a chain of a thousand entries.
// Not exact: an engine frees and evicts in an order that only it knows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/ids.h"

namespace foretoken {

class PrefixIndex {
 public:
  // instances <= 65,535; room for `blocks_per_instance` each (SetCapacity changes it).
  PrefixIndex(uint32_t instances, int64_t blocks_per_instance);

  // The instance holds these blocks of one prefix (all different), and has just used them.
  void Insert(uint32_t instance, std::span<const BlockHash> prefix);
  // How many leading blocks of `prefix` the instance holds.
  int64_t Match(uint32_t instance, std::span<const BlockHash> prefix) const;
  // The same for every instance at once: blocks[i] for instance i.
  void MatchAll(std::span<const BlockHash> prefix, std::vector<int32_t>& blocks) const;
  // Fewer than are held: the least recently used go.
  void SetCapacity(uint32_t instance, int64_t blocks);
  // The engine restarted, or reset its cache.
  void Clear(uint32_t instance);

  size_t size() const { return used_; }
  int64_t size(uint32_t instance) const { return owners_[instance].held; }
  size_t memory_bytes() const;

 private:
  // 20 bytes without padding. The key: 48 bits of the hash, the instance below; kCrowdMark instead: the crowd in `newer`.
  struct Entry {
    uint32_t key_low = 0;
    uint32_t key_high = 0;
    uint32_t newer = 0;
    uint32_t older = 0;
    uint32_t chain = 0;  // next in the bucket, or among the free entries; kInCrowd: its crowd has it
    uint64_t key() const { return (uint64_t{key_high} << 32) | key_low; }
  };
  struct Owner {
    uint32_t newest = 0;
    uint32_t oldest = 0;
    int64_t held = 0;
    int64_t capacity = 0;
  };
  // All entries of one block, by instance (0: none).
  struct Crowd {
    std::vector<uint32_t> entries;
    uint32_t size = 0;
  };
  struct Found {
    uint32_t entry = 0;   // 0: not held by the instance
    uint32_t crowd = 0;   // the entry that stands for the block's crowd; 0: it has none
    uint32_t owners = 0;  // seen on the way, when neither
  };
  static_assert(sizeof(Entry) == 20);
  static constexpr uint32_t kInCrowd = ~uint32_t{0};
  static constexpr uint64_t kCrowdMark = 0xFFFF;

  static uint64_t KeyOf(uint32_t instance, BlockHash hash);
  size_t BucketOf(uint64_t key) const;
  Found Find(uint64_t key) const;
  uint32_t FindCrowd(uint64_t key) const;
  struct Probe {
    size_t block = 0;
    uint32_t owners = 0;
  };
  uint32_t NoteOwners(std::span<const BlockHash> prefix, size_t k, std::vector<int32_t>& blocks) const;
  void NoteBetween(std::span<const BlockHash> prefix, Probe low, Probe high, std::vector<int32_t>& blocks) const;
  void Touch(Owner& owner, uint32_t entry);
  void Unlink(Owner& owner, uint32_t entry);
  uint32_t NewEntry(uint64_t key);
  void Free(uint32_t entry);
  void Chain(uint32_t entry);
  void Unchain(uint32_t entry);
  void Add(Owner& owner, uint64_t key, const Found& found);
  void Crowded(uint64_t key);
  void Evict(Owner& owner);
  void Grow();

  std::vector<Entry> entries_;  // [0]: none
  std::vector<uint32_t> heads_;
  std::vector<Owner> owners_;
  std::vector<Crowd> crowds_;
  std::vector<uint32_t> free_crowds_;
  uint32_t crowd_from_ = 0;  // owners of one block from which on they are a crowd
  uint32_t free_ = 0;
  size_t used_ = 0;
};

}  // namespace foretoken
