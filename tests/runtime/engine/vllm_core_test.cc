// VllmCore's rules one by one, each on the smallest case that shows it (vllm-scheduler.md, "Rules most often coded wrongly" first),
// and its invariants over random runs. Blocks hold 4 tokens; block ids start at 1.
#include "runtime/engine/vllm_core.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "tests/runtime/engine/engine_cases.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using Blocks = std::vector<uint32_t>;

class VllmCoreTest : public ::testing::Test {
 protected:
  VllmCoreTest() {
    config_.block_size = 4;
    config_.num_gpu_blocks = 101;
    config_.max_num_batched_tokens = 256;
    config_.max_num_seqs = 16;
  }
  void Start() {
    auto made = MakeEngineCore(config_);
    ASSERT_TRUE(made.ok()) << made.error().message;
    core_ = std::move(made).value();
    core_->SetRecordBlocks(true);
  }
  struct Extra {
    int32_t priority = 0;
    double arrival = 0;
    std::vector<PromptSegment> segments = {};
  };
  Status Add(uint64_t id, int64_t prompt, int64_t output) { return Add(id, prompt, output, Extra{}); }
  Status Add(uint64_t id, int64_t prompt, int64_t output, Extra extra) {
    EngineRequest q;
    q.id = RequestId(id);
    q.prompt_tokens = prompt;
    q.output_tokens = output;
    q.max_tokens = config_.stop_at_eos ? config_.max_model_len : output;
    q.priority = extra.priority;
    q.arrival_key = extra.arrival;
    q.segments = std::move(extra.segments);
    return core_->Add(q);
  }
  static PromptSegment Shared(int64_t length) { return {uint64_t{1} << 40, TokenCount(length)}; }

  Batch Schedule() {
    Batch b = core_->Schedule();
    const Status ok = core_->CheckInvariants();
    EXPECT_TRUE(ok.ok()) << ok.error().message;
    return b;
  }
  BatchResult Update() {
    BatchResult r = core_->Update();
    const Status ok = core_->CheckInvariants();
    EXPECT_TRUE(ok.ok()) << ok.error().message;
    return r;
  }
  Batch Step() {
    Batch b = Schedule();
    Update();
    return b;
  }
  void StepUntilEnd(uint64_t id) {
    for (int i = 0; i < 1000; ++i) {
      Schedule();
      for (const auto& f : Update().finished)
        if (f.request == RequestId(id)) return;
    }
    FAIL() << "request " << id << " does not end";
  }
  // Tokens per request of a batch.
  static std::map<uint64_t, int32_t> Tokens(const Batch& b) {
    std::map<uint64_t, int32_t> out;
    for (const ScheduledItem& i : b.items) out[i.request.value()] = i.tokens;
    return out;
  }
  static Blocks NewBlocks(const Batch& b, uint64_t id) {
    for (const auto& [request, blocks] : b.new_blocks)
      if (request == RequestId(id)) return blocks;
    return {};
  }
  static std::vector<uint64_t> Ids(const std::vector<RequestId>& ids) {
    std::vector<uint64_t> out;
    for (const RequestId id : ids) out.push_back(id.value());
    return out;
  }
  Blocks FreeList() { return core_->TakeSnapshot(true).exact->free_list; }
  Blocks FreeFront(size_t n) {
    Blocks list = FreeList();
    list.resize(std::min(n, list.size()));
    return list;
  }
  Blocks FreeBack(size_t n) {
    const Blocks list = FreeList();
    return Blocks(list.end() - static_cast<std::ptrdiff_t>(n), list.end());
  }
  std::vector<uint64_t> WaitingIds() {
    std::vector<uint64_t> out;
    for (const auto& r : core_->TakeSnapshot(false).waiting) out.push_back(r.request.value());
    return out;
  }

  EngineConfig config_;
  std::unique_ptr<EngineCore> core_;
};

