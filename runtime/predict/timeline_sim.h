// TimelineSim: an engine's future from one point on, knowing per request only its remaining prefill, its expected remaining
// output and its context. It composes batches by the engine's rules (decodes first, then partial prefills in order, then the
// waiting queue under the token, sequence and KV limits; preemption of the last admitted) and jumps over runs of identical
// decode steps in closed form. It keeps no KV blocks and no hashes: KV is counted in blocks per request.
// All arithmetic of time is exact (step_clock.h), so a state reached by jumps equals the one reached step by step.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/engine/engine_config.h"
#include "runtime/predict/mirror_request.h"
#include "runtime/predict/step_clock.h"

namespace foretoken {

// Where a request is in its life, as its index in the table of mirrored requests.
using Slot = uint32_t;

struct TimelineState {
  // A request past its prefill. Its context at the step with index s, the new token included, is base_ctx + s.
  struct Decode {
    int32_t finish = 0;  // index of the step that yields its last token
    int32_t base_ctx = 0;
    Slot slot = 0;
    uint32_t admit = 0;  // order of admission: preemption takes the highest
  };
  // Admitted, with prompt tokens still to compute. Those with chunk > 0 are part of the step being composed.
  struct Prefill {
    Slot slot = 0;
    int32_t computed = 0;
    int32_t target = 0;     // prompt, plus what was generated before a preemption
    int32_t generated = 0;  // before this prefill
    int32_t chunk = 0;      // in the step being composed
    uint32_t admit = 0;
  };
  // Preempted: waits in front of the queue to compute its context again.
  struct Requeued {
    Slot slot = 0;
    int32_t generated = 0;
    int64_t evict_from = 0;  // value of `tokens_taken` from which its own cached blocks begin to be lost
  };

  int32_t step = 0;             // index of the step being composed
  Ticks time = 0;               // when its predecessor ends, relative to the mirror's head
  Ticks prev_time = 0;          // when the one before that ends: asynchronous engines compose then
  std::vector<Decode> decodes;  // by finish, ascending, from `front`
  uint32_t front = 0;
  std::vector<Prefill> prefills;   // in order of admission
  std::vector<Requeued> requeued;  // the last one is next
  uint32_t cursor = 0;             // next in the waiting queue
  uint32_t next_admit = 0;
  int64_t kv = 0;            // sum of the decodes' contexts at `step`, new tokens included
  int64_t prefill_kv = 0;    // sum of the prefills' computed tokens, this step's chunks included
  int64_t chunk_tokens = 0;  // of the step being composed
  int64_t chunk_ctx = 0;     // sum of chunk * computed before it
  int32_t chunks = 0;
  int32_t budget = 0;   // tokens left in the step being composed
  int32_t zombies = 0;  // asynchronous: ended in the step before, still holding their place
  int64_t zombie_blocks = 0;
  int64_t zombie_kv = 0;     // their contexts in the step being composed, should they compute one token in vain
  int64_t tokens_taken = 0;  // KV tokens written since the head: tells the fate of preempted requests' cached blocks
  int64_t peak_tokens = 0;   // upper bound of the KV ever used on the way here, in tokens
  bool preempted = false;    // the step being composed preempted: it admits nothing
  bool kv_bound = false;     // a decision on the way here depended on the number of free blocks

  int32_t decoding() const { return static_cast<int32_t>(decodes.size() - front); }
  int32_t running() const { return decoding() + static_cast<int32_t>(prefills.size()); }
  // Copies without the decodes that are through; reuses this state's memory.
  void CopyFrom(const TimelineState& o);
  size_t memory_bytes() const;
};

// The arrivals to be expected while a tracked request decodes, as a flow: each brings a prefill, then decodes for a while.
struct ExpectedArrivals {
  double per_tick = 0;        // 0: none
  double stretch = 1;         // of all time, by the share that their prefills take
  double seq_ticks = 0;       // that one more decode adds to a step, apart from its context
  double context_tokens = 0;  // mean context of one
  double output_tokens = 0;   // how many steps one stays
};

// What is asked of a run about one request (the last in the queue).
struct TimelineTrack {
  Slot slot = 0;
  bool others = false;  // also what it costs everybody else

  Ticks first = 0;  // end of the step with its first token
  Ticks end = 0;
  Ticks asked = 0;  // when it was asked for
  Ticks drag = 0;   // by how much expected arrivals delay it: not part of the times above
  Ticks last_token = 0;
  Ticks longest_gap = 0;
  int64_t least_free_tokens = 0;  // of KV, over its stay; negative: it was preempted
  int32_t generated = 0;
  bool admitted = false;
  bool decoding = false;
  bool preempted = false;
  bool done = false;
  bool gave_up = false;  // past the bound on events: `end` is extrapolated at the last step's pace
  int32_t base_ctx = 0;  // while decoding
  // The same future without it.
  Ticks lost = 0;         // how far behind that future the present one is
  Ticks others_lost = 0;  // sum over the others of the delay of their ends
  double others_violations = 0;
};

// Judges what a delay does to another request's targets.
class TimelineJudge {
 public:
  virtual ~TimelineJudge() = default;
  // Change of P(violation) of `slot` when its end moves from `end` by `lost` (ticks from the head).
  virtual double ViolationAdded(Slot slot, Ticks end, Ticks lost) const = 0;
};

class TimelineSim {
 public:
  // What does not change during a run.
  struct World {
    const EngineConfig* limits = nullptr;
    StepClock* clock = nullptr;
    const MirrorRequest* requests = nullptr;
    const Slot* waiting = nullptr;
    uint32_t waiting_size = 0;
    int64_t head_ns = 0;
    Ticks latest_ready = 0;  // by then every waiting request is there
    ExpectedArrivals arrivals;
    int64_t usable_blocks = 0;
    const TimelineJudge* judge = nullptr;
    // Derived from `limits` once, since divisions are what such a run would spend its time on.
    int32_t block_shift = -1;  // log2 of the block size; negative: not a power of two
    int32_t most_seqs = 0;
    int64_t watermark = 0;
  };

