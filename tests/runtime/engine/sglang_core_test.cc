#include "runtime/engine/sglang_core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "runtime/base/prng.h"
#include "tests/runtime/engine/engine_cases.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

EngineConfig Config(int32_t pool_tokens, int32_t chunk = 1000) {
  EngineConfig c;
  c.kind = EngineKind::kSglang;
  c.block_size = 1;
  c.num_gpu_blocks = pool_tokens + 1;
  c.max_num_batched_tokens = chunk;
  return c;
}

std::unique_ptr<SglangCore> Make(const EngineConfig& config) {
  auto core = MakeSglangCore(config);
  EXPECT_TRUE(core.ok()) << (core.ok() ? "" : core.error().message);
  return std::unique_ptr<SglangCore>(static_cast<SglangCore*>(std::move(core).value().release()));
}

EngineRequest Request(uint64_t id, int64_t prompt, int64_t output, std::vector<PromptSegment> segments = {}) {
  EngineRequest q;
  q.id = RequestId(id);
  q.prompt_tokens = prompt;
  q.max_tokens = q.output_tokens = output;
  q.segments = std::move(segments);
  return q;
}

// "id:tokens" per item; '*' where a prompt goes on in a later step.
std::string Shape(const Batch& batch) {
  std::string text;
  for (const ScheduledItem& i : batch.items)
    text +=
        (text.empty() ? "" : " ") + std::to_string(i.request.value()) + ":" + std::to_string(i.tokens) + (i.samples ? "" : "*");
  return text;
}

std::string Step(SglangCore& core) {
  const std::string shape = Shape(core.Schedule());
  core.Update();
  return shape;
}

TEST(SglangCoreTest, PrefillRunsAloneAndEveryDecodeStalls) {
  const auto core = Make(Config(1000));
  ASSERT_TRUE(core->Add(Request(1, 10, 5)).ok());
  EXPECT_EQ(Step(*core), "1:10");
  EXPECT_EQ(Step(*core), "1:1");
  ASSERT_TRUE(core->Add(Request(2, 7, 5)).ok());
  const BatchSummary& mixed = core->ScheduleSummary();
  EXPECT_EQ(mixed.shape.prefill_tokens, 7);
  EXPECT_EQ(mixed.shape.decode_seqs, 0);
  EXPECT_EQ(mixed.skipped, std::vector<RequestId>{RequestId(1)});
  core->Update();
  EXPECT_EQ(Step(*core), "1:1 2:1");
}

TEST(SglangCoreTest, OneChunkedRequestIsInFlightAndContinuedFirst) {
  const auto core = Make(Config(1000, 8));
  ASSERT_TRUE(core->Add(Request(1, 20, 2)).ok());
  ASSERT_TRUE(core->Add(Request(2, 6, 2)).ok());
  EXPECT_EQ(Step(*core), "1:8*");
  EXPECT_EQ(Step(*core), "1:8*");
  EXPECT_EQ(Step(*core), "1:4 2:4*");  // what the chunk budget leaves goes to the next in the queue
  EXPECT_EQ(Step(*core), "2:2");       // request 1 still stalls
  EXPECT_EQ(Step(*core), "1:1 2:1");
  EXPECT_FALSE(core->HasRequests());
}

// Pool 100. Request 1 (10 + 60) runs with one token out: 90 tokens free or evictable, 59 * 0.7 = 41.3 of them reserved, 48.7 left.
TEST(SglangCoreTest, AdmissionReservesTheRunningOnesExpectedOutput) {
  for (const auto& [max_new, admitted] : {std::pair{37, true}, {38, false}}) {  // 10 + max_new + 1 < 48.7
    const auto core = Make(Config(100));
    ASSERT_TRUE(core->Add(Request(1, 10, 60)).ok());
    EXPECT_EQ(Step(*core), "1:10");
    ASSERT_TRUE(core->Add(Request(2, 10, max_new)).ok());
    EXPECT_EQ(Step(*core), admitted ? "2:10" : "1:1") << max_new;
    EXPECT_EQ(core->batch_is_full(), !admitted);
  }
}

TEST(SglangCoreTest, ARefusedAdmissionEndsTheScanUntilARequestLeaves) {
  const auto core = Make(Config(100));
  ASSERT_TRUE(core->Add(Request(1, 10, 60)).ok());
  EXPECT_EQ(Step(*core), "1:10");
  ASSERT_TRUE(core->Add(Request(2, 10, 80)).ok());
  ASSERT_TRUE(core->Add(Request(3, 1, 1)).ok());  // would fit, but stands behind
  for (int i = 0; i < 59; ++i) ASSERT_EQ(Step(*core), "1:1") << i;
  EXPECT_EQ(Step(*core), "2:10 3:1");  // 10 + 80 + 1 < 100: request 1's tokens are evictable now; 1 + 1 + 1 < 10 that are left
}

