// EmulatedEngine: against the plainest possible loop over EngineCore (vllm-scheduler.md 1.3 in integer nanoseconds, every item
// looked at), and the promises of its header.
#include "runtime/engine/emulated_engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "tests/runtime/engine/engine_cases.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using testing::EngineCase;
using testing::RandomEngineCase;

struct Event {
  enum class Kind { kStep, kFirstToken, kFinished, kRejected } kind = Kind::kStep;
  RequestId request;
  Instant at;
  BatchTrace trace;
  BatchTrace::Finish finish;
  OutcomeReason reason = OutcomeReason::kNone;
  bool operator==(const Event&) const = default;
};
using Log = std::vector<Event>;

void PrintTo(const Event& e, std::ostream* os) {
  *os << "kind " << static_cast<int>(e.kind) << " request " << e.request.value() << " at " << e.at.nanos() << " ns step "
      << e.trace.step << " start " << e.trace.start.nanos() << " dur " << e.trace.duration.nanos() << " p "
      << e.trace.prefill_tokens << " d " << e.trace.decode_seqs << "/" << e.trace.decode_kv_tokens << " w " << e.trace.waiting
      << " r " << e.trace.running << " free " << e.trace.free_blocks << " chunks " << e.trace.chunks.size() << " skipped "
      << e.trace.skipped.size() << " cancelled " << e.trace.cancelled.size() << " finished " << e.trace.finished.size();
}

struct LogSink : EngineSink {
  Log log;
  void OnStep(const BatchTrace& trace) override { log.push_back({Event::Kind::kStep, {}, trace.end(), trace, {}, {}}); }
  void OnFirstToken(RequestId r, Instant at) override { log.push_back({Event::Kind::kFirstToken, r, at, {}, {}, {}}); }
  void OnFinished(RequestId r, const BatchTrace::Finish& f, Instant at) override {
    log.push_back({Event::Kind::kFinished, r, at, {}, f, {}});
  }
  void OnRejected(RequestId r, OutcomeReason why, Instant at) override {
    log.push_back({Event::Kind::kRejected, r, at, {}, {}, why});
  }
};

struct Message {
  Instant at;
  bool is_request = true;
  EngineRequest request;
};

// A law whose pure-decode pieces are short, so that a cached piece is soon the wrong one.
class PieceLaw final : public StepTimeLaw {
 public:
  double NanosOf(const StepShape& s) const override {
    if (s.prefill_tokens > 0)
      return 900 + 3.0 * static_cast<double>(s.prefill_tokens) + 0.01 * static_cast<double>(s.prefill_ctx + s.decode_kv_tokens);
    if (s.decode_seqs == 0) return 0;
    const DecodeSegment seg = DecodeSegmentAt(s.decode_seqs, s.decode_kv_tokens);
    return seg.base_ns + seg.per_kv_token_ns * static_cast<double>(s.decode_kv_tokens);
  }
  DecodeSegment DecodeSegmentAt(int64_t seqs, int64_t kv) const override {
    const int64_t piece = kv / 37;
    return {500 + 11.0 * static_cast<double>(seqs) + 5.0 * static_cast<double>(piece % 7),
            0.25 + 0.125 * static_cast<double>(piece % 3), piece * 37, piece * 37 + 37};
  }
};

struct Scenario {
  EmulatedEngine::Options options;
  std::vector<Message> messages;  // by time
};

Scenario RandomScenario(uint64_t seed) {
  EngineCase c = RandomEngineCase(seed, 60000);
  Prng prng(Mix64(seed, 0x736365));
  Scenario s;
  EmulatedEngine::Options& o = s.options;
  o.config = c.config;
  o.start = Instant::FromNanos(static_cast<int64_t>(seed % 5) * 1000);
  if (prng.Chance(0.5)) {
    o.step_time.law = std::make_shared<PieceLaw>();
  } else {
    o.step_time.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{1000, 2, 30, 0.5});
  }
  o.step_time.host_overhead = Duration::Nanos(static_cast<int64_t>(prng.Below(50)));
  o.step_time.factor = 0.5 + prng.Unit();
  if (prng.Chance(0.3)) o.step_time.graph_sizes = {1, 2, 4, 8, 16, 24};
  o.noise = {seed, prng.Chance(0.5) ? 0.05 : 0};
  o.traces = true;
  for (const auto& a : c.arrivals) {
    s.messages.push_back({Instant::FromNanos(a.turn), true, a.request});
    s.messages.back().request.arrival_key = static_cast<double>(a.turn) * 1e-9;
    if (!prng.Chance(0.1)) continue;
    Message gone;
    gone.at = Instant::FromNanos(a.turn + prng.Between(0, 40000));
    gone.is_request = false;
    gone.request.id = a.request.id;
    s.messages.push_back(gone);
  }
  std::stable_sort(s.messages.begin(), s.messages.end(), [](const Message& a, const Message& b) { return a.at < b.at; });
  return s;
}

