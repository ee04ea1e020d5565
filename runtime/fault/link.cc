#include "runtime/fault/link.h"

#include <algorithm>
#include <cmath>

namespace foretoken {
namespace {

// A law's draw in nanoseconds, before the cap; may be negative, infinite or not a number only by overflow of a heavy tail.
double DrawNanos(const DelayLaw& law, Prng& prng) {
  const double value = static_cast<double>(law.value.nanos());
  switch (law.kind) {
    case DelayLaw::Kind::kConstant: return value;
    case DelayLaw::Kind::kUniform: return static_cast<double>(prng.Between(law.min.nanos(), law.max.nanos()));
    case DelayLaw::Kind::kNormal: return value + static_cast<double>(law.deviation.nanos()) * prng.Normal();
    case DelayLaw::Kind::kLogNormal: return value * std::exp(law.sigma * prng.Normal());
    case DelayLaw::Kind::kPareto: return prng.Pareto(value, law.shape);
  }
  return value;
}

constexpr Duration kLongest = Duration::Seconds(365 * 86'400);  // beyond any run; keeps the sum of times in range

uint64_t HashOf(std::string_view text) {  // FNV-1a: fixed, so that seeds mean the same on every machine
  uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

bool Inside(const PartitionWindow& window, Instant t) {
  if (t < window.from) return false;
  Duration since = t - window.from;
  if (window.every) since = Duration::Nanos(since.nanos() % window.every->nanos());
  return since < window.lasts;
}

}  // namespace

void Deliveries::Add(Instant at) {
  at_[static_cast<size_t>(count_++)] = at;
  if (count_ == 2 && at_[1] < at_[0]) std::swap(at_[0], at_[1]);
}

Duration Draw(const DelayLaw& law, Prng& prng) {
  const double most = static_cast<double>(law.cap.value_or(kLongest).nanos());
  const double ns = DrawNanos(law, prng);
  return Duration::FromNanos(ns > 0 ? std::min(ns, most) : 0);
}

Result<Link> Link::Make(const LinkFaults& faults, uint64_t seed) {
  const Status status = Validate(faults);
  if (!status.ok()) return status.error();
  return Link(faults, seed);
}

Deliveries Link::OnMessage(Instant now, int64_t bytes) {
  ++counters_.sent;
  Deliveries out;
  if (faults_.active && !Inside(*faults_.active, now)) {
    out.Add(now);
    return out;
  }
  const Instant sent = Transmitted(now, bytes);  // what is lost behind the wire has used it all the same
  if (Lost(now)) return out;
  Instant at = sent + Draw(faults_.delay, way_);
  if (faults_.reorder_probability > 0 && way_.Chance(faults_.reorder_probability)) {
    at += Draw(faults_.reorder_delay, way_);
    ++counters_.held_back;
  }
  out.Add(InOrder(at));
  if (faults_.duplicate_probability > 0 && way_.Chance(faults_.duplicate_probability)) {
    const Duration way = Draw(faults_.delay, way_);
    out.Add(InOrder(sent + way + Draw(faults_.duplicate_delay, way_)));
    ++counters_.duplicated;
  }
  return out;
}

bool Link::Lost(Instant now) {
  // Every cause draws its number whatever the others say: adding a partition does not change what else is lost.
  bool lost = false;
  if (faults_.burst_loss) {
    const BurstLoss& b = *faults_.burst_loss;
    burst_ = burst_ ? !loss_.Chance(b.leave) : loss_.Chance(b.enter);
    lost = loss_.Chance(burst_ ? b.loss_bad : b.loss_good);
    if (lost) ++counters_.burst_lost;
  }
  if (faults_.drop_probability > 0 && loss_.Chance(faults_.drop_probability) && !lost) {
    lost = true;
    ++counters_.dropped;
  }
  for (const PartitionWindow& window : faults_.partitions) {
    if (lost || !Inside(window, now)) continue;
    lost = true;
    ++counters_.partitioned;
  }
  return lost;
}

Instant Link::Transmitted(Instant now, int64_t bytes) {
  if (faults_.bytes_per_second == 0) return now;
  const double seconds = static_cast<double>(bytes) / static_cast<double>(faults_.bytes_per_second);
  wire_free_ = std::max(wire_free_, now) + std::min(Duration::FromSeconds(std::min(seconds, 1e9)), kLongest);
  return wire_free_;
}

Instant Link::InOrder(Instant at) {
  if (!faults_.in_order) return at;
  last_at_ = std::max(last_at_, at);
  return last_at_;
}

uint64_t Link::Unseed() const {
  Prng loss = loss_, way = way_;
  return Mix64(loss.Next(), way.Next());
}

uint64_t LinkSeed(uint64_t run_seed, const LinkEnd& from, const LinkEnd& to) {
  uint64_t h = Mix64(run_seed, static_cast<uint64_t>(from.role) + 1);
  h = Mix64(h, HashOf(from.name));
  h = Mix64(h, static_cast<uint64_t>(to.role) + 1);
  return Mix64(h, HashOf(to.name));
}

}  // namespace foretoken
