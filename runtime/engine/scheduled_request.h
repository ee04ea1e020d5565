// ScheduledRequest: what VllmCore keeps per request; RequestSlab holds them in one vector, linked into queues by index.
// A slot is reused after Release(), together with the capacity of its vectors, so that a steady load allocates nothing.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/engine/engine_core.h"

namespace foretoken {

using Slot = uint32_t;
inline constexpr Slot kNoSlot = std::numeric_limits<Slot>::max();

enum class RequestStatus : uint8_t { kFree, kWaiting, kRunning, kPreempted };

struct ScheduledRequest {
  RequestId id;
  double arrival_key = 0;
  int64_t prompt = 0;
  int64_t max_tokens = 0;
  int64_t ends_at = 0;  // output tokens at which it ends: by eos, max_tokens or max_model_len
  bool ends_by_eos = false;
  bool output_named_later = true;
  bool chunk = false;  // its last chunk did not reach the end of its known tokens
  RequestStatus status = RequestStatus::kFree;
  int32_t priority = 0;
  int32_t placeholders = 0;  // sampled tokens scheduled, not yet known (asynchronous)
  int32_t in_flight = 0;     // tokens in batches not yet updated
  int32_t stale = 0;         // of these, from before a preemption
  int32_t cached_at_admission = 0;
  int64_t computed = 0;  // advanced when scheduled
  int64_t generated = 0;
  int64_t registered = 0;       // leading blocks with a hash
  bool has_registered = false;  // false: none yet since its admission (vLLM: no entry)
  int64_t private_from = 0;     // blocks from here on hold content that nobody else can name
  // Steady decode (vllm_core.h). While it lasts, computed, generated, placeholders, in_flight and registered are as of `joined`.
  int64_t joined = -1;      // index of the first steady batch with it; -1: not steady
  int64_t leaves_at = 0;    // index of the first steady batch without it (its last token is then in flight)
  int64_t finishes_at = 0;  // index of the steady batch whose result ends it
  bool left = false;
  uint64_t rank = 0;        // grows along the running list
  uint32_t generation = 0;  // of the slot
  Slot next = kNoSlot;
  Slot prev = kNoSlot;
  std::vector<uint32_t> blocks;
  std::vector<BlockHash> hashes;
  std::vector<PromptSegment> segments;

  int64_t known_tokens() const { return prompt + generated; }
  bool steady() const { return joined >= 0; }
  // Others may look up what it will compute.
  bool findable() const { return private_from == std::numeric_limits<int64_t>::max(); }
};

// A doubly linked queue through ScheduledRequest::next and prev; a request is in at most one.
struct RequestQueue {
  Slot head = kNoSlot;
  Slot tail = kNoSlot;
  int32_t size = 0;
  bool empty() const { return size == 0; }
};

class RequestSlab {
 public:
  ScheduledRequest& operator[](Slot s) { return requests_[s]; }
  const ScheduledRequest& operator[](Slot s) const { return requests_[s]; }

  // kNoSlot if unknown.
  Slot Find(RequestId id) const;
  // A cleared request with `id`, which is not known yet.
  Slot Acquire(RequestId id);
  void Release(Slot slot);

  // Before `at`; at the end if `at` is kNoSlot.
  void InsertBefore(RequestQueue& queue, Slot at, Slot slot);
  void Remove(RequestQueue& queue, Slot slot);
  int32_t size() const { return used_; }

 private:
  struct Entry {
    uint64_t id = 0;
    Slot slot = kNoSlot;  // kNoSlot: empty
  };
  size_t Home(uint64_t id) const { return static_cast<size_t>((id * 0x9E3779B97F4A7C15ull) >> shift_); }
  void Grow();
  void EraseFromIndex(uint64_t id);

  std::vector<ScheduledRequest> requests_;
  std::vector<Slot> free_slots_;
  std::vector<Entry> index_;  // id -> slot; a power of two, at most half full, linear probing
  int32_t used_ = 0;
  int shift_ = 64;
};

}  // namespace foretoken