TEST_F(VllmCoreTest, UnhashedBlocksGoToTheFrontHashedToTheBackLastBlockFirst) {
  Start();
  ASSERT_TRUE(Add(1, 10, 1).ok());  // blocks 1 2 (full) and 3 (half)
  Step();
  EXPECT_EQ(FreeFront(2), (Blocks{3, 4}));
  EXPECT_EQ(FreeBack(3), (Blocks{100, 2, 1}));
}

TEST_F(VllmCoreTest, WithoutCachingFreedBlocksAreReusedFirstLastBlockFirst) {
  config_.prefix_caching = false;
  Start();
  ASSERT_TRUE(Add(1, 10, 1).ok());
  Step();
  EXPECT_EQ(FreeFront(4), (Blocks{3, 2, 1, 4}));
}

TEST_F(VllmCoreTest, OlderVersionsAppendAllFreedBlocks) {
  config_.free_list = FreeListRule::kAppend;
  Start();
  ASSERT_TRUE(Add(1, 10, 1).ok());
  Step();
  EXPECT_EQ(FreeFront(1), (Blocks{4}));
  EXPECT_EQ(FreeBack(3), (Blocks{3, 2, 1}));
}

TEST_F(VllmCoreTest, HashesAreRegisteredWhenBlocksAreAllocatedSoTheSameStepHits) {
  Start();
  ASSERT_TRUE(Add(1, 9, 1, {.segments = {Shared(9)}}).ok());
  ASSERT_TRUE(Add(2, 9, 1, {.segments = {Shared(9)}}).ok());
  const Batch b = Step();
  EXPECT_EQ(b.admitted[0].cached, 0);
  EXPECT_EQ(b.admitted[1].cached, 8);  // blocks that request 1 computes in this very step
  EXPECT_EQ(NewBlocks(b, 2), (Blocks{1, 2, 4}));
}

TEST_F(VllmCoreTest, FullyCachedPromptStillComputesItsLastBlock) {
  Start();
  ASSERT_TRUE(Add(1, 16, 1, {.segments = {Shared(16)}}).ok());
  Step();
  ASSERT_TRUE(Add(2, 16, 1, {.segments = {Shared(16)}}).ok());
  const Batch b = Step();
  ASSERT_EQ(b.admitted.size(), 1u);
  EXPECT_EQ(b.admitted[0].cached, 12);
  EXPECT_EQ(Tokens(b)[2], 4);
}

TEST_F(VllmCoreTest, DuplicateBlocksAreNotMergedAndTheOldestIsFound) {
  Start();
  ASSERT_TRUE(Add(1, 8, 4, {.segments = {Shared(8)}}).ok());
  ASSERT_TRUE(Add(2, 8, 4, {.segments = {Shared(8)}}).ok());
  const Batch b = Step();
  EXPECT_EQ(NewBlocks(b, 1), (Blocks{1, 2}));
  EXPECT_EQ(NewBlocks(b, 2), (Blocks{1, 3}));  // its second block is a duplicate of block 2 from now on
  ASSERT_TRUE(Add(3, 9, 1, {.segments = {Shared(8), {PrivateContent(RequestId(3)), TokenCount(1)}}}).ok());
  EXPECT_EQ(NewBlocks(Step(), 3), (Blocks{1, 2, 6}));
  size_t same = 0;
  const Snapshot s = core_->TakeSnapshot(true);
  BlockHash second;
  for (const auto& [block, hash] : s.exact->hashed_blocks)
    if (block == 2) second = hash;
  for (const auto& [block, hash] : s.exact->hashed_blocks) same += hash == second ? 1 : 0;
  EXPECT_EQ(same, 2u);
}