TEST(SglangCoreTest, AFullBatchStaysClosedEvenIfTheRefusedRequestGoesAway) {
  const auto core = Make(Config(100));
  ASSERT_TRUE(core->Add(Request(1, 10, 4)).ok());
  ASSERT_TRUE(core->Add(Request(2, 10, 80)).ok());
  EXPECT_EQ(Step(*core), "1:10");
  ASSERT_TRUE(core->Add(Request(3, 1, 1)).ok());
  ASSERT_TRUE(core->Abort(RequestId(2)));
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Step(*core), "1:1") << i;  // request 3 would fit
  EXPECT_EQ(Step(*core), "3:1");
}

TEST(SglangCoreTest, MaxNewTokensChangesAdmissionEvenIfTheOutputIsShort) {
  EngineConfig config = Config(100);
  config.stop_at_eos = true;
  const auto core = Make(config);
  EngineRequest q = Request(1, 10, 2);
  q.max_tokens = 60;
  ASSERT_TRUE(core->Add(q).ok());
  Step(*core);
  ASSERT_TRUE(core->Add(Request(2, 10, 38)).ok());
  EXPECT_EQ(Shape(core->Schedule()), "1:1");
  const BatchResult& ended = core->Update();
  ASSERT_EQ(ended.finished.size(), 1u);
  EXPECT_EQ(ended.finished[0].reason, FinishReason::kStop);
  EXPECT_EQ(ended.finished[0].output_tokens, 2);
}

TEST(SglangCoreTest, TheRatioDecaysLinearlyOverDecodeStepsToItsMinimum) {
  const auto core = Make(Config(5000));
  ASSERT_TRUE(core->Add(Request(1, 10, 2000)).ok());
  Step(*core);
  EXPECT_DOUBLE_EQ(core->new_token_ratio(), 0.7);  // a prefill step does not count
  for (int i = 0; i < 300; ++i) Step(*core);
  EXPECT_NEAR(core->new_token_ratio(), 0.7 - (0.7 - 0.098) / 2, 1e-9);
  for (int i = 0; i < 400; ++i) Step(*core);
  EXPECT_NEAR(core->new_token_ratio(), 0.098, 1e-9);
}

// Pool 61. Requests of 2, 3 and 2 prompt tokens and 20 output tokens come one by one, each admitted with 0.7 of the others'
// output reserved. With 19 tokens out each, 61 tokens are held and three more are needed: equal outputs, so the longest
// prompt (request 2) goes. Estimate: (19 + 19 + 20 * 2) / (20 + 20 + 1) > 1.
TEST(SglangCoreTest, RetractionTakesTheShortestOutputThenTheLongestPrompt) {
  const auto core = Make(Config(61));
  for (const auto& [id, prompt] : {std::pair{1, 2}, {2, 3}, {3, 2}}) {
    ASSERT_TRUE(core->Add(Request(static_cast<uint64_t>(id), prompt, 20)).ok());
    ASSERT_EQ(Step(*core), std::to_string(id) + ":" + std::to_string(prompt));
  }
  ASSERT_TRUE(core->Add(Request(4, 40, 2)).ok());  // does not fit
  for (int out = 2; out <= 19; ++out) ASSERT_EQ(Step(*core), "1:1 2:1 3:1") << out;
  const Batch& short_of_tokens = core->Schedule();
  EXPECT_EQ(short_of_tokens.preempted, std::vector<RequestId>{RequestId(2)});
  EXPECT_EQ(short_of_tokens.evicted, 0);  // its output never became the cache's
  EXPECT_DOUBLE_EQ(core->new_token_ratio(), 1.0);
  EXPECT_EQ(core->Update().finished.size(), 2u);
  const Snapshot waiting = core->TakeSnapshot(false);
  ASSERT_EQ(waiting.waiting.size(), 2u);
  EXPECT_EQ(waiting.waiting[0].request, RequestId(4));  // the retracted one stands at the end
  const Batch& next = core->Schedule();
  EXPECT_EQ(Shape(next), "4:40");  // 22 + 1 + 1 more would not fit beside its 40 + 2
  core->Update();
  EXPECT_EQ(Step(*core), "4:1");
  const Batch& resumed = core->Schedule();
  ASSERT_EQ(resumed.admitted.size(), 1u);
  EXPECT_TRUE(resumed.admitted[0].resumed);
  EXPECT_EQ(resumed.items[0].tokens + resumed.items[0].computed, 22);  // prompt and output so far are computed again
  core->Update();
  EXPECT_FALSE(core->HasRequests());
}