// The reference: plain, item by item.
class PlainLoop {
 public:
  explicit PlainLoop(const Scenario& s)
      : o_(s.options),
        core_(std::move(MakeEngineCore(s.options.config)).value()),
        arrivals_(s.messages.begin(), s.messages.end()) {}

  // Absent: requests preempt each other for ever (EmulatedEngine would break that, see its test).
  std::optional<Log> Run() {
    Instant now = o_.start, gpu = o_.start;
    const size_t depth = o_.config.async_scheduling ? 2 : 1;
    int idle = 0;
    while (true) {
      if (!core_->HasRequests() && flying_.empty()) {
        if (arrivals_.empty()) break;
        now = std::max(now, arrivals_.front().at);
      }
      if (idle_preemptions_ > 500) return std::nullopt;
      TakeIn(now);
      bool executed = false;
      if (core_->HasRequests()) {
        executed = Compose(now, gpu);
        if (flying_.size() < depth && (executed || core_->HasRequests())) continue;
      } else if (flying_.empty()) {
        continue;
      }
      now = std::max(now, flying_.front().end);
      for (Message& m : arrivals_)
        if (m.at <= now && !m.is_request) Abort(m.request.id);
      Apply(now);
      idle = executed || !flying_.empty() ? 0 : idle + 1;
      if (idle <= 3) continue;
      if (arrivals_.empty()) break;
      now = std::max(now, arrivals_.front().at);
      idle = 0;
    }
    return log_;
  }

 private:
  struct Flying {
    bool executed = false;
    Instant end;
    BatchTrace trace;
  };

  void Abort(RequestId id) {
    if (core_->Abort(id)) cancelled_.push_back(id);
  }
  void TakeIn(Instant now) {
    while (!arrivals_.empty() && arrivals_.front().at <= now) {
      const Message m = arrivals_.front();
      arrivals_.pop_front();
      if (m.is_request) {
        EXPECT_TRUE(core_->Add(m.request).ok());
      } else {
        Abort(m.request.id);
      }
    }
  }
  bool Compose(Instant now, Instant& gpu) {
    const Snapshot before = core_->TakeSnapshot(true);
    const Batch& b = core_->Schedule();
    Flying f;
    f.end = now;
    f.executed = !b.items.empty();
    preempted_.insert(preempted_.end(), b.preempted.begin(), b.preempted.end());
    idle_preemptions_ += b.preempted.size();
    if (f.executed) {
      BatchSummary s;
      Summarise(b, s);
      BatchTrace& t = f.trace;
      t.step = steps_;
      t.scheduled = now;
      t.start = std::max(now, gpu);
      const double ns = o_.step_time.NanosOf(s.shape) * o_.noise.FactorAt(steps_++);
      t.duration = Duration::Nanos(std::max<int64_t>(1, std::llround(ns)));
      f.end = gpu = t.end();
      t.prefill_tokens = static_cast<int32_t>(s.shape.prefill_tokens);
      t.prefill_seqs = s.prefill_seqs;
      t.prefill_ctx_tokens = s.shape.prefill_ctx;
      t.decode_seqs = static_cast<int32_t>(s.shape.decode_seqs);
      t.decode_kv_tokens = s.shape.decode_kv_tokens;
      t.chunks = s.chunks;
      t.admitted = s.admitted;
      t.preempted = std::exchange(preempted_, {});
      for (size_t i = 0; i < before.running.size(); ++i) {
        const RequestId id = before.running[i].request;
        const bool in_batch =
            std::any_of(b.items.begin(), b.items.end(), [&](const ScheduledItem& x) { return x.request == id; });
        const bool preempted = std::find(b.preempted.begin(), b.preempted.end(), id) != b.preempted.end();
        if (!in_batch && !preempted && !before.exact->requests[i].partial_prefill) t.skipped.push_back(id);
      }
    }
    flying_.push_back(f);
    return f.executed;
  }
  void Apply(Instant now) {
    Flying f = flying_.front();
    flying_.pop_front();
    const BatchResult& r = core_->Update();
    if (!r.sampled.empty()) idle_preemptions_ = 0;
    if (f.executed) {
      f.trace.finished = r.finished;
      f.trace.cancelled = std::exchange(cancelled_, {});
      f.trace.waiting = core_->waiting();
      f.trace.running = core_->running();
      f.trace.free_blocks = core_->free_blocks();
      f.trace.total_blocks = core_->usable_blocks();
      log_.push_back({Event::Kind::kStep, {}, f.end, f.trace, {}, {}});
    }
    for (const RequestId id : r.sampled)
      if (seen_.insert(id.value()).second) log_.push_back({Event::Kind::kFirstToken, id, now, {}, {}, {}});
    for (const auto& finish : r.finished) log_.push_back({Event::Kind::kFinished, finish.request, now, {}, finish, {}});
  }