TEST_F(VllmCoreTest, FreeHitsCountAgainstFreeSpace) {
  config_.num_gpu_blocks = 7;  // 6 usable
  Start();
  ASSERT_TRUE(Add(1, 9, 1, {.segments = {Shared(9)}}).ok());
  Step();                          // leaves 2 hashed blocks, all 6 free
  ASSERT_TRUE(Add(2, 7, 8).ok());  // takes 2 of the 4 that are not hashed
  Step();
  EXPECT_EQ(core_->free_blocks(), 4);
  // Needs 5 blocks: 2 hits, which are among the free ones, and 3 new. 4 are free: no.
  ASSERT_TRUE(Add(3, 17, 1, {.segments = {Shared(9), {PrivateContent(RequestId(3)), TokenCount(8)}}}).ok());
  EXPECT_TRUE(Step().admitted.empty());
  EXPECT_EQ(core_->waiting(), 1);
}

TEST_F(VllmCoreTest, PreemptedRequestGoesToTheFrontAndKeepsItsTokens) {
  config_.num_gpu_blocks = 5;  // 4 usable
  Start();
  ASSERT_TRUE(Add(1, 7, 6).ok());
  ASSERT_TRUE(Add(2, 7, 6).ok());
  Step();  // 2 blocks each
  ASSERT_TRUE(Add(3, 7, 1).ok());
  Step();                      // both fill their second block
  const Batch b = Schedule();  // request 1 needs a third block
  EXPECT_EQ(Ids(b.preempted), (std::vector<uint64_t>{2}));
  EXPECT_EQ(WaitingIds(), (std::vector<uint64_t>{2, 3}));
  Update();
  const Snapshot s = core_->TakeSnapshot(false);
  EXPECT_EQ(s.waiting[0].generated_tokens, 2);
  EXPECT_EQ(s.waiting[0].computed_tokens, 0);
  StepUntilEnd(1);
  const Batch again = Schedule();
  ASSERT_FALSE(again.admitted.empty());
  EXPECT_EQ(again.admitted[0].request, RequestId(2));
  EXPECT_TRUE(again.admitted[0].resumed);
  EXPECT_EQ(again.admitted[0].cached + Tokens(again)[2], 9);  // its prompt and the two tokens it had
}

TEST_F(VllmCoreTest, NothingIsAdmittedInAStepThatPreempted) {
  config_.num_gpu_blocks = 6;  // 5 usable
  config_.prefix_caching = false;
  config_.reserve_full_isl = false;
  config_.long_prefill_token_threshold = 8;
  Start();
  ASSERT_TRUE(Add(1, 8, 9).ok());
  ASSERT_TRUE(Add(2, 12, 1).ok());
  Step();                      // 2 blocks each
  const Batch b = Schedule();  // request 1 takes the fifth, so request 2 gives its two back: they would hold its first chunk
  EXPECT_EQ(Ids(b.preempted), (std::vector<uint64_t>{2}));
  EXPECT_EQ(b.free_blocks_after, 2);
  EXPECT_TRUE(b.admitted.empty());
}

TEST_F(VllmCoreTest, WholePromptMustFitBeforeAdmissionOnlyWithTheGate) {
  for (const bool gate : {true, false}) {
    config_.num_gpu_blocks = 5;
    config_.reserve_full_isl = gate;
    config_.max_num_batched_tokens = 8;
    Start();
    ASSERT_TRUE(Add(1, 4, 2).ok());
    ASSERT_TRUE(Add(2, 16, 1).ok());
    EXPECT_EQ(Step().admitted.size(), gate ? 1u : 2u);
  }
}

TEST_F(VllmCoreTest, WatermarkIsKeptOnlyWhileOthersRun) {
  config_.num_gpu_blocks = 11;
  config_.watermark = 0.5;  // 5 of 11 blocks
  Start();
  ASSERT_TRUE(Add(1, 32, 4).ok());  // 8 of 10: admitted since nobody runs
  EXPECT_EQ(Step().admitted.size(), 1u);
  ASSERT_TRUE(Add(2, 1, 4).ok());
  EXPECT_TRUE(Step().admitted.empty());
}

TEST_F(VllmCoreTest, HeadOfTheQueueBlocksSmallerRequestsBehindIt) {
  config_.num_gpu_blocks = 6;
  Start();
  ASSERT_TRUE(Add(1, 8, 8).ok());
  Step();
  ASSERT_TRUE(Add(2, 16, 1).ok());
  ASSERT_TRUE(Add(3, 1, 1).ok());
  EXPECT_TRUE(Step().admitted.empty());
}

