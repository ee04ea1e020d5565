// VllmCore: vLLM V1's scheduler and KV cache manager (decoder-only, one KV group), decision for decision and block for block
// (vllm-scheduler.md; the executable specification is spec/refsim.py). Not modelled: speculative decoding, LoRA, KV connectors,
// sliding windows, pipeline parallelism beyond two batches in flight.
//
// Two ways to drive it, which may alternate and take the same decisions:
//  * Schedule() / Update(): every item is listed; each step costs O(running).
//  * ScheduleSummary() / UpdateSummary(): decodes are implied. Running requests that do nothing but decode ("steady") are not
//    touched between their events - a new KV block every block_size tokens, their last token: their counters are functions of
//    the number of steady batches scheduled and updated since they joined. A step costs O(what changes).
// Steady mode is left (Settle) whenever a rule needs the requests one by one: a shortage of blocks or budget, an explicit call.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/engine/engine_core.h"
#include "runtime/engine/kv_block_pool.h"
#include "runtime/engine/scheduled_request.h"
#include "runtime/engine/steady_calendar.h"

namespace foretoken {

class VllmCore final : public EngineCore {
 public:
  static Result<std::unique_ptr<EngineCore>> Make(const EngineConfig& config);
  static Result<std::unique_ptr<EngineCore>> Restore(const EngineConfig& config, const Snapshot& snapshot,
                                                     std::span<const EngineRequest> requests);

  const EngineConfig& config() const override { return config_; }
  Status Add(const EngineRequest& request) override;
  bool Abort(RequestId request) override;
  bool SetLength(RequestId request, int64_t max_tokens, int64_t output_tokens) override;
  bool HasRequests() const override;
  const Batch& Schedule() override;
  const BatchResult& Update() override;
  const BatchSummary& ScheduleSummary() override;
  const BatchResult& UpdateSummary() override;
  int32_t batches_in_flight() const override { return in_flight_; }
  int32_t running() const override { return running_.size; }
  int32_t waiting() const override { return waiting_.size + skipped_.size; }
  int64_t free_blocks() const override { return pool_.free(); }
  int64_t CachedBlocks(std::span<const BlockHash> hashes) const override;
  int64_t usable_blocks() const override { return pool_.usable(); }
  void SetRecordBlocks(bool on) override { record_blocks_ = on; }
  std::unique_ptr<EngineCore> Clone() const override;
  Snapshot TakeSnapshot(bool exact) const override;
  Status CheckInvariants() const override;

 private:
  struct Item {
    Slot slot = kNoSlot;
    uint32_t generation = 0;
    int32_t tokens = 0;
    int64_t computed = 0;
    int64_t first_new_block = 0;  // position in the request's blocks
    uint64_t rank = 0;
    bool admission = false;
    bool prefill = false;
    bool samples = false;
  };
  // A batch from Schedule() to Update().
  struct BatchInFlight {
    Batch batch;
    std::vector<Item> items;  // of a steady batch: those that are not steady decodes; in rank order
    BatchSummary summary;     // by ScheduleSummary()
    bool steady = false;
    int64_t steady_index = 0;
    int64_t steady_alive = 0;  // steady decodes in it whose request has not ended since
  };

  explicit VllmCore(const EngineConfig& config);

  // --- queues (vllm_core.cc)
  void EndAt(ScheduledRequest& r, int64_t max_tokens, int64_t output_tokens) const;
  bool Before(const ScheduledRequest& a, const ScheduledRequest& b) const;  // priority order
  void PushWaiting(RequestQueue& queue, Slot slot, bool front);
  RequestQueue& NextQueue();
  RequestQueue& QueueOf(Slot slot);

  // --- KV (vllm_kv.cc)
  int64_t BlocksOf(int64_t tokens) const { return (tokens + config_.block_size - 1) / config_.block_size; }
  void HashUpTo(ScheduledRequest& r, int64_t blocks);
  void CacheUpTo(ScheduledRequest& r, int64_t tokens);
  void Lookup(ScheduledRequest& r);                                // into hits_
  bool Allocate(ScheduledRequest& r, int64_t tokens, bool admit);  // with hits_ when admit
  void FreeBlocks(ScheduledRequest& r);
  void MakeFindable(ScheduledRequest& r);

  // --- schedule (vllm_schedule.cc)
  int64_t PrefillThreshold() const;
  bool DeferPrefills() const;
  BatchInFlight& OpenBatch();
  BatchInFlight& InFlightAt(int32_t i) { return ring_[(first_ + i) % kMaxInFlight]; }
  int64_t TokensWanted(const ScheduledRequest& r, int64_t threshold, int64_t budget) const;
  Slot PickVictim() const;
  void Preempt(Slot victim, BatchInFlight& b);
  void ScheduleRunning(BatchInFlight& b, int64_t threshold, bool defer, int64_t& budget);
  void AdmitWaiting(BatchInFlight& b, int64_t threshold, bool defer, int64_t& budget);
  bool StillBlocked(Slot head, int64_t threshold, int64_t budget) const;
  bool AdmitHead(BatchInFlight& b, RequestQueue& queue, int64_t threshold, bool defer, int64_t& budget);
  void CommitItems(BatchInFlight& b);
  void Describe(BatchInFlight& b);
  void End(Slot slot);
  void ApplyItem(const Item& item);
  void FinishSchedule(BatchInFlight& b);
  void OpenResult();
  void CloseBatch();

