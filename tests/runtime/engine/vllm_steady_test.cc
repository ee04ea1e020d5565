// Differential properties of VllmCore: its fast ways of running take the decisions of the plain one, over random cases.
#include <gtest/gtest.h>

#include <memory>

#include "runtime/engine/engine_core.h"
#include "tests/runtime/engine/engine_cases.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using testing::EngineCase;
using testing::RandomEngineCase;

constexpr int64_t kTurnsMax = 20000;

// What one turn of the engine's loop did, in terms that both ways of running can tell.
struct Turn {
  bool scheduled = false;
  bool updated = false;
  BatchSummary batch;
  BatchResult result;
  int64_t free_scheduled = 0;
  int32_t waiting_scheduled = 0;
};

// Drives a core through the loop of vllm-scheduler.md 1.3; a step takes one turn.
class Loop {
 public:
  Loop(const EngineCase& c, std::unique_ptr<EngineCore> core, bool summary)
      : case_(c), core_(std::move(core)), depth_(c.config.async_scheduling ? 2 : 1), summary_(summary) {}

  bool Done() const { return next_ == case_.arrivals.size() && !core_->HasRequests() && core_->batches_in_flight() == 0; }
  EngineCore& core() { return *core_; }

  Turn Step(int64_t turn) {
    Turn t;
    for (; next_ < case_.arrivals.size() && case_.arrivals[next_].turn <= turn; ++next_)
      EXPECT_TRUE(core_->Add(case_.arrivals[next_].request).ok());
    if (core_->HasRequests()) {
      t.scheduled = true;
      ScheduleInto(t);
      t.free_scheduled = core_->free_blocks();
      t.waiting_scheduled = core_->waiting();
      if (core_->batches_in_flight() < depth_ && (!t.batch.empty() || core_->HasRequests())) return t;
    } else if (core_->batches_in_flight() == 0) {
      return t;
    }
    t.updated = true;
    t.result = summary_ ? core_->UpdateSummary() : core_->Update();
    t.result.sampled.clear();
    return t;
  }
  void set_summary(bool on) { summary_ = on; }
  void Replace(std::unique_ptr<EngineCore> core) { core_ = std::move(core); }

 private:
  void ScheduleInto(Turn& t) {
    if (summary_) {
      t.batch = core_->ScheduleSummary();
      return;
    }
    const Snapshot before = core_->TakeSnapshot(true);
    const Batch& b = core_->Schedule();
    Summarise(b, t.batch);
    // Passed over: running before, past its prefill, neither in the batch nor preempted.
    for (size_t i = 0; i < before.running.size(); ++i) {
      const RequestId id = before.running[i].request;
      const bool in_batch =
          std::any_of(b.items.begin(), b.items.end(), [&](const ScheduledItem& s) { return s.request == id; });
      const bool preempted = std::find(b.preempted.begin(), b.preempted.end(), id) != b.preempted.end();
      if (!in_batch && !preempted && !before.exact->requests[i].partial_prefill) t.batch.skipped.push_back(id);
    }
  }

  EngineCase case_;
  std::unique_ptr<EngineCore> core_;
  int32_t depth_;
  bool summary_;
  size_t next_ = 0;
};

std::unique_ptr<EngineCore> Core(const EngineConfig& config) {
  auto made = MakeEngineCore(config);
  EXPECT_TRUE(made.ok()) << made.error().message;
  return std::move(made).value();
}

::testing::AssertionResult Same(const Turn& a, const Turn& b) {
  const BatchSummary &x = a.batch, &y = b.batch;
  if (a.scheduled != b.scheduled || a.updated != b.updated) return ::testing::AssertionFailure() << "the loop went another way";
  if (x.shape.prefill_tokens != y.shape.prefill_tokens || x.shape.prefill_ctx != y.shape.prefill_ctx ||
      x.prefill_seqs != y.prefill_seqs)
    return ::testing::AssertionFailure() << "prefill " << x.shape.prefill_tokens << " and " << y.shape.prefill_tokens;
  if (x.shape.decode_seqs != y.shape.decode_seqs || x.shape.decode_kv_tokens != y.shape.decode_kv_tokens)
    return ::testing::AssertionFailure() << "decode " << x.shape.decode_seqs << "/" << x.shape.decode_kv_tokens << " and "
                                         << y.shape.decode_seqs << "/" << y.shape.decode_kv_tokens;
  if (x.chunks != y.chunks || x.admitted != y.admitted || x.preempted != y.preempted)
    return ::testing::AssertionFailure() << "chunks, admissions or preemptions";
  if (x.skipped != y.skipped)
    return ::testing::AssertionFailure() << "passed over: " << x.skipped.size() << " and " << y.skipped.size();
  if (x.evicted != y.evicted) return ::testing::AssertionFailure() << "evicted " << x.evicted << " and " << y.evicted;
  if (a.free_scheduled != b.free_scheduled || a.waiting_scheduled != b.waiting_scheduled)
    return ::testing::AssertionFailure() << "after schedule: free " << a.free_scheduled << " and " << b.free_scheduled;
  const BatchResult &p = a.result, &q = b.result;
  if (p.first_tokens != q.first_tokens || p.finished != q.finished || p.tokens != q.tokens)
    return ::testing::AssertionFailure() << "results: tokens " << p.tokens << " and " << q.tokens << ", finished "
                                         << p.finished.size() << " and " << q.finished.size();
  if (p.free_blocks_after != q.free_blocks_after || p.running_after != q.running_after || p.waiting_after != q.waiting_after)
    return ::testing::AssertionFailure() << "counts after the update";
  return ::testing::AssertionSuccess();
}