  TimelineSim(const World& world, TimelineState& state)
      : w_(world), s_(state), limits_(*world.limits), usable_tokens_(world.usable_blocks * world.limits->block_size) {}

  // Starts composing step `step`: gives decodes and partial prefills their tokens, preempts when KV is short.
  void Begin();
  // Adds waiting requests to the step being composed, as far as they are there by then and fit.
  void Admit();
  // Begin and Admit, skipping idle time. False: nothing left to run.
  bool ComposeNext();
  // Executes the composed step, or a run of identical decode steps. False: idle for ever.
  bool Execute(TimelineTrack* track, int64_t most_steps = int64_t{1} << 30);
  // Until the queue is empty: the state stays open, more can still join the step being composed.
  void RunUntilQueueEmpty();
  // Until the tracked request ends, or `most_events` runs were executed.
  void RunUntilEnd(TimelineTrack& track, int32_t most_events);

  // Of the step being composed.
  Ticks StepDuration() const;
  Ticks ComposeTime() const { return limits_.async_scheduling ? s_.prev_time : s_.time; }
  // Blocks used by the step being composed, exactly.
  int64_t UsedBlocks(int64_t steps_ahead = 0) const;
  static void InsertDecode(TimelineState& state, const TimelineState::Decode& d);

 private:
  enum class Block : uint8_t { kNone, kEmpty, kReady, kSequences, kKv, kBudget };
  struct Candidate {
    Slot slot = 0;
    int32_t cached = 0;
    int32_t target = 0;
    int32_t generated = 0;
  };

  int32_t Chunk(int64_t remaining) const;
  Candidate Next() const;
  Ticks ReadyAt(Slot slot) const { return TicksOf(Duration::Nanos(w_.requests[slot].ready_ns - w_.head_ns)); }
  // An asynchronous engine learns of an end-of-sequence token one batch late: those that ended compute once more.
  int32_t Wasted() const { return limits_.async_scheduling && limits_.stop_at_eos ? s_.zombies : 0; }
  StepShape Shape() const;
  void ClearZombies();
  void AddZombie(int64_t context);
  int64_t BlocksOf(int64_t tokens) const {
    const int64_t up = tokens + limits_.block_size - 1;
    return w_.block_shift >= 0 ? up >> w_.block_shift : up / limits_.block_size;
  }
  // Upper bound of the KV used, in tokens, were every request's last block nearly empty.
  int64_t UsedTokensAtMost() const {
    return s_.kv + s_.prefill_kv + (limits_.block_size - 1) * static_cast<int64_t>(s_.running()) +
           s_.zombie_blocks * limits_.block_size;
  }
  // Whether `tokens` more, and `blocks` besides, find room.
  bool Fits(int64_t tokens, int64_t blocks);
  void GiveChunks();
  void Join(const Candidate& c, int32_t chunk);
  bool Cycle();
  void CyclePrefill(uint32_t end, int64_t chunk_tokens, int64_t chunk_ctx);
  void FreeShortage();
  void PreemptLast();
  template <bool kTracked>
  void ExecuteMixed(TimelineTrack* track);
  template <bool kTracked>
  void ExecuteRun(TimelineTrack* track, int64_t most_steps);
  bool SkipIdle();
  template <bool kTracked>
  int64_t RunLength(const TimelineTrack* track, const StepClock::Piece& piece, int64_t most_steps);
  int64_t StepsUntil(const StepClock::Piece& piece, Ticks ready, int64_t limit) const;
  int64_t StepsBeforeShortage(int64_t limit);
  template <bool kTracked>
  void FinishPrefills(TimelineTrack* track);
  template <bool kTracked>
  void FinishDecodes(TimelineTrack* track);
  // Decodes alone, with nobody left to join: timeline_tail.cc. Returns the number of runs executed.
  bool InTail(const TimelineTrack& track) const;
  int32_t RunTail(TimelineTrack& track, int32_t most_events);
  template <bool kOthers>
  int32_t RunTail(TimelineTrack& track, int32_t most_events);
  template <bool kOthers>
  int64_t TailLength(const TimelineTrack& track, const StepClock::Piece& piece) const;
  template <bool kOthers>
  void EndTailDecodes(TimelineTrack& track);
  void OtherEnded(Slot slot, TimelineTrack& track);
  void TrackEnded(TimelineTrack& track);
  void NoteFree(TimelineTrack& track);
  void AddDrag(Ticks duration, int64_t steps, Ticks kv_token, TimelineTrack& track) const;

  const World& w_;
  TimelineState& s_;
  const EngineConfig& limits_;
  int64_t usable_tokens_;
  Block blocked_ = Block::kNone;
  TimelineTrack* track_ = nullptr;
};

}  // namespace foretoken
