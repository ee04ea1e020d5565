#include "runtime/engine/vllm_core.h"

#include <algorithm>
#include <limits>
#include <string>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

std::string Described(const char* name, int64_t value, const char* rule) {
  return std::string(name) + " = " + std::to_string(value) + ": " + rule;
}

Status ValidateLimits(const EngineConfig& c) {
  if (c.block_size < 1) return Error{Described("block_size", c.block_size, "must be at least 1 token")};
  if (c.num_gpu_blocks < 2)
    return Error{Described("num_gpu_blocks", c.num_gpu_blocks, "must be at least 2 (block 0 is the null block)")};
  if (c.max_num_seqs < 1) return Error{Described("max_num_seqs", c.max_num_seqs, "must be at least 1")};
  if (c.max_num_batched_tokens < 1)
    return Error{Described("max_num_batched_tokens", c.max_num_batched_tokens, "must be at least 1")};
  if (c.max_model_len < 2)
    return Error{Described("max_model_len", c.max_model_len, "must be at least 2 (a prompt and an output token)")};
  if (c.max_model_len > std::numeric_limits<int32_t>::max())
    return Error{Described("max_model_len", c.max_model_len, "must be below 2^31")};
  if (c.long_prefill_token_threshold < 0)
    return Error{Described("long_prefill_token_threshold", c.long_prefill_token_threshold, "must be 0 (off) or more")};
  if (c.max_num_active_seqs < 0)
    return Error{Described("max_num_active_seqs", c.max_num_active_seqs, "must be 0 (max_num_seqs) or more")};
  if (c.prefill_schedule_interval < 1)
    return Error{Described("prefill_schedule_interval", c.prefill_schedule_interval, "must be at least 1")};
  if (!(c.watermark >= 0 && c.watermark < 1))
    return Error{"watermark = " + std::to_string(c.watermark) + ": must be in [0, 1)"};
  return {};
}

}  // namespace

VllmCore::VllmCore(const EngineConfig& config)
    : config_(config),
      watermark_blocks_(static_cast<int64_t>(config.watermark * config.num_gpu_blocks)),
      max_active_(config.max_num_active_seqs > 0 ? config.max_num_active_seqs : config.max_num_seqs),
      pool_(config.num_gpu_blocks, config.prefix_caching, config.free_list),
      last_prefill_(-config.prefill_schedule_interval),
      ring_(kMaxInFlight),
      crossings_(config.block_size + 1),
      leavings_(config.block_size + 1),
      endings_(config.block_size + 4) {}

Result<std::unique_ptr<EngineCore>> VllmCore::Make(const EngineConfig& config) {
  if (Status s = ValidateLimits(config); !s.ok()) return s.error();
  return std::unique_ptr<EngineCore>(new VllmCore(config));
}

std::unique_ptr<EngineCore> VllmCore::Clone() const { return std::unique_ptr<EngineCore>(new VllmCore(*this)); }

Status VllmCore::Add(const EngineRequest& q) {
  if (q.prompt_tokens < 1) return Error{"request " + std::to_string(q.id.value()) + ": a prompt has at least one token"};
  if (q.prompt_tokens >= config_.max_model_len)
    return Error{"request " + std::to_string(q.id.value()) + ": prompt of " + std::to_string(q.prompt_tokens) +
                 " tokens; must be shorter than max_model_len = " + std::to_string(config_.max_model_len)};
  if (slab_.Find(q.id) != kNoSlot) return Error{"request " + std::to_string(q.id.value()) + ": already in the engine"};
  const Slot slot = slab_.Acquire(q.id);
  ScheduledRequest& r = slab_[slot];
  r.priority = q.priority;
  r.arrival_key = q.arrival_key;
  r.prompt = q.prompt_tokens;
  EndAt(r, q.max_tokens, q.output_tokens);
  r.output_named_later = q.output_named_later;
  r.segments.assign(q.segments.begin(), q.segments.end());
  const auto full = std::min(q.hashes.size(), static_cast<size_t>(q.prompt_tokens / config_.block_size));
  r.hashes.assign(q.hashes.begin(), q.hashes.begin() + static_cast<std::ptrdiff_t>(full));
  // Nobody else can name a block that holds a token of its own, if the host says that nobody will.
  r.private_from = q.output_named_later ? std::numeric_limits<int64_t>::max()
                   : q.segments.empty() ? 0
                                        : q.prompt_tokens / config_.block_size;
  PushWaiting(waiting_, slot, false);
  return {};
}

void VllmCore::EndAt(ScheduledRequest& r, int64_t max_tokens, int64_t output_tokens) const {
  r.max_tokens = max_tokens;
  const int64_t limit = std::max<int64_t>(1, std::min(max_tokens, config_.max_model_len - r.prompt));
  r.ends_by_eos = config_.stop_at_eos && output_tokens >= 1 && output_tokens <= limit;
  r.ends_at = r.ends_by_eos ? output_tokens : limit;
}

bool VllmCore::HasRequests() const { return running_.size + waiting_.size + skipped_.size > 0 || finish_pending_; }

bool VllmCore::Before(const ScheduledRequest& a, const ScheduledRequest& b) const {
  if (a.priority != b.priority) return a.priority < b.priority;
  if (a.arrival_key != b.arrival_key) return a.arrival_key < b.arrival_key;
  return a.id < b.id;
}

// fcfs: at the back, or in front (preempted). priority: at its place; looked for from the back, where new arrivals belong.
void VllmCore::PushWaiting(RequestQueue& queue, Slot slot, bool front) {
  if (config_.policy == QueuePolicy::kFcfs) return slab_.InsertBefore(queue, front ? queue.head : kNoSlot, slot);
  Slot after = queue.tail;
  while (after != kNoSlot && Before(slab_[slot], slab_[after])) after = slab_[after].prev;
  slab_.InsertBefore(queue, after == kNoSlot ? queue.head : slab_[after].next, slot);
}

RequestQueue& VllmCore::NextQueue() {
  if (skipped_.empty()) return waiting_;
  if (config_.policy == QueuePolicy::kFcfs || waiting_.empty()) return skipped_;
  return Before(slab_[waiting_.head], slab_[skipped_.head]) ? waiting_ : skipped_;
}

// The queue that a request is in: by status, and by walking to the head where two are possible.
RequestQueue& VllmCore::QueueOf(Slot slot) {
  if (slab_[slot].status == RequestStatus::kRunning) return running_;
  Slot head = slot;
  while (slab_[head].prev != kNoSlot) head = slab_[head].prev;
  return head == skipped_.head ? skipped_ : waiting_;
}

void VllmCore::End(Slot slot) {
  ScheduledRequest& r = slab_[slot];
  if (r.steady()) {
    DropSteady(slot);
  } else if (r.status == RequestStatus::kRunning && !loose_stale_) {
    loose_.erase(std::find(loose_.begin(), loose_.end(), slot));
  }
  FreeBlocks(r);
  slab_.Remove(QueueOf(slot), slot);
  slab_.Release(slot);
  finish_pending_ = true;
}

bool VllmCore::SetLength(RequestId request, int64_t max_tokens, int64_t output_tokens) {
  const Slot slot = slab_.Find(request);
  if (slot == kNoSlot) return false;
  if (slab_[slot].steady()) Settle();  // its end is noted in the calendars
  EndAt(slab_[slot], max_tokens, output_tokens);
  return true;
}

bool VllmCore::Abort(RequestId request) {
  const Slot slot = slab_.Find(request);
  if (slot == kNoSlot) return false;
  End(slot);
  return true;
}

}  // namespace foretoken