  EmulatedEngine::Options o_;
  std::unique_ptr<EngineCore> core_;
  std::deque<Message> arrivals_;
  std::deque<Flying> flying_;
  uint64_t steps_ = 0;
  size_t idle_preemptions_ = 0;
  std::vector<RequestId> cancelled_, preempted_;
  std::set<uint64_t> seen_;
  Log log_;
};

std::unique_ptr<EmulatedEngine> Engine(const EmulatedEngine::Options& options) {
  auto made = EmulatedEngine::Make(options);
  EXPECT_TRUE(made.ok()) << made.error().message;
  return std::move(made).value();
}

void Post(EmulatedEngine& engine, const Message& m) {
  if (m.is_request) {
    engine.Submit(m.request, m.at);
  } else {
    engine.Abort(m.request.id, m.at);
  }
}

constexpr Instant kEnd = Instant::FromNanos(int64_t{1} << 50);

Log RunAtOnce(const Scenario& s, EmulatedEngine& engine) {
  LogSink sink;
  for (const Message& m : s.messages) Post(engine, m);
  engine.RunUntil(kEnd, sink);
  return sink.log;
}

void ExpectSame(const Log& expected, const Log& got) {
  for (size_t i = 0; i < std::min(expected.size(), got.size()); ++i) ASSERT_EQ(expected[i], got[i]) << "event " << i;
  ASSERT_EQ(expected.size(), got.size());
}

TEST(EmulatedEngineTest, MatchesThePlainLoopEventForEvent) {
  size_t steps = 0, preempted = 0, cancelled = 0;
  for (const uint64_t seed : testing::Seeds(300)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const Scenario s = RandomScenario(seed);
    const std::optional<Log> expected = PlainLoop(s).Run();
    if (!expected) continue;
    const auto engine = Engine(s.options);
    ExpectSame(*expected, RunAtOnce(s, *engine));
    if (HasFatalFailure()) return;
    for (const Event& e : *expected) {
      steps += e.kind == Event::Kind::kStep ? 1 : 0;
      preempted += e.trace.preempted.size();
      cancelled += e.trace.cancelled.size();
    }
  }
  if (testing::NumberFromEnvironment("FORETOKEN_SEED")) return;
  EXPECT_GT(steps, 1000u);  // the cases do exercise what they are for
  EXPECT_GT(preempted, 10u);
  EXPECT_GT(cancelled, 10u);
}

