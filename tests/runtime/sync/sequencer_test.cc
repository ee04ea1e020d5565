// The receiver's rules for a sync stream: order, duplicates, gaps, epochs, snapshots. The stream's "state" in these tests is the list
// of messages that the state stands for, so that any delivery can be compared with in-order delivery.
#include "runtime/sync/sequencer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "runtime/base/prng.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

struct Message {
  uint64_t epoch = 0;
  uint64_t seq = 0;
  bool snapshot = false;
};

// What a mirror would be: the set of (epoch, seq) its state includes, and whether they came in order.
class Mirror : public Sequencer<Message>::Sink {
 public:
  void Apply(Message& m) override {
    EXPECT_EQ(m.epoch, epoch_);
    EXPECT_EQ(m.seq, included_) << "applied out of order";
    included_ = m.seq + 1;
    ++applied_;
  }
  void ApplySnapshot(Message& m) override {
    EXPECT_EQ(m.epoch, epoch_);
    EXPECT_GE(m.seq, included_) << "a snapshot took the state back";
    included_ = m.seq + 1;
    ++snapshots_;
  }
  void EpochChanged(Epoch now) override {
    EXPECT_GT(now.value(), epoch_);
    epoch_ = now.value();
    included_ = 0;
  }
  void RequestResync(Epoch epoch, uint64_t from_seq) override {
    EXPECT_EQ(epoch.value(), epoch_);
    EXPECT_EQ(from_seq, included_);
    ++resyncs_;
  }

  uint64_t epoch_ = 0;
  uint64_t included_ = 0;  // the state is that after messages 0 .. included_-1
  int applied_ = 0, snapshots_ = 0, resyncs_ = 0;
};

Instant Ms(int64_t ms) { return Instant::FromNanos(ms * 1'000'000); }

struct Receiver {
  explicit Receiver(SequencerOptions o = {}) : sequencer(o) {}
  void Deliver(Message m, Instant now) {
    sequencer.OnMessage({Epoch(m.epoch), m.seq, m.snapshot}, m, now, mirror);
    EXPECT_LE(sequencer.held(), static_cast<size_t>(window));
  }
  void Tick(Instant now) {
    while (sequencer.NextTimeout() <= now) sequencer.OnTimeout(sequencer.NextTimeout(), mirror);
  }
  int window = 64;
  Mirror mirror;
  Sequencer<Message> sequencer;
};

TEST(SequencerTest, InOrderMessagesAreAppliedAtOnce) {
  Receiver r;
  for (uint64_t s = 0; s < 5; ++s) r.Deliver({1, s}, Ms(1));
  EXPECT_EQ(r.mirror.included_, 5u);
  EXPECT_EQ(r.sequencer.counters().applied, 5u);
  EXPECT_EQ(r.sequencer.NextTimeout(), Instant::Max());
}

TEST(SequencerTest, ARepeatedMessageIsDroppedAndCounted) {
  Receiver r;
  r.Deliver({1, 0}, Ms(1));
  r.Deliver({1, 0}, Ms(2));
  r.Deliver({1, 2}, Ms(3));
  r.Deliver({1, 2}, Ms(3));  // held, and repeated
  EXPECT_EQ(r.sequencer.counters().duplicate, 2u);
  EXPECT_EQ(r.mirror.included_, 1u);
}

TEST(SequencerTest, ReorderingWithinTheWindowCausesNoResync) {
  for (int window : {1, 2, 7, 64}) {
    Receiver r({window, Duration::Millis(50), Duration::Millis(200)});
    r.window = window;
    for (uint64_t s = 1; s <= static_cast<uint64_t>(window); ++s) r.Deliver({1, s}, Ms(1));
    r.Deliver({1, 0}, Ms(49));
    r.Tick(Ms(1000));
    EXPECT_EQ(r.mirror.included_, static_cast<uint64_t>(window) + 1) << "window " << window;
    EXPECT_EQ(r.mirror.resyncs_, 0) << "window " << window;
    EXPECT_EQ(r.sequencer.counters().reordered, static_cast<uint64_t>(window));
  }
}

