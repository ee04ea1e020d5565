#include "runtime/engine/sglang_core.h"

#include <algorithm>
#include <string>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

Error Refused(const char* option, const char* why) {
  return Error{std::string(option) + ": " + why + " (engine kind sglang; use vllm, or leave the option at its default)"};
}

Status Validate(const EngineConfig& c) {
  if (c.block_size != 1) return Error{"block_size = " + std::to_string(c.block_size) + ": must be 1 (sglang's page size)"};
  if (c.num_gpu_blocks < 4)
    return Error{"num_gpu_blocks = " + std::to_string(c.num_gpu_blocks) + ": must be at least 4 tokens"};
  if (c.max_num_seqs < 1) return Error{"max_num_seqs = " + std::to_string(c.max_num_seqs) + ": must be at least 1"};
  if (c.max_num_batched_tokens < 1)
    return Error{"max_num_batched_tokens = " + std::to_string(c.max_num_batched_tokens) + ": must be at least 1"};
  if (c.max_model_len < 3) return Error{"max_model_len = " + std::to_string(c.max_model_len) + ": must be at least 3"};
  if (c.policy != QueuePolicy::kFcfs) return Refused("policy priority", "not modelled");
  if (c.async_scheduling) return Refused("async_scheduling", "the overlap scheduler is not modelled");
  if (c.watermark != 0) return Refused("watermark", "a rule of vLLM's");
  if (c.max_num_active_seqs != 0) return Refused("max_num_active_seqs", "a rule of vLLM's");
  if (c.prefill_schedule_interval != 1) return Refused("prefill_schedule_interval", "a rule of vLLM's");
  if (c.long_prefill_token_threshold != 0 || c.long_prefill_adaptive)
    return Refused("long_prefill_token_threshold", "a rule of vLLM's");
  return {};
}

}  // namespace

SglangCore::SglangCore(const EngineConfig& config) : config_(config), available_(config.num_gpu_blocks - 1) {}

Result<std::unique_ptr<EngineCore>> SglangCore::Make(const EngineConfig& config) {
  if (Status s = Validate(config); !s.ok()) return s.error();
  return std::unique_ptr<EngineCore>(new SglangCore(config));
}

Result<std::unique_ptr<EngineCore>> MakeSglangCore(const EngineConfig& config) { return SglangCore::Make(config); }

Status SglangCore::Add(const EngineRequest& q) {
  const std::string name = "request " + std::to_string(q.id.value());
  const int64_t longest = LongestRequest();
  if (q.prompt_tokens < 1) return Error{name + ": a prompt has at least one token"};
  if (q.prompt_tokens > longest - 2)
    return Error{name + ": prompt of " + std::to_string(q.prompt_tokens) + " tokens; at most " + std::to_string(longest - 2) +
                 " fit beside an output token"};
  if (slot_of_.Find(q.id.value()) != nullptr) return Error{name + ": already in the engine"};
  if (!HasRequests()) new_token_ratio_ = kSglangRatioInitial;  // an idle engine starts afresh
  Slot slot = static_cast<Slot>(requests_.size());
  if (unused_.empty()) {
    requests_.emplace_back();
  } else {
    slot = unused_.back();
    unused_.pop_back();
  }
  Request& r = requests_[slot];
  r = Request{};
  r.alive = true;
  r.id = q.id;
  for (const PromptSegment& s : q.segments) r.content.Append({s.content, 0, s.length.value()});
  if (q.segments.empty()) r.content.Append({PrivateContent(q.id), 0, q.prompt_tokens});
  FT_CHECK(r.content.length() == q.prompt_tokens);
  r.prompt = q.prompt_tokens;
  EndAt(r, q.max_tokens, q.output_tokens);
  slot_of_.Insert(q.id.value(), slot);
  waiting_.push_back(slot);
  return {};
}

void SglangCore::EndAt(Request& r, int64_t max_tokens, int64_t output_tokens) const {
  r.max_new = std::max<int64_t>(1, std::min(max_tokens, LongestRequest() - r.prompt - 1));
  r.ends_by_eos = config_.stop_at_eos && output_tokens >= 1 && output_tokens <= r.max_new;
  r.ends_at = r.ends_by_eos ? output_tokens : r.max_new;
}