TEST(SglangCoreTest, ARetractionDropsOutputFromTheCacheAndKeepsThePrompt) {
  const auto core = Make(Config(61));
  for (const auto& [id, prompt] : {std::pair{1, 2}, {2, 3}, {3, 2}}) {
    ASSERT_TRUE(core->Add(Request(static_cast<uint64_t>(id), prompt, 20)).ok());
    Step(*core);
  }
  for (int out = 2; out <= 20; ++out) Step(*core);
  const Batch& resumed = core->Schedule();
  ASSERT_EQ(resumed.admitted.size(), 1u);
  EXPECT_EQ(resumed.admitted[0].cached, 3);
}

TEST(SglangCoreTest, HitsAreCountedInTokensAndOneIsAlwaysComputed) {
  const auto core = Make(Config(1000));
  ASSERT_TRUE(core->Add(Request(1, 10, 1, {{77, TokenCount(10)}})).ok());
  Step(*core);
  ASSERT_TRUE(core->Add(Request(2, 12, 1, {{77, TokenCount(7)}, {78, TokenCount(5)}})).ok());
  EXPECT_EQ(Step(*core), "2:5");
  ASSERT_TRUE(core->Add(Request(3, 10, 1, {{77, TokenCount(10)}})).ok());
  EXPECT_EQ(Step(*core), "3:1");
}

TEST(SglangCoreTest, RequestsOfOneBatchDoNotShareAndTheCopyIsFreedBehindIt) {
  const auto core = Make(Config(1000));
  for (const uint64_t id : {1, 2}) ASSERT_TRUE(core->Add(Request(id, 10, 3, {{77, TokenCount(10)}})).ok());
  EXPECT_EQ(Shape(core->Schedule()), "1:10 2:10");
  EXPECT_EQ(core->free_blocks(), 980);
  core->Update();
  EXPECT_EQ(core->free_blocks(), 990);
  EXPECT_EQ(core->cached_tokens(), 10);
}

TEST(SglangCoreTest, ANextTurnFindsPromptAndOutputOfTheOneBefore) {
  const auto core = Make(Config(1000));
  ASSERT_TRUE(core->Add(Request(1, 10, 4, {{77, TokenCount(10)}})).ok());
  while (core->HasRequests()) Step(*core);
  ASSERT_TRUE(
      core->Add(Request(2, 16, 1, {{77, TokenCount(10)}, {OutputContent(RequestId(1)), TokenCount(4)}, {79, TokenCount(2)}}))
          .ok());
  EXPECT_EQ(Step(*core), "2:3");  // 10 + 3: the KV of the last output token was never computed
}

TEST(SglangCoreTest, WithoutACacheNothingIsReused) {
  EngineConfig config = Config(1000, 6);
  config.prefix_caching = false;
  const auto core = Make(config);
  for (const uint64_t id : {1, 2}) {
    ASSERT_TRUE(core->Add(Request(id, 10, 1, {{77, TokenCount(10)}})).ok());
    EXPECT_EQ(Step(*core), std::to_string(id) + ":6*");
    EXPECT_EQ(Step(*core), std::to_string(id) + ":4");
    EXPECT_EQ(core->free_blocks(), 1000);
  }
}

TEST(SglangCoreTest, MaxRunningRequestsHolds) {
  EngineConfig config = Config(1000);
  config.max_num_seqs = 2;
  const auto core = Make(config);
  for (const uint64_t id : {1, 2, 3}) ASSERT_TRUE(core->Add(Request(id, 5, 2)).ok());
  EXPECT_EQ(Step(*core), "1:5 2:5");
  EXPECT_EQ(Step(*core), "1:1 2:1");
  EXPECT_EQ(Step(*core), "3:5");
}

TEST(SglangCoreTest, WhatIsNotModelledIsRefusedByName) {
  const auto message = [](auto change) {
    EngineConfig config = Config(100);
    change(config);
    const auto core = MakeSglangCore(config);
    return core.ok() ? std::string() : core.error().message;
  };
  EXPECT_NE(message([](EngineConfig& c) { c.async_scheduling = true; }).find("async_scheduling"), std::string::npos);
  EXPECT_NE(message([](EngineConfig& c) { c.policy = QueuePolicy::kPriority; }).find("priority"), std::string::npos);
  EXPECT_NE(message([](EngineConfig& c) { c.block_size = 16; }).find("block_size"), std::string::npos);
  EXPECT_NE(message([](EngineConfig& c) { c.watermark = 0.1; }).find("watermark"), std::string::npos);
  const auto core = Make(Config(20));
  EXPECT_FALSE(core->Add(Request(1, 19, 1)).ok());
}