  // --- steady decode (vllm_steady.cc)
  int64_t SteadyUntil(const ScheduledRequest& r) const { return r.left ? r.leaves_at : steady_scheduled_; }
  int64_t SteadyComputed(const ScheduledRequest& r) const { return r.computed + SteadyUntil(r) - r.joined; }
  int64_t SteadyUpdated(const ScheduledRequest& r) const;
  int64_t NextCrossing(const ScheduledRequest& r) const;
  bool ScheduleSteady(BatchInFlight& b, int64_t threshold, int64_t& budget);
  void RefreshLoose();
  void JoinSteady(Slot slot);
  void LeaveSteady(Slot slot);  // its last token is in flight
  void MaterialiseSteady(ScheduledRequest& r);
  void DropSteady(Slot slot);  // ends, or goes back to being stepped one by one
  void NoteEvents(Slot slot, int64_t from, int64_t until);
  bool PlanLoose(int64_t threshold, int64_t budget, int64_t& blocks);
  void TakeLeavers();
  void AllocateSteady(BatchInFlight& b);
  void ListSteadyItems(BatchInFlight& b);
  void Settle();
  void FillSummary(BatchInFlight& b);
  void ListSkipped(BatchInFlight& b);

  // --- snapshots (vllm_snapshot.cc)
  Snapshot::Request Progress(const ScheduledRequest& r) const;
  std::vector<Slot> WaitingOrder() const;
  Snapshot::RequestBlocks Detail(const ScheduledRequest& r, bool skipped) const;
  Snapshot::Exact ExactState() const;
  Status RestoreRequest(const Snapshot::RequestBlocks& d, const EngineRequest& q, const Snapshot::Request& progress,
                        bool running);
  Status RestoreInFlight(const Snapshot::Exact& e);

  static constexpr int32_t kMaxInFlight = 4;

  EngineConfig config_;
  int64_t watermark_blocks_ = 0;
  int32_t max_active_ = 0;
  KvBlockPool pool_;
  RequestSlab slab_;
  RequestQueue running_;  // admission order
  RequestQueue waiting_;
  RequestQueue skipped_;  // asynchronous: preempted with a stale output in flight
  bool finish_pending_ = false;
  bool record_blocks_ = false;
  uint64_t next_rank_ = 1;
  uint64_t next_index_ = 0;

  // Prefill cadence (prefill_schedule_interval).
  int64_t executed_ = 0;
  int64_t last_prefill_ = 0;
  bool capacity_bound_ = false;

  std::vector<BatchInFlight> ring_;  // kMaxInFlight of them; oldest at first_
  int32_t first_ = 0;
  int32_t in_flight_ = 0;
  BatchResult result_;
  bool touched_prefill_ = false;  // the batch being composed holds prefill work
  bool list_sampled_ = true;      // the update under way lists every request that got a token

  // Steady decode. Counts of steady batches scheduled and updated; both only grow.
  int64_t steady_scheduled_ = 0;
  int64_t steady_updated_ = 0;
  int64_t steady_members_ = 0;   // left ones included
  int64_t steady_decodes_ = 0;   // members that the next batch gives a token
  int64_t steady_kv_ = 0;        // sum of their computed tokens
  int64_t steady_findable_ = 0;  // members whose new blocks others may look up
  SteadyCalendar crossings_;     // needs a new block
  SteadyCalendar leavings_;
  SteadyCalendar endings_;
  // Running requests that are not steady, in running order; rebuilt when it may be wrong.
  std::vector<Slot> loose_;
  bool loose_stale_ = true;
  // The waiting head that found too few free blocks, and all that its answer depended on besides requests that give blocks back
  // or are admitted (which forget it): looking again would find the same.
  struct BlockedHead {
    Slot slot = kNoSlot;
    int64_t known_tokens = 0;
    int64_t threshold = 0;
    int64_t budget = 0;
    int64_t free = 0;
    uint64_t index_version = 0;
  };
  BlockedHead blocked_;
  // Scratch, kept for its capacity.
  std::vector<uint32_t> hits_;
  std::vector<Slot> skip_;
  struct Work {
    uint64_t rank = 0;
    Slot slot = kNoSlot;
    int64_t tokens = 0;  // 0: a steady decode
  };
  std::vector<Work> work_;
  SteadyCalendar::Due passed_over_;
  SteadyCalendar::Due ending_;
  std::vector<Item> merged_;
};

}  // namespace foretoken