bool SglangCore::SetLength(RequestId request, int64_t max_tokens, int64_t output_tokens) {
  const Slot* found = slot_of_.Find(request.value());
  if (found == nullptr) return false;
  EndAt(requests_[*found], max_tokens, output_tokens);
  return true;
}

bool SglangCore::Abort(RequestId request) {
  const Slot* found = slot_of_.Find(request.value());
  if (found == nullptr) return false;
  const Slot slot = *found;
  if (std::find(waiting_.begin(), waiting_.end(), slot) == waiting_.end())
    batch_is_full_ = false;  // it leaves the running ones
  const auto gone = [slot](auto& list) { list.erase(std::remove(list.begin(), list.end(), slot), list.end()); };
  gone(waiting_);
  gone(running_);
  gone(prefilling_);
  gone(chunked_);
  for (Slot& s : batch_slots_)
    if (s == slot) s = kNoSlot;
  Release(requests_[slot]);
  Forget(slot);
  return true;
}

int32_t SglangCore::running() const { return static_cast<int32_t>(running_.size() + prefilling_.size() + chunked_.size()); }

void SglangCore::EvictFor(int64_t tokens) {
  if (available_ >= tokens) return;
  const int64_t gone = cache_.Evict(tokens - available_);
  available_ += gone;
  batch_.evicted += static_cast<int32_t>(gone);
}

// Its computed tokens become the cache's; what another request put there meanwhile is held twice until now and freed here.
void SglangCore::MoveToCache(Request& r) {
  if (!config_.prefix_caching || r.computed == 0) return;
  const TokenRuns key = r.content.Slice(0, r.computed);
  const int64_t there_before = cache_.Insert(key);
  available_ += std::max<int64_t>(there_before - r.prefix, 0);
  const SglangRadixCache::Match match = cache_.MatchPrefix(key);
  FT_CHECK(match.tokens == r.computed);
  cache_.Lock(match.node);
  cache_.Unlock(r.node);
  r.own -= r.computed - r.prefix;
  r.prefix = r.computed;
  r.node = match.node;
}

void SglangCore::Release(Request& r) {
  MoveToCache(r);
  Drop(r);
}

void SglangCore::Drop(Request& r) {
  cache_.Unlock(r.node);
  available_ += r.own;
  r.node = SglangRadixCache::kRoot;
  r.prefix = r.own = r.computed = 0;
}

void SglangCore::Forget(Slot slot) {
  slot_of_.Erase(requests_[slot].id.value());
  requests_[slot] = Request{};
  unused_.push_back(slot);
}

Snapshot SglangCore::TakeSnapshot(bool) const {
  Snapshot snapshot;
  const auto add = [this](std::vector<Snapshot::Request>& list, Slot slot) {
    const Request& r = requests_[slot];
    list.push_back({r.id, static_cast<int32_t>(r.prompt), static_cast<int32_t>(r.prefix + r.own),
                    static_cast<int32_t>(r.output), r.cached});
  };
  for (const Slot slot : running_) add(snapshot.running, slot);
  for (const Slot slot : prefilling_) add(snapshot.running, slot);
  for (const Slot slot : chunked_) add(snapshot.running, slot);
  for (const Slot slot : waiting_) add(snapshot.waiting, slot);
  snapshot.free_blocks = free_blocks();
  snapshot.total_blocks = usable_blocks();
  return snapshot;
}

Status SglangCore::CheckInvariants() const {
  if (Status s = cache_.CheckInvariants(); !s.ok()) return s;
  int64_t own = 0;
  size_t alive = 0;
  for (const Request& r : requests_) {
    own += r.own;
    alive += r.alive;
    if (r.own < 0 || r.computed > r.prefix + r.own) return Error{"a request computed more than it holds"};
  }
  if (available_ < 0 || available_ + cache_.tokens() + own != usable_blocks())
    return Error{"tokens of the pool: " + std::to_string(available_) + " free + " + std::to_string(cache_.tokens()) +
                 " cached + " + std::to_string(own) + " of requests are not " + std::to_string(usable_blocks())};
  if (alive != waiting_.size() + static_cast<size_t>(running()) || alive != slot_of_.size())
    return Error{"a request is in no queue, or in two"};
  if (chunked_.size() > 1) return Error{"more than one chunked request"};
  for (const Slot slot : waiting_)
    if (requests_[slot].own != 0 || requests_[slot].prefix != 0) return Error{"a waiting request holds tokens"};
  return {};
}

}  // namespace foretoken
