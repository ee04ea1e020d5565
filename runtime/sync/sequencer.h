// Sequencer: turns one stream's messages, as they happen to arrive, into the stream as it was sent. A stream is
// (instance, source, epoch); every message of it carries seq = 0, 1, 2, ... (protocol.md, "What the receiver does").
//
// Guarantees: a message is handed to the sink at most once and in order of seq within an epoch; at most `window` messages are
// held; a reordering within the window causes no resync; a gap that is not filled in time causes exactly one ResyncRequest (repeated
// only when its answer does not come within resync_retry). It never looks at a clock and sends nothing itself.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"

namespace foretoken {

struct SequencerOptions {
  int32_t window_messages = 64;  // >= 1
  Duration gap_timeout = Duration::Millis(50);
  Duration resync_retry = Duration::Millis(200);  // ask again when no snapshot has come
};

struct SequencerCounters {
  uint64_t applied = 0;
  uint64_t reordered = 0;  // came ahead of their turn and were applied from the window
  uint64_t duplicate = 0;  // seq already applied or held
  uint64_t old_epoch = 0;
  uint64_t gap = 0;     // distinct gaps: missing runs of messages with a later one at hand
  uint64_t resync = 0;  // ResyncRequests for distinct gaps
  uint64_t resync_repeated = 0;
  uint64_t overflow = 0;    // held messages given up because the window was full while a snapshot was awaited
  uint64_t superseded = 0;  // held messages that a snapshot already includes
  uint64_t skipped = 0;     // missing messages that a snapshot stands in for
  uint64_t epoch_change = 0;
  uint64_t held_max = 0;
};

// Sums over streams; held_max is the largest of them.
inline void Add(SequencerCounters& a, const SequencerCounters& b) {
  a.applied += b.applied;
  a.reordered += b.reordered;
  a.duplicate += b.duplicate;
  a.old_epoch += b.old_epoch;
  a.gap += b.gap;
  a.resync += b.resync;
  a.resync_repeated += b.resync_repeated;
  a.overflow += b.overflow;
  a.superseded += b.superseded;
  a.skipped += b.skipped;
  a.epoch_change += b.epoch_change;
  a.held_max = a.held_max > b.held_max ? a.held_max : b.held_max;
}

// M: the message (movable). The sink's calls happen inside OnMessage / OnTimeout.
template <class M>
class Sequencer {
 public:
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void Apply(M& message) = 0;
    // A snapshot: replaces the state with that after all messages before it.
    virtual void ApplySnapshot(M& message) = 0;
    // A new epoch (the first one heard of, or a restart): everything known of an older one is void.
    virtual void EpochChanged(Epoch now) = 0;
    // Ask for a snapshot: nothing after `from_seq` - 1 is known.
    virtual void RequestResync(Epoch epoch, uint64_t from_seq) = 0;
  };
  struct Header {
    Epoch epoch;
    uint64_t seq = 0;
    bool is_snapshot = false;  // a snapshot includes every message of its stream with a smaller seq
  };

  explicit Sequencer(SequencerOptions options) : options_(options) { FT_CHECK(options.window_messages >= 1); }

  void OnMessage(const Header& h, M& message, Instant now, Sink& sink) {
    if (known_ && h.epoch < epoch_) {
      ++counters_.old_epoch;
      return;
    }
    if (!known_ || epoch_ < h.epoch) StartEpoch(h.epoch, sink);
    if (h.seq < next_ || IsHeld(h.seq)) {
      ++counters_.duplicate;
      return;
    }
    if (h.is_snapshot) {
      TakeSnapshot(h, message, now, sink);
    } else if (h.seq == next_) {
      ++next_;
      ++counters_.applied;
      sink.Apply(message);
      Drain(now, sink);
    } else {
      Hold(h, message, now, sink);
    }
  }

  // When OnTimeout wants to be called; Instant::Max(): never.
  Instant NextTimeout() const { return deadline_; }

