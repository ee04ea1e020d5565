// Link: one direction between two roles, with faults. Pure: a message's size and time go in, the times at which its copies
// arrive come out. Deterministic: the same seed and the same calls give the same answers; another link's traffic changes
// nothing. Does not hold messages; the host delivers each copy at its time (copies with equal times in the order of sending).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "runtime/base/prng.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/fault/fault_plan.h"

namespace foretoken {

// When the copies of one message arrive: none (lost), one, or two (duplicated), earliest first.
class Deliveries {
 public:
  const Instant* begin() const { return at_.data(); }
  const Instant* end() const { return at_.data() + count_; }
  size_t size() const { return static_cast<size_t>(count_); }
  bool empty() const { return count_ == 0; }
  Instant operator[](size_t i) const { return at_[i]; }
  void Add(Instant at);

 private:
  std::array<Instant, 2> at_;
  int count_ = 0;
};

struct LinkCounters {
  uint64_t sent = 0;
  uint64_t dropped = 0;      // by drop_probability
  uint64_t burst_lost = 0;   // by burst_loss
  uint64_t partitioned = 0;  // sent while a partition lasted
  uint64_t duplicated = 0;
  uint64_t held_back = 0;  // took reorder_delay
};

// Sums over links.
inline void Add(LinkCounters& a, const LinkCounters& b) {
  a.sent += b.sent;
  a.dropped += b.dropped;
  a.burst_lost += b.burst_lost;
  a.partitioned += b.partitioned;
  a.duplicated += b.duplicated;
  a.held_back += b.held_back;
}

class Link {
 public:
  // Error: the first field that breaks its rule (Validate).
  static Result<Link> Make(const LinkFaults& faults, uint64_t seed);

  // A message of `bytes` is sent at `now`, not before the one before it.
  Deliveries OnMessage(Instant now, int64_t bytes);

  // What the sender's clock shows at `now`.
  Instant SenderClock(Instant now) const { return faults_.clock.At(now); }

  const LinkCounters& counters() const { return counters_; }
  // A number that two links share only if they have drawn alike; ends a determinism check.
  uint64_t Unseed() const;

 private:
  Link(const LinkFaults& faults, uint64_t seed)
      : faults_(faults), loss_(Prng::ForStream(seed, 0)), way_(Prng::ForStream(seed, 1)) {}

  bool Lost(Instant now);
  Instant Transmitted(Instant now, int64_t bytes);
  Instant InOrder(Instant at);

  LinkFaults faults_;
  Prng loss_;  // apart from way_, so that a partition or another delay does not change what a lossy link loses
  Prng way_;
  bool burst_ = false;  // Gilbert-Elliott's bad state
  Instant wire_free_;   // the wire is busy until then
  Instant last_at_;     // latest arrival so far (in_order)
  LinkCounters counters_;
};

// The draw of a law; never negative.
Duration Draw(const DelayLaw& law, Prng& prng);

// A seed of one link's own, from the run's seed and the two ends; independent of the order in which links are made.
uint64_t LinkSeed(uint64_t run_seed, const LinkEnd& from, const LinkEnd& to);

}  // namespace foretoken