// A blocked head is not looked at again while nothing changes; another request in its place is, even in its memory.
TEST_F(VllmCoreTest, SuccessorOfABlockedHeadIsLookedAtAfresh) {
  config_.num_gpu_blocks = 7;  // 6 usable
  Start();
  ASSERT_TRUE(Add(1, 9, 9, {.segments = {Shared(8), {PrivateContent(RequestId(1)), TokenCount(1)}}}).ok());  // 3 blocks
  ASSERT_TRUE(Add(2, 16, 1).ok());                                                                           // needs 4
  EXPECT_EQ(Step().admitted.size(), 1u);
  EXPECT_TRUE(Step().admitted.empty());
  ASSERT_TRUE(core_->Abort(RequestId(2)));
  // As long, but two of its blocks are there already.
  ASSERT_TRUE(Add(3, 16, 1, {.segments = {Shared(8), {PrivateContent(RequestId(3)), TokenCount(8)}}}).ok());
  EXPECT_EQ(Step().admitted.size(), 1u);
}

TEST_F(VllmCoreTest, RunningChunkTakesTheRestOfTheBudgetInListOrder) {
  config_.max_num_batched_tokens = 10;
  Start();
  ASSERT_TRUE(Add(1, 3, 9).ok());
  ASSERT_TRUE(Add(2, 20, 9).ok());
  EXPECT_EQ(Tokens(Step()), (std::map<uint64_t, int32_t>{{1, 3}, {2, 7}}));
  EXPECT_EQ(Tokens(Step()), (std::map<uint64_t, int32_t>{{1, 1}, {2, 9}}));
  EXPECT_EQ(Tokens(Step()), (std::map<uint64_t, int32_t>{{1, 1}, {2, 4}}));
}

TEST_F(VllmCoreTest, ThresholdCapsEveryChunkUnlessAloneOrAdapted) {
  config_.long_prefill_token_threshold = 8;
  Start();
  ASSERT_TRUE(Add(1, 40, 1).ok());
  EXPECT_EQ(Tokens(Step())[1], 8);
  config_.lone_long_prefill_full = true;
  Start();
  ASSERT_TRUE(Add(1, 40, 1).ok());
  EXPECT_EQ(Tokens(Step())[1], 40);
  config_.lone_long_prefill_full = false;
  config_.long_prefill_adaptive = true;  // 256 tokens / 2 requests
  Start();
  ASSERT_TRUE(Add(1, 200, 1).ok());
  ASSERT_TRUE(Add(2, 200, 1).ok());
  EXPECT_EQ(Tokens(Step()), (std::map<uint64_t, int32_t>{{1, 128}, {2, 128}}));
}

TEST_F(VllmCoreTest, WithoutChunkingAPromptOverTheRestOfTheBudgetWaits) {
  config_.chunked_prefill = false;
  config_.max_num_batched_tokens = 20;
  Start();
  ASSERT_TRUE(Add(1, 12, 1).ok());
  ASSERT_TRUE(Add(2, 12, 1).ok());
  ASSERT_TRUE(Add(3, 2, 1).ok());
  EXPECT_EQ(Tokens(Step()), (std::map<uint64_t, int32_t>{{1, 12}}));
}

TEST_F(VllmCoreTest, ActiveCapLimitsAdmissionNotTheQueue) {
  config_.max_num_active_seqs = 2;
  Start();
  for (uint64_t id = 1; id <= 4; ++id) ASSERT_TRUE(Add(id, 4, 5).ok());
  EXPECT_EQ(Step().admitted.size(), 2u);
  EXPECT_EQ(core_->waiting(), 2);
}