// Equal but for what the marks of private content stand for: same blocks held, same free list, same blocks hashed.
::testing::AssertionResult SameBlocks(const Snapshot& a, const Snapshot& b) {
  if (a.running != b.running || a.waiting != b.waiting) return ::testing::AssertionFailure() << "progress";
  if (a.exact->free_list != b.exact->free_list) return ::testing::AssertionFailure() << "free lists";
  if (a.exact->requests.size() != b.exact->requests.size()) return ::testing::AssertionFailure() << "requests";
  for (size_t i = 0; i < a.exact->requests.size(); ++i) {
    Snapshot::RequestBlocks x = a.exact->requests[i], y = b.exact->requests[i];
    x.prompt_hashes = y.prompt_hashes = {};
    if (!(x == y)) return ::testing::AssertionFailure() << "request " << x.request.value();
  }
  auto blocks = [](const Snapshot& s) {
    std::vector<uint32_t> ids;
    for (const auto& h : s.exact->hashed_blocks) ids.push_back(h.first);
    std::sort(ids.begin(), ids.end());
    return ids;
  };
  if (blocks(a) != blocks(b)) return ::testing::AssertionFailure() << "hashed blocks";
  return ::testing::AssertionSuccess();
}

// A client that goes away now and then; the same one at the same turn in every loop.
std::optional<RequestId> Leaver(uint64_t seed, int64_t turn, size_t requests) {
  if (seed % 3 != 0 || Mix64(seed, static_cast<uint64_t>(turn)) % 50 != 0) return std::nullopt;
  return RequestId(1 + Mix64(seed + 1, static_cast<uint64_t>(turn)) % requests);
}

TEST(VllmSteadyTest, SummariesTakeTheDecisionsOfItemwiseStepsBlockForBlock) {
  for (const uint64_t seed : testing::Seeds(400)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const EngineCase c = RandomEngineCase(seed, 60);
    Loop plain(c, Core(c.config), false), fast(c, Core(c.config), true);
    for (int64_t turn = 0; turn < kTurnsMax && !plain.Done(); ++turn) {
      const Turn a = plain.Step(turn), b = fast.Step(turn);
      ASSERT_TRUE(Same(a, b)) << "turn " << turn;
      if (turn % 3 == 0) {
        ASSERT_EQ(plain.core().TakeSnapshot(true), fast.core().TakeSnapshot(true)) << "turn " << turn;
      }
      if (turn % 3 == 1) {
        ASSERT_EQ(plain.core().TakeSnapshot(false), fast.core().TakeSnapshot(false)) << "turn " << turn;
      }
      const Status ok = fast.core().CheckInvariants();
      ASSERT_TRUE(ok.ok()) << "turn " << turn << ": " << ok.error().message;
      if (const auto gone = Leaver(seed, turn, c.arrivals.size())) {
        ASSERT_EQ(plain.core().Abort(*gone), fast.core().Abort(*gone));
      }
    }
  }
}

TEST(VllmSteadyTest, BothWaysMayAlternate) {
  for (const uint64_t seed : testing::Seeds(100)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const EngineCase c = RandomEngineCase(seed, 60);
    Loop plain(c, Core(c.config), false), mixed(c, Core(c.config), true);
    Prng prng(seed);
    for (int64_t turn = 0; turn < kTurnsMax && !plain.Done(); ++turn) {
      if (prng.Chance(0.1)) mixed.set_summary(prng.Chance(0.7));
      const Turn a = plain.Step(turn), b = mixed.Step(turn);
      ASSERT_TRUE(Same(a, b)) << "turn " << turn;
    }
    ASSERT_EQ(plain.core().TakeSnapshot(true), mixed.core().TakeSnapshot(true));
  }
}

TEST(VllmSteadyTest, PrivateContentChangesNoDecision) {
  for (const uint64_t seed : testing::Seeds(400)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const EngineCase c = RandomEngineCase(seed, 60);
    EngineCase named = c;
    for (auto& a : named.arrivals) a.request.output_named_later = true;
    Loop with(c, Core(c.config), true), without(named, Core(c.config), true);
    for (int64_t turn = 0; turn < kTurnsMax && !with.Done(); ++turn) {
      const Turn a = with.Step(turn), b = without.Step(turn);
      ASSERT_TRUE(Same(a, b)) << "turn " << turn;
      if (turn % 7 == 0) {
        ASSERT_TRUE(SameBlocks(with.core().TakeSnapshot(true), without.core().TakeSnapshot(true))) << "turn " << turn;
      }
    }
  }
}