struct Watch {
  std::map<uint64_t, int64_t> output;  // per request
  size_t ended = 0;
};

void CheckBatch(const Batch& batch, const EngineConfig& config, const Watch& watch) {
  int64_t prefill = 0, unfinished = 0;
  for (const ScheduledItem& i : batch.items) {
    ASSERT_EQ(i.prefill, batch.items[0].prefill) << "prefill and decode in one batch";
    ASSERT_GE(i.tokens, 1);
    prefill += i.prefill ? i.tokens : 0;
    unfinished += !i.samples;
  }
  ASSERT_LE(unfinished, 1) << "two chunked requests";
  ASSERT_TRUE(!config.chunked_prefill || prefill <= config.max_num_batched_tokens);
  ASSERT_LE(batch.running_after, config.max_num_seqs + 1);
  for (const RequestId victim : batch.preempted)
    for (const ScheduledItem& i : batch.items)
      ASSERT_LE(watch.output.at(victim.value()), watch.output.at(i.request.value())) << "a longer output was retracted";
}

void Apply(const BatchResult& result, Watch& watch) {
  for (const RequestId id : result.sampled) ++watch.output[id.value()];
  for (const BatchTrace::Finish& f : result.finished) {
    ++watch.ended;
    ASSERT_EQ(f.output_tokens, watch.output[f.request.value()]);
  }
}

TEST(SglangCoreTest, RandomLoadsEndAndKeepTheInvariantsAfterEveryStep) {
  uint64_t retractions = 0;
  for (const uint64_t seed : testing::Seeds(200)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Prng prng(seed);
    const auto arrivals = testing::RandomArrivals(prng, 8, 20);
    int64_t longest = 0;
    for (const auto& a : arrivals) longest = std::max(longest, a.request.prompt_tokens + a.request.output_tokens);
    EngineConfig config = Config(static_cast<int32_t>(longest + 4 + prng.Between(0, 2 * longest)), 1 << prng.Between(2, 9));
    config.max_num_seqs = static_cast<int32_t>(prng.Between(1, 20));
    config.prefix_caching = prng.Chance(0.8);
    config.chunked_prefill = prng.Chance(0.8);
    const auto core = Make(config);
    std::unique_ptr<EngineCore> copy;
    Watch watch;
    size_t next = 0, aborted = 0;
    for (int64_t turn = 0; next < arrivals.size() || core->HasRequests(); ++turn) {
      ASSERT_LT(turn, 100000) << "no end";
      for (; next < arrivals.size() && arrivals[next].turn <= turn; ++next) {
        EngineRequest q = arrivals[next].request;
        q.max_tokens = q.output_tokens;
        ASSERT_TRUE(core->Add(q).ok());
        ASSERT_TRUE(!copy || copy->Add(q).ok());
        watch.output[q.id.value()] = 0;
      }
      if (!core->HasRequests()) continue;
      if (turn % 7 == 0) copy = core->Clone();
      const Batch& batch = core->Schedule();
      ASSERT_NO_FATAL_FAILURE(CheckBatch(batch, config, watch));
      retractions += batch.preempted.size();
      ASSERT_TRUE(!copy || Shape(copy->Schedule()) == Shape(batch)) << "a clone went another way";
      if (prng.Chance(0.02)) {
        const RequestId victim(prng.Between(1, static_cast<int64_t>(arrivals.size())));
        const bool there = core->Abort(victim);
        aborted += there;
        ASSERT_TRUE(!copy || copy->Abort(victim) == there);
      }
      const Status within = core->CheckInvariants();
      ASSERT_TRUE(within.ok()) << within.error().message;
      ASSERT_NO_FATAL_FAILURE(Apply(core->Update(), watch));
      if (copy) copy->Update();
      const Status behind = core->CheckInvariants();
      ASSERT_TRUE(behind.ok()) << behind.error().message;
    }
    ASSERT_EQ(watch.ended + aborted, arrivals.size());
    ASSERT_EQ(core->free_blocks(), core->usable_blocks());
  }
  EXPECT_GT(retractions, 0u) << "no case retracted anything";
}

}  // namespace
}  // namespace foretoken