TEST_F(VllmCoreTest, PriorityVictimIsTheLastByPriorityThenArrivalFirstOfEqualsInTheList) {
  config_.policy = QueuePolicy::kPriority;
  config_.num_gpu_blocks = 7;  // 6 usable
  Start();
  ASSERT_TRUE(Add(1, 7, 9, {.priority = 0, .arrival = 1}).ok());
  ASSERT_TRUE(Add(2, 7, 9, {.priority = 1, .arrival = 2}).ok());
  ASSERT_TRUE(Add(3, 7, 9, {.priority = 1, .arrival = 2}).ok());
  Step();
  Step();
  const Batch b = Schedule();  // all need a third block, none is free
  ASSERT_FALSE(b.preempted.empty());
  EXPECT_EQ(b.preempted[0], RequestId(2));
}

TEST_F(VllmCoreTest, PrioritySelfPreemptionEndsThePhaseOnlyBeforeVersion033) {
  for (const bool continues : {false, true}) {
    config_.policy = QueuePolicy::kPriority;
    config_.num_gpu_blocks = 7;  // 6 usable
    config_.self_preempt_continues = continues;
    Start();
    ASSERT_TRUE(Add(1, 12, 9, {.priority = 2, .arrival = 1}).ok());  // 3 blocks, needs a fourth at once
    Step();
    ASSERT_TRUE(Add(2, 5, 9, {.priority = 0, .arrival = 2}).ok());  // takes the last 2
    ASSERT_EQ(Step().free_blocks_after, 0);
    // Run until request 1 must preempt itself, and see whether request 2 still gets its token in that step.
    Batch b;
    for (int i = 0; i < 12 && b.preempted.empty(); ++i) b = Step();
    EXPECT_EQ(Ids(b.preempted), (std::vector<uint64_t>{1}));
    EXPECT_EQ(Tokens(b).count(2), continues ? 1u : 0u);
  }
}

TEST_F(VllmCoreTest, PrefillIntervalHoldsPrefillsBackWhileOthersDecode) {
  config_.prefill_schedule_interval = 3;
  Start();
  ASSERT_TRUE(Add(1, 4, 20).ok());
  Step();
  ASSERT_TRUE(Add(2, 8, 2).ok());
  EXPECT_TRUE(Step().admitted.empty());
  EXPECT_TRUE(Step().admitted.empty());
  EXPECT_EQ(Step().admitted.size(), 1u);
}

TEST_F(VllmCoreTest, LastTokensBlockIsNeverComputedSoNeverHashed) {
  Start();
  ASSERT_TRUE(Add(1, 4, 4).ok());  // 8 tokens known at the end, 7 computed
  StepUntilEnd(1);
  EXPECT_EQ(core_->TakeSnapshot(true).exact->hashed_blocks.size(), 1u);
}

TEST_F(VllmCoreTest, LaterTurnFindsTheOutputOfTheEarlierOne) {
  Start();
  ASSERT_TRUE(Add(1, 6, 7, {.segments = {Shared(6)}}).ok());
  StepUntilEnd(1);  // 12 tokens computed: 3 full blocks
  ASSERT_TRUE(Add(2, 20, 1,
                  {.segments = {Shared(6),
                                {OutputContent(RequestId(1)), TokenCount(7)},
                                {PrivateContent(RequestId(2)), TokenCount(7)}}})
                  .ok());
  EXPECT_EQ(Step().admitted[0].cached, 12);
}

TEST_F(VllmCoreTest, AsynchronousKnownLastTokenIsNotDecodedTwice) {
  config_.async_scheduling = true;
  Start();
  ASSERT_TRUE(Add(1, 4, 2).ok());
  EXPECT_EQ(Tokens(Schedule())[1], 4);
  EXPECT_EQ(Tokens(Schedule())[1], 1);
  Update();
  EXPECT_TRUE(Schedule().items.empty());  // its last token is in flight
  EXPECT_EQ(Update().finished.size(), 1u);
}