TEST(VllmSteadyTest, RestoredEngineContinuesAsIfNeverStopped) {
  for (const uint64_t seed : testing::Seeds(200)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const EngineCase c = RandomEngineCase(seed, 60);
    std::vector<EngineRequest> requests;
    for (const auto& a : c.arrivals) requests.push_back(a.request);
    Loop plain(c, Core(c.config), true), restored(c, Core(c.config), true);
    for (int64_t turn = 0; turn < kTurnsMax && !plain.Done(); ++turn) {
      const Turn a = plain.Step(turn), b = restored.Step(turn);
      ASSERT_TRUE(Same(a, b)) << "turn " << turn;
      if (Mix64(seed, static_cast<uint64_t>(turn)) % 8 != 0) continue;
      const Snapshot snapshot = restored.core().TakeSnapshot(true);
      auto again = RestoreEngineCore(c.config, snapshot, requests);
      ASSERT_TRUE(again.ok()) << "turn " << turn << ": " << again.error().message;
      ASSERT_TRUE(SameBlocks((*again)->TakeSnapshot(true), snapshot)) << "turn " << turn;
      restored.Replace(std::move(again).value());
    }
  }
}

// A mirror learns lengths as it goes. Where the scheduler does not know them, learning in time is as good as having known.
TEST(VllmSteadyTest, ALengthThatGrowsInTimeDecidesAsTheLengthFromTheStart) {
  for (const uint64_t seed : testing::Seeds(200)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    EngineCase c = RandomEngineCase(seed, 60);
    c.config.stop_at_eos = true;
    for (auto& a : c.arrivals) a.request.max_tokens = a.request.output_tokens + 10;
    EngineCase too_short = c;
    Prng prng(seed);
    std::vector<int64_t> believed(c.arrivals.size() + 1);
    for (auto& a : too_short.arrivals) {
      // A request taken in and run to its end within one turn could not be told in time.
      a.request.output_tokens = prng.Between(std::min<int64_t>(3, a.request.output_tokens), a.request.output_tokens);
      believed[a.request.id.value()] = a.request.output_tokens;
    }
    Loop knows(c, Core(c.config), true), learns(too_short, Core(c.config), true);
    for (int64_t turn = 0; turn < kTurnsMax && !knows.Done(); ++turn) {
      const Snapshot now = learns.core().TakeSnapshot(false);
      for (const auto* list : {&now.running, &now.waiting}) {
        for (const Snapshot::Request& r : *list) {
          const EngineRequest& truth = c.arrivals[r.request.value() - 1].request;
          int64_t& length = believed[r.request.value()];
          if (length == truth.output_tokens || (r.generated_tokens + 3 < length && !prng.Chance(0.05))) continue;
          length = prng.Between(std::min<int64_t>(r.generated_tokens + 4, truth.output_tokens), truth.output_tokens);
          ASSERT_TRUE(learns.core().SetLength(r.request, truth.max_tokens, length));
        }
      }
      const Turn a = knows.Step(turn), b = learns.Step(turn);
      ASSERT_TRUE(Same(a, b)) << "turn " << turn;
      if (turn % 5 == 0) {
        ASSERT_EQ(knows.core().TakeSnapshot(true), learns.core().TakeSnapshot(true)) << "turn " << turn;
      }
      const Status ok = learns.core().CheckInvariants();
      ASSERT_TRUE(ok.ok()) << "turn " << turn << ": " << ok.error().message;
    }
    EXPECT_FALSE(learns.core().SetLength(RequestId(10'000), 9, 9));
  }
}

TEST(VllmSteadyTest, CloneEvolvesOnItsOwn) {
  for (const uint64_t seed : testing::Seeds(60)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const EngineCase c = RandomEngineCase(seed, 60);
    Loop plain(c, Core(c.config), true);
    for (int64_t turn = 0; turn < kTurnsMax && !plain.Done(); ++turn) {
      plain.Step(turn);
      if (turn % 16 != 5) continue;
      const Snapshot before = plain.core().TakeSnapshot(true);
      const std::unique_ptr<EngineCore> clone = plain.core().Clone();
      ASSERT_EQ(clone->TakeSnapshot(true), before);
      for (int k = 0; k < 30 && (clone->HasRequests() || clone->batches_in_flight() > 0); ++k) {
        if (clone->HasRequests() && clone->batches_in_flight() < 2) clone->ScheduleSummary();
        clone->UpdateSummary();
      }
      ASSERT_EQ(plain.core().TakeSnapshot(true), before) << "turn " << turn;
    }
  }
}

}  // namespace
}  // namespace foretoken