TEST(SequencerTest, OneMessageBeyondTheWindowCausesExactlyOneResync) {
  for (int window : {1, 2, 7, 64}) {
    Receiver r({window, Duration::Millis(50), Duration::Seconds(10)});
    r.window = window;
    for (uint64_t s = 1; s <= static_cast<uint64_t>(window) + 5; ++s) r.Deliver({1, s}, Ms(1));
    EXPECT_EQ(r.mirror.resyncs_, 1) << "window " << window;
    EXPECT_EQ(r.sequencer.counters().resync, 1u);
  }
}

TEST(SequencerTest, AGapThatIsNotFilledInTimeCausesOneResyncAndASnapshotClosesIt) {
  Receiver r;
  r.Deliver({1, 0}, Ms(0));
  r.Deliver({1, 2}, Ms(10));
  r.Tick(Ms(59));
  EXPECT_EQ(r.mirror.resyncs_, 0);
  r.Tick(Ms(60));
  EXPECT_EQ(r.mirror.resyncs_, 1);
  r.Deliver({1, 4}, Ms(70));  // behind the snapshot in order of sending, before it in order of arrival
  r.Deliver({1, 3, true}, Ms(80));
  EXPECT_EQ(r.mirror.included_, 5u);
  EXPECT_EQ(r.sequencer.counters().superseded, 1u) << "message 2 is in the snapshot";
  EXPECT_EQ(r.sequencer.counters().skipped, 1u) << "message 1 never came";
  r.Tick(Ms(10'000));
  EXPECT_EQ(r.mirror.resyncs_, 1);
}

TEST(SequencerTest, ALostSnapshotIsAskedForAgain) {
  Receiver r;
  r.Deliver({1, 1}, Ms(0));
  r.Tick(Ms(50));
  r.Tick(Ms(50 + 200));
  EXPECT_EQ(r.mirror.resyncs_, 2);
  EXPECT_EQ(r.sequencer.counters().resync, 1u);
  EXPECT_EQ(r.sequencer.counters().resync_repeated, 1u);
}

TEST(SequencerTest, AnOlderSnapshotNeverTakesTheStateBack) {
  Receiver r;
  for (uint64_t s = 0; s < 4; ++s) r.Deliver({1, s}, Ms(0));
  r.Deliver({1, 2, true}, Ms(1));
  EXPECT_EQ(r.mirror.included_, 4u);
  EXPECT_EQ(r.mirror.snapshots_, 0);
}

TEST(SequencerTest, ANewerEpochVoidsTheOldOneAndItsLateMessagesAreDropped) {
  Receiver r;
  r.Deliver({1, 0}, Ms(0));
  r.Deliver({1, 5}, Ms(0));
  r.Deliver({2, 0}, Ms(1));
  r.Deliver({1, 1}, Ms(2));
  EXPECT_EQ(r.mirror.epoch_, 2u);
  EXPECT_EQ(r.mirror.included_, 1u);
  EXPECT_EQ(r.sequencer.counters().old_epoch, 1u);
  EXPECT_EQ(r.sequencer.counters().epoch_change, 1u);
  EXPECT_EQ(r.sequencer.held(), 0u);
}

// After any delivery, a snapshot of everything (as the answer to a resync) makes the state that of in-order delivery.
void Settle(Receiver& r, uint64_t epoch, uint64_t sent, Instant from) {
  r.Tick(from + Duration::Seconds(1));
  if (r.mirror.epoch_ < epoch || r.mirror.included_ < sent) r.Deliver({epoch, sent, true}, from + Duration::Seconds(2));
}

TEST(SequencerTest, EveryDeliveryOfSixMessagesOverTwoEpochsConverges) {
  // Bounded-exhaustive: three messages of each of two epochs; every order of every multiset with up to 2 duplicates and 2 losses.
  const Message all[6] = {{1, 0}, {1, 1}, {1, 2}, {2, 0}, {2, 1}, {2, 2}};
  uint64_t deliveries = 0;
  std::vector<int> copies(6);
  const auto run = [&](const std::vector<int>& order) {
    Receiver r({2, Duration::Millis(50), Duration::Millis(200)});
    r.window = 2;
    for (size_t k = 0; k < order.size(); ++k) r.Deliver(all[order[k]], Ms(static_cast<int64_t>(k)));
    Settle(r, 2, 3, Ms(10));
    ++deliveries;
    ASSERT_EQ(r.mirror.epoch_, 2u);
    ASSERT_GE(r.mirror.included_, 3u);
    ASSERT_EQ(r.sequencer.held(), 0u);
  };
  for (int mask = 0; mask < 729; ++mask) {  // each message 0, 1 or 2 times
    int lost = 0, doubled = 0;
    std::vector<int> order;
    for (int m = 0, rest = mask; m < 6; ++m, rest /= 3) {
      copies[static_cast<size_t>(m)] = rest % 3;
      lost += rest % 3 == 0;
      doubled += rest % 3 == 2;
      for (int c = 0; c < rest % 3; ++c) order.push_back(m);
    }
    if (lost > 2 || doubled > 2) continue;
    do run(order);
    while (std::next_permutation(order.begin(), order.end()) && !HasFatalFailure());
  }
  std::printf("%llu deliveries\n", static_cast<unsigned long long>(deliveries));
  EXPECT_GT(deliveries, 100'000u);
}

TEST(SequencerTest, RandomSchedulesWithResyncConvergeToInOrderDelivery) {
  // A sender that answers resyncs, over a link that delays, reorders, duplicates and loses; epochs change now and then.
  const uint64_t seed = foretoken::testing::Seeds(1).back();
  const int schedules = static_cast<int>(foretoken::testing::Cases(20'000));
  std::printf("seed %llu, %d schedules\n", static_cast<unsigned long long>(seed), schedules);
  for (int k = 0; k < schedules; ++k) {
    Prng prng = Prng::ForStream(seed, static_cast<uint64_t>(k));
    const int window = static_cast<int>(prng.Between(1, 8));
    Receiver r({window, Duration::Millis(20), Duration::Millis(80)});
    r.window = window;
    const double loss = prng.Unit() * 0.4, duplicate = prng.Unit() * 0.4;
    const int64_t spread = prng.Between(0, 40);
    std::multimap<int64_t, Message> wire;
    uint64_t epoch = 1, seq = 0;
    int answered = 0;
    int64_t t = 0;
    const auto send = [&](bool snapshot, bool reliable) {
      const Message m{epoch, seq++, snapshot};
      const int n = reliable ? 1 : prng.Chance(loss) ? 0 : prng.Chance(duplicate) ? 2 : 1;
      for (int c = 0; c < n; ++c) wire.emplace(t + prng.Between(0, spread), m);
    };
    const auto deliver_until = [&](int64_t now) {
      for (;;) {
        const int64_t timer =
            r.sequencer.NextTimeout() == Instant::Max() ? now + 1 : r.sequencer.NextTimeout().nanos() / 1'000'000;
        const int64_t next = wire.empty() ? now + 1 : wire.begin()->first;
        if (std::min(timer, next) > now) break;
        if (next <= timer) {
          r.Deliver(wire.begin()->second, Ms(next));
          wire.erase(wire.begin());
        } else {
          r.sequencer.OnTimeout(Ms(timer), r.mirror);
        }
        for (; answered < r.mirror.resyncs_; ++answered) send(true, false);
      }
    };
    for (int step = 0; step < 60; ++step) {
      t += prng.Between(0, 5);
      deliver_until(t);
      if (prng.Chance(0.02)) ++epoch, seq = 0;
      send(false, false);
    }
    // Heartbeats go on when the work is over, so that the loss of a last message shows.
    for (int rounds = 0; rounds < 4000 && (rounds < 100 || r.mirror.epoch_ != epoch || r.mirror.included_ != seq); ++rounds) {
      if (rounds % 12 == 0) send(false, false);
      deliver_until(t += 20);
    }
    ASSERT_EQ(r.mirror.epoch_, epoch) << "schedule " << k << " seed " << seed;
    ASSERT_EQ(r.mirror.included_, seq) << "schedule " << k << " seed " << seed;
  }
}

}  // namespace
}  // namespace foretoken