TEST_F(VllmCoreTest, AsynchronousEosWastesOneDecode) {
  config_.async_scheduling = true;
  config_.stop_at_eos = true;
  Start();
  ASSERT_TRUE(Add(1, 4, 2).ok());
  Schedule();
  Schedule();
  Update();
  EXPECT_EQ(Tokens(Schedule())[1], 1);  // the engine does not know yet
  const BatchResult r = Update();
  ASSERT_EQ(r.finished.size(), 1u);
  EXPECT_EQ(r.finished[0].reason, FinishReason::kStop);
  EXPECT_TRUE(Update().sampled.empty());
}

TEST_F(VllmCoreTest, EndsAtMaxModelLen) {
  config_.max_model_len = 10;
  config_.stop_at_eos = true;
  Start();
  ASSERT_TRUE(Add(1, 7, 50).ok());
  int32_t tokens = 0;
  for (int i = 0; i < 10 && core_->HasRequests(); ++i) {
    Schedule();
    for (const auto& f : Update().finished) {
      tokens = f.output_tokens;
      EXPECT_EQ(f.reason, FinishReason::kLength);
    }
  }
  EXPECT_EQ(tokens, 3);
}

TEST_F(VllmCoreTest, AbortFreesAtOnceAndTheResultInFlightIsIgnored) {
  Start();
  ASSERT_TRUE(Add(1, 8, 5).ok());
  ASSERT_TRUE(Add(2, 8, 5).ok());
  Schedule();
  EXPECT_TRUE(core_->Abort(RequestId(1)));
  EXPECT_FALSE(core_->Abort(RequestId(1)));
  EXPECT_EQ(core_->free_blocks(), 98);
  EXPECT_EQ(Ids(Update().sampled), (std::vector<uint64_t>{2}));
}

TEST_F(VllmCoreTest, OneEmptyScheduleFollowsTheLastFinish) {
  Start();
  ASSERT_TRUE(Add(1, 4, 1).ok());
  Step();
  EXPECT_TRUE(core_->HasRequests());
  EXPECT_TRUE(Step().items.empty());
  EXPECT_FALSE(core_->HasRequests());
}

TEST_F(VllmCoreTest, RefusesWhatItCannotRunWithAReason) {
  config_.max_model_len = 100;
  Start();
  EXPECT_TRUE(Add(1, 99, 1).ok());
  const Status twice = Add(1, 5, 1), too_long = Add(2, 100, 1), empty = Add(3, 0, 1);
  EXPECT_NE(twice.error().message.find("already"), std::string::npos);
  EXPECT_NE(too_long.error().message.find("max_model_len = 100"), std::string::npos);
  EXPECT_FALSE(empty.ok());
  for (auto damage :
       {+[](EngineConfig& c) { c.block_size = 0; }, +[](EngineConfig& c) { c.num_gpu_blocks = 1; },
        +[](EngineConfig& c) { c.max_num_seqs = 0; }, +[](EngineConfig& c) { c.watermark = 1; },
        +[](EngineConfig& c) { c.max_model_len = 1; }, +[](EngineConfig& c) { c.prefill_schedule_interval = 0; }}) {
    EngineConfig bad;
    damage(bad);
    EXPECT_FALSE(MakeEngineCore(bad).ok());
  }
}

// A pool too small for the growth of the only request: vLLM requeues it for ever. A schedule() must come back each time, and
// time must not be what ends it.
TEST_F(VllmCoreTest, ScheduleReturnsEvenWhenARequestCanNeverGoOn) {
  for (const bool gate : {true, false}) {
    config_.num_gpu_blocks = 4;
    config_.reserve_full_isl = gate;
    Start();
    ASSERT_TRUE(Add(1, 8, 50).ok());
    for (int i = 0; i < 500; ++i) Step();
    EXPECT_TRUE(core_->HasRequests());
  }
}