  void OnTimeout(Instant now, Sink& sink) {
    if (now < deadline_) return;
    AskForSnapshot(now, sink);
  }

  // True while messages are missing: what was applied is older than what is known to exist.
  bool gap_open() const { return !held_.empty() || awaiting_snapshot_; }
  uint64_t next_seq() const { return next_; }
  Epoch epoch() const { return epoch_; }
  size_t held() const { return held_.size(); }
  const SequencerCounters& counters() const { return counters_; }

 private:
  struct Held {
    Header header;
    M message;
  };

  void StartEpoch(Epoch epoch, Sink& sink) {
    const bool changed = known_;
    known_ = true;
    epoch_ = epoch;
    next_ = 0;
    held_.clear();
    awaiting_snapshot_ = false;
    deadline_ = Instant::Max();
    counters_.epoch_change += changed;
    sink.EpochChanged(epoch);
  }

  bool IsHeld(uint64_t seq) const {
    const size_t i = LowerBound(seq);
    return i < held_.size() && held_[i].header.seq == seq;
  }

  size_t LowerBound(uint64_t seq) const {  // held_ is small and nearly always appended to: search from the back
    size_t i = held_.size();
    while (i > 0 && held_[i - 1].header.seq >= seq) --i;
    return i;
  }

  void Hold(const Header& h, M& message, Instant now, Sink& sink) {
    if (held_.empty() && !awaiting_snapshot_) {
      ++counters_.gap;
      deadline_ = now + options_.gap_timeout;
    }
    held_.insert(held_.begin() + static_cast<ptrdiff_t>(LowerBound(h.seq)), Held{h, std::move(message)});
    if (held_.size() > counters_.held_max) counters_.held_max = held_.size();
    if (held_.size() <= static_cast<size_t>(options_.window_messages)) return;
    if (!awaiting_snapshot_) AskForSnapshot(now, sink);
    // The snapshot is taken after the newest of these was sent, so the oldest is the one it surely includes.
    held_.erase(held_.begin());
    ++counters_.overflow;
  }

  void AskForSnapshot(Instant now, Sink& sink) {
    if (awaiting_snapshot_) {
      ++counters_.resync_repeated;
    } else {
      ++counters_.resync;
      awaiting_snapshot_ = true;
    }
    deadline_ = now + options_.resync_retry;
    sink.RequestResync(epoch_, next_);
  }

  void TakeSnapshot(const Header& h, M& message, Instant now, Sink& sink) {
    size_t included = 0;
    while (included < held_.size() && held_[included].header.seq < h.seq) ++included;
    held_.erase(held_.begin(), held_.begin() + static_cast<ptrdiff_t>(included));
    counters_.superseded += included;
    counters_.skipped += h.seq - next_ - included;
    next_ = h.seq + 1;
    awaiting_snapshot_ = false;
    ++counters_.applied;
    sink.ApplySnapshot(message);
    Drain(now, sink);
  }

  void Drain(Instant now, Sink& sink) {
    while (!held_.empty() && held_.front().header.seq == next_) {
      Held h = std::move(held_.front());
      held_.erase(held_.begin());
      ++next_;
      ++counters_.applied;
      ++counters_.reordered;
      sink.Apply(h.message);
    }
    if (!held_.empty()) ++counters_.gap;                                  // behind the one that closed lies another
    if (awaiting_snapshot_ && held_.empty()) awaiting_snapshot_ = false;  // the missing message came after all
    if (!awaiting_snapshot_) deadline_ = held_.empty() ? Instant::Max() : now + options_.gap_timeout;
  }

  SequencerOptions options_;
  SequencerCounters counters_;
  bool known_ = false;
  Epoch epoch_;
  uint64_t next_ = 0;
  std::vector<Held> held_;  // ascending seq, all > next_
  bool awaiting_snapshot_ = false;
  Instant deadline_ = Instant::Max();
};

}  // namespace foretoken