TEST(EmulatedEngineTest, ResultsDoNotDependOnTracesOrOnHowOftenTheHostStops) {
  for (const uint64_t seed : testing::Seeds(200)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Scenario s = RandomScenario(seed);
    const Log expected = RunAtOnce(s, *Engine(s.options));
    Log outcomes;
    for (const Event& e : expected)
      if (e.kind != Event::Kind::kStep) outcomes.push_back(e);
    // Stopping at random instants and at the engine's own events, messages handed over only when they are due.
    Prng prng(seed);
    const auto engine = Engine(s.options);
    LogSink sink;
    size_t next = 0;
    Instant now = s.options.start;
    while (next < s.messages.size() || engine->NextEvent() != Instant::Max()) {
      Instant to = std::min(engine->NextEvent(), next < s.messages.size() ? s.messages[next].at : Instant::Max());
      if (prng.Chance(0.5)) to = std::max(now, to + Duration::Nanos(prng.Between(-500, 500)));
      to = std::max(to, now);
      for (; next < s.messages.size() && s.messages[next].at <= to; ++next) Post(*engine, s.messages[next]);
      engine->RunUntil(to, sink);
      now = to;
    }
    ExpectSame(expected, sink.log);
    if (HasFatalFailure()) return;
    s.options.traces = false;
    ExpectSame(outcomes, RunAtOnce(s, *Engine(s.options)));
    if (HasFatalFailure()) return;
  }
}

TEST(EmulatedEngineTest, CloneContinuesAsTheOriginalWithoutTouchingIt) {
  for (const uint64_t seed : testing::Seeds(100)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    const Scenario s = RandomScenario(seed);
    const Log expected = RunAtOnce(s, *Engine(s.options));
    if (expected.empty()) continue;
    const auto engine = Engine(s.options);
    for (const Message& m : s.messages) Post(*engine, m);
    LogSink first, cloned, rest;
    engine->RunUntil(expected[expected.size() / 2].at, first);
    const auto clone = engine->Clone();
    clone->RunUntil(kEnd, cloned);
    engine->RunUntil(kEnd, rest);
    ExpectSame(cloned.log, rest.log);
    first.log.insert(first.log.end(), rest.log.begin(), rest.log.end());
    ExpectSame(expected, first.log);
    EXPECT_EQ(clone->counters().tokens, engine->counters().tokens);
    EXPECT_EQ(clone->TakeSnapshot(true), engine->TakeSnapshot(true));
    if (HasFatalFailure()) return;
  }
}

// One idle engine, one request, times by hand.
class EmulatedEngineExampleTest : public ::testing::Test {
 protected:
  EmulatedEngine::Options OptionsFor(bool async) {
    EmulatedEngine::Options o;
    o.config.async_scheduling = async;
    o.config.num_gpu_blocks = 65;
    o.step_time.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{1000, 10, 0, 0});
    o.traces = true;
    return o;
  }
  static EngineRequest Request(uint64_t id, int64_t prompt, int64_t output) {
    EngineRequest q;
    q.id = RequestId(id);
    q.prompt_tokens = prompt;
    q.max_tokens = q.output_tokens = output;
    return q;
  }
  static std::vector<std::pair<int, int64_t>> Times(const Log& log) {
    std::vector<std::pair<int, int64_t>> out;
    for (const Event& e : log) out.emplace_back(static_cast<int>(e.kind), e.at.nanos());
    return out;
  }
};

TEST_F(EmulatedEngineExampleTest, LoneRequestTakesOnePrefillAndOutputMinusOneDecodes) {
  for (const bool async : {false, true}) {
    const auto engine = Engine(OptionsFor(async));
    LogSink sink;
    engine->Submit(Request(1, 100, 3), Instant::FromNanos(5000));
    EXPECT_EQ(engine->NextEvent(), Instant::FromNanos(5000));
    engine->RunUntil(kEnd, sink);
    // Prefill: 1000 + 100 * 10 ns from 5000; then two decodes of 1000 ns.
    const std::vector<std::pair<int, int64_t>> expected = {{0, 7000}, {1, 7000}, {0, 8000}, {0, 9000}, {2, 9000}};
    EXPECT_EQ(Times(sink.log), expected);
    EXPECT_EQ(engine->NextEvent(), Instant::Max());
    EXPECT_EQ(engine->counters().steps, 3u);
    EXPECT_EQ(engine->counters().tokens, 3u);
  }
}