TEST_F(VllmCoreTest, VersionsSetTheRulesThatChanged) {
  EngineConfig c;
  ASSERT_TRUE(ApplyVllmVersion("vllm-2026-01", c).ok());
  EXPECT_FALSE(c.reserve_full_isl);
  EXPECT_EQ(c.free_list, FreeListRule::kAppend);
  ASSERT_TRUE(ApplyVllmVersion("0.33", c).ok());
  EXPECT_TRUE(c.reserve_full_isl && c.lone_long_prefill_full && c.self_preempt_continues);
  EXPECT_EQ(c.free_list, FreeListRule::kUnhashedToFront);
  ASSERT_TRUE(ApplyVllmVersion("2026-08", c).ok());
  EXPECT_FALSE(c.lone_long_prefill_full || c.self_preempt_continues);
  const Status unknown = ApplyVllmVersion("0.1", c);
  ASSERT_FALSE(unknown.ok());
  for (const std::string_view known : KnownVllmVersions())
    EXPECT_NE(unknown.error().message.find(known), std::string::npos) << known;
}

TEST_F(VllmCoreTest, SnapshotThatContradictsItselfIsRefused) {
  Start();
  ASSERT_TRUE(Add(1, 8, 5).ok());
  Schedule();
  const Snapshot good = core_->TakeSnapshot(true);
  EngineRequest q;
  q.id = RequestId(1);
  q.prompt_tokens = 8;
  q.max_tokens = q.output_tokens = 5;
  const std::vector<EngineRequest> requests = {q};
  ASSERT_TRUE(RestoreEngineCore(config_, good, requests).ok());
  EXPECT_FALSE(RestoreEngineCore(config_, good, {}).ok());
  EXPECT_FALSE(RestoreEngineCore(config_, core_->TakeSnapshot(false), requests).ok());
  Snapshot bad = good;
  bad.exact->free_list.push_back(bad.exact->free_list.front());
  EXPECT_FALSE(RestoreEngineCore(config_, bad, requests).ok());
  bad = good;
  bad.exact->free_list.pop_back();
  EXPECT_FALSE(RestoreEngineCore(config_, bad, requests).ok());
  bad = good;
  bad.exact->requests[0].blocks[0] = 5000;
  EXPECT_FALSE(RestoreEngineCore(config_, bad, requests).ok());
  bad = good;
  bad.exact->requests[0].blocks.pop_back();
  EXPECT_FALSE(RestoreEngineCore(config_, bad, requests).ok());
  bad = good;
  bad.exact->in_flight[0].requests[0] = RequestId(9);
  EXPECT_FALSE(RestoreEngineCore(config_, bad, requests).ok());
}

TEST(VllmCorePropertyTest, InvariantsHoldAfterEveryCallAndRequestsAreConserved) {
  for (const uint64_t seed : testing::Seeds(300)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const testing::EngineCase c = testing::RandomEngineCase(seed, 60);
    auto core = std::move(MakeEngineCore(c.config)).value();
    size_t next = 0, ended = 0;
    for (int64_t turn = 0; turn < 5000; ++turn) {
      for (; next < c.arrivals.size() && c.arrivals[next].turn <= turn; ++next)
        ASSERT_TRUE(core->Add(c.arrivals[next].request).ok());
      if (!core->HasRequests() && core->batches_in_flight() == 0 && next == c.arrivals.size()) break;
      if (core->HasRequests()) {
        const Batch& b = core->Schedule();
        int64_t tokens = 0;
        for (const ScheduledItem& i : b.items) tokens += i.tokens;
        ASSERT_LE(tokens, c.config.max_num_batched_tokens);
        ASSERT_LE(core->running(), c.config.max_num_seqs);
      }
      if (core->batches_in_flight() == (c.config.async_scheduling ? 2 : 1) || !core->HasRequests()) {
        if (core->batches_in_flight() > 0) ended += core->Update().finished.size();
      }
      const Status ok = core->CheckInvariants();
      ASSERT_TRUE(ok.ok()) << "turn " << turn << ": " << ok.error().message;
      ASSERT_EQ(next, ended + static_cast<size_t>(core->running() + core->waiting())) << "turn " << turn;
    }
  }
}

}  // namespace
}  // namespace foretoken
