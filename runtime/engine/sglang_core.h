// SglangCore: SGLang's scheduler (other-engines.md, 3.1) behind EngineCore, one decision at a time.
//
// Modelled: prefill first - while a prefill batch can be built it runs alone and every decode stalls; the chunk budget per step
// and one chunked request in flight, which is continued first; admission by estimated total tokens, with a new-token ratio that
// decays as decode steps go by and jumps after a retraction; retraction when a decode step does not fit; a radix cache at page
// size 1 with locks and LRU over leaves; first come, first served.
// Refused: block_size other than 1, priority scheduling, asynchronous (overlap) scheduling, and vLLM's own rules
// (long-prefill thresholds, watermark, max_num_active_seqs, prefill_schedule_interval). Not modelled, without an option to ask for
// it: mixed chunks, longest-prefix-match order, data parallelism.
//
// EngineConfig in SGLang's terms: max_num_batched_tokens = chunked_prefill_size, max_num_seqs = max_running_requests,
// num_gpu_blocks - 1 = the token pool (its slot 0 is for padding, as vLLM's block 0), max_model_len = context length,
// prefix_caching = radix cache. "Free blocks" are tokens free or evictable. Snapshots are light ones.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/engine/engine_core.h"
#include "runtime/engine/sglang_radix_cache.h"

namespace foretoken {

// SGLang's constants (its defaults).
inline constexpr int64_t kSglangMaxPrefillTokens = 16384;  // max_prefill_tokens, of one prefill batch
inline constexpr int64_t kSglangNewTokensClip = 4096;      // an estimate reserves no more output than this
inline constexpr double kSglangRatioInitial = 0.7;         // new-token ratio at conservativeness 1
inline constexpr double kSglangRatioMinimum = 0.7 * 0.14;
inline constexpr double kSglangRatioDecay = (kSglangRatioInitial - kSglangRatioMinimum) / 600;  // per decode step
inline constexpr int64_t kSglangRetractSteps = 20;  // decode steps that the estimate after a retraction looks ahead

class SglangCore final : public EngineCore {
 public:
  // Error: names an option that is refused, or an impossible limit.
  static Result<std::unique_ptr<EngineCore>> Make(const EngineConfig& config);

  const EngineConfig& config() const override { return config_; }
  // Error also when prompt and one output token cannot fit the pool. max_tokens is cut to what fits, as SGLang's front end does.
  Status Add(const EngineRequest& request) override;
  bool Abort(RequestId request) override;
  bool SetLength(RequestId request, int64_t max_tokens, int64_t output_tokens) override;
  bool HasRequests() const override { return running() + waiting() > 0 || !aborted_.empty(); }
  const Batch& Schedule() override;
  const BatchResult& Update() override;
  const BatchSummary& ScheduleSummary() override;
  int32_t batches_in_flight() const override { return in_flight_ ? 1 : 0; }
  int32_t running() const override;
  int32_t waiting() const override { return static_cast<int32_t>(waiting_.size()); }
  // Its cache is a tree of tokens, which hashes of blocks do not name.
  int64_t CachedBlocks(std::span<const BlockHash>) const override { return 0; }
  int64_t free_blocks() const override { return available_ + cache_.evictable(); }
  int64_t usable_blocks() const override { return config_.num_gpu_blocks - 1; }
  void SetRecordBlocks(bool) override {}  // tokens of the pool have no ids here
  std::unique_ptr<EngineCore> Clone() const override { return std::unique_ptr<EngineCore>(new SglangCore(*this)); }
  Snapshot TakeSnapshot(bool exact) const override;
  Status CheckInvariants() const override;

  double new_token_ratio() const { return new_token_ratio_; }
  // Set by an admission that did not fit; no prefill batch is built until a request leaves the running ones.
  bool batch_is_full() const { return batch_is_full_; }
  int64_t cached_tokens() const { return cache_.tokens(); }

 private:
  using Slot = uint32_t;
  static constexpr Slot kNoSlot = ~Slot{0};
  struct Request {
    RequestId id;
    TokenRuns content;  // prompt, then output
    int64_t prompt = 0;
    int64_t output = 0;
    int64_t max_new = 0;
    int64_t ends_at = 0;  // output tokens
    bool ends_by_eos = false;
    bool retracted = false;
    int32_t cached = 0;                                     // prefix hit at its first admission
    SglangRadixCache::Node node = SglangRadixCache::kRoot;  // end of its locked prefix
    int64_t prefix = 0;                                     // tokens of it
    int64_t own = 0;                                        // tokens of the pool behind it, those being computed included
    int64_t computed = 0;                                   // <= prefix + own: results are in
    bool alive = false;

    int64_t length() const { return prompt + output; }
  };
  // Budgets of the prefill batch being built (SGLang's PrefillAdder).
  struct Budget {
    double reserved = 0;  // tokens that the running ones and the batch so far are expected to take
    int64_t input = kSglangMaxPrefillTokens;
    int64_t chunk = 0;  // left of the step's chunk budget
    void Spend(int64_t extend, int64_t max_new) {
      reserved += static_cast<double>(extend + max_new);
      input -= extend;
      chunk -= extend;
    }
  };
  enum class Verdict : uint8_t { kTaken, kNoToken, kOtherLimit };

  explicit SglangCore(const EngineConfig& config);
  // SGLang: max_req_len; a request and the page of its estimate always fit an empty pool.
  int64_t LongestRequest() const { return std::min(config_.max_model_len, usable_blocks()) - 1; }
  void EndAt(Request& r, int64_t max_tokens, int64_t output_tokens) const;

  // --- prefill
  bool BuildPrefill();
  void ContinueChunk(Budget& budget);
  Verdict TryAdmit(Slot slot, Budget& budget);
  Verdict BudgetLeft(const Budget& budget) const;
  double RemainingTokens(const Budget& budget) const {
    return static_cast<double>(available_ + cache_.evictable()) - budget.reserved;
  }
  void Take(Slot slot, int64_t tokens, bool samples);
  // --- decode
  void BuildDecode();
  bool FitsDecode(size_t requests);
  void Retract();
  // --- a request's tokens
  void MoveToCache(Request& r);
  void Release(Request& r);  // its computed tokens stay in the cache, evictable
  void Drop(Request& r);     // what is not in the cache is gone
  bool Sample(Slot slot);    // true: it has ended
  void EvictFor(int64_t tokens);
  void Forget(Slot slot);

  EngineConfig config_;
  std::vector<Request> requests_;
  std::vector<Slot> unused_;
  IdMap<Slot> slot_of_;
  std::deque<Slot> waiting_;
  std::vector<Slot> running_;                // decoding, in SGLang's batch order
  std::vector<Slot> prefilling_;             // in the batch in flight and past their prompt with it
  std::vector<Slot> chunked_;                // at most one: its prompt goes on in the next prefill batch
  std::vector<BatchTrace::Finish> aborted_;  // given up by the engine: told with the next update
  SglangRadixCache cache_;
  int64_t available_ = 0;  // tokens of the pool that hold nothing
  double new_token_ratio_ = kSglangRatioInitial;
  bool batch_is_full_ = false;
  bool in_flight_ = false;
  uint64_t next_index_ = 0;
  Batch batch_;
  std::vector<Slot> batch_slots_;  // parallel to batch_.items
  BatchResult result_;
  BatchSummary summary_;
};

Result<std::unique_ptr<EngineCore>> MakeSglangCore(const EngineConfig& config);

}  // namespace foretoken