TEST_F(EmulatedEngineExampleTest, AsynchronousEngineComposesAnArrivalOneBatchLater) {
  Log logs[2];
  for (const bool async : {false, true}) {
    const auto engine = Engine(OptionsFor(async));
    LogSink sink;
    engine->Submit(Request(1, 100, 20), Instant::FromNanos(0));
    engine->Submit(Request(2, 100, 1), Instant::FromNanos(2500));  // during the decode that runs from 2000 to 3000
    engine->RunUntil(kEnd, sink);
    for (const Event& e : sink.log)
      if (e.request == RequestId(2)) logs[async ? 1 : 0].push_back(e);
  }
  // Synchronous: composed at 3000. Asynchronous: at 3000 too, but behind the batch already composed, which ends at 4000.
  ASSERT_EQ(logs[0].size(), 2u);
  ASSERT_EQ(logs[1].size(), 2u);
  EXPECT_EQ(logs[0][0].at, Instant::FromNanos(5000));
  EXPECT_EQ(logs[1][0].at, Instant::FromNanos(6000));
}

TEST_F(EmulatedEngineExampleTest, RequestThatCanNeverFitIsRefusedAndHoldsNobodyUp) {
  const auto engine = Engine(OptionsFor(false));  // 64 usable blocks of 16 tokens
  LogSink sink;
  engine->Submit(Request(1, 1025, 1), Instant::FromNanos(0));
  engine->Submit(Request(2, 1000, 26), Instant::FromNanos(0));   // computes 1025 tokens: 65 blocks
  engine->Submit(Request(3, 1000, 25), Instant::FromNanos(0));   // 1024: just fits
  engine->Submit(Request(4, 131072, 1), Instant::FromNanos(0));  // not shorter than max_model_len
  engine->RunUntil(kEnd, sink);
  std::vector<std::pair<uint64_t, OutcomeReason>> refused;
  uint64_t finished = 0;
  for (const Event& e : sink.log) {
    if (e.kind == Event::Kind::kRejected) refused.emplace_back(e.request.value(), e.reason);
    if (e.kind == Event::Kind::kFinished) finished = e.request.value();
  }
  const std::vector<std::pair<uint64_t, OutcomeReason>> expected = {
      {1, OutcomeReason::kNeverFits}, {2, OutcomeReason::kNeverFits}, {4, OutcomeReason::kTooLong}};
  EXPECT_EQ(refused, expected);
  EXPECT_EQ(finished, 3u);
}

TEST_F(EmulatedEngineExampleTest, MissingLawIsAnError) {
  EmulatedEngine::Options o;
  EXPECT_FALSE(EmulatedEngine::Make(o).ok());
}

// Every request ends once, however small the pool: no preempt-and-requeue loop without progress.
TEST(EmulatedEngineTest, EveryRequestEndsExactlyOnceInPoolsThatBarelyHoldOne) {
  uint64_t livelocks = 0;
  for (const uint64_t seed : testing::Seeds(200)) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Scenario s = RandomScenario(seed);
    Prng prng(seed);
    s.options.config.num_gpu_blocks = 2 + static_cast<int32_t>(prng.Below(12));
    std::set<uint64_t> aborted;
    size_t requests = 0;
    for (const Message& m : s.messages) {
      if (!m.is_request) aborted.insert(m.request.id.value());
      requests += m.is_request ? 1 : 0;
    }
    const auto engine = Engine(s.options);
    const Log log = RunAtOnce(s, *engine);
    std::multiset<uint64_t> ended;
    for (const Event& e : log)
      if (e.kind == Event::Kind::kFinished || e.kind == Event::Kind::kRejected) ended.insert(e.request.value());
    for (const Message& m : s.messages) {
      if (!m.is_request) continue;
      const size_t count = ended.count(m.request.id.value());
      if (aborted.contains(m.request.id.value())) {
        EXPECT_LE(count, 1u);
      } else {
        EXPECT_EQ(count, 1u) << "request " << m.request.id.value();
      }
    }
    EXPECT_EQ(engine->core().running() + engine->core().waiting(), 0);
    EXPECT_EQ(engine->core().free_blocks(), engine->core().usable_blocks());
    EXPECT_EQ(engine->NextEvent(), Instant::Max());
    livelocks += engine->counters().livelocks;
  }
  if (!testing::NumberFromEnvironment("FORETOKEN_SEED")) {
    EXPECT_GT(livelocks, 0u);  // the guard was needed
  }
}

}  // namespace
}  // namespace foretoken
