// ClockMap: from an engine's clock to the router's, for one (instance, epoch). Wall clocks are never compared: every message
// bounds the offset from one side, and the map keeps the intersection of the bounds.
//   a message sent at engine time e and received at router time r:       offset <= r - e
//   a message sent at router time p and received at engine time e:       offset >= p - e
// where router time = engine time + offset. The estimate is the middle, its uncertainty half the width: the true offset lies
// within estimate +- uncertainty as long as the clocks drift apart by less than drift_ppm_max. An asymmetric delay widens the
// interval; it cannot make it wrong.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "runtime/base/units.h"

namespace foretoken {

// Beyond what crystal oscillators do, and what NTP slews at most.
inline constexpr double kClockDriftMaxPpm = 500;

class ClockMap {
 public:
  explicit ClockMap(double drift_ppm_max = kClockDriftMaxPpm) : drift_(drift_ppm_max * 1e-6) {}

  void OnReceived(Instant sent_engine, Instant received_router) {
    Bucket& b = At(received_router);
    b.upper = std::min(b.upper, static_cast<double>((received_router - sent_engine).nanos()) + Widening(b, received_router));
  }
  void OnEcho(Instant sent_router, Instant received_engine, Instant now_router) {
    Bucket& b = At(now_router);
    b.lower = std::max(b.lower, static_cast<double>((sent_router - received_engine).nanos()) - Widening(b, sent_router));
  }

  // Both bounds are known; without, the map is a guess from one side and its uncertainty says so.
  bool bounded(Instant now) const {
    const Interval i = At(now);
    return i.lower > -kUnknown && i.upper < kUnknown;
  }

  // How far the clocks may drift apart meanwhile.
  Duration DriftOver(Duration d) const { return Duration::FromNanos(drift_ * static_cast<double>(d.nanos())); }

  // The router's time of an engine's instant, as known at `now` (router).
  Instant ToRouter(Instant engine, Instant now) const { return engine + Duration::FromNanos(Middle(At(now))); }
  Duration Uncertainty(Instant now) const {
    const Interval i = At(now);
    if (i.lower <= -kUnknown || i.upper >= kUnknown) return Duration::Max();
    return Duration::FromNanos(std::max(0.0, (i.upper - i.lower) / 2) + 1);
  }

 private:
  static constexpr double kUnknown = 4e18;
  static constexpr int kBuckets = 16;
  static constexpr int64_t kBucketNanos =
      2'000'000'000;  // a bound older than kBuckets x this is forgotten: drift has used it up

  struct Interval {
    double lower = -kUnknown;
    double upper = kUnknown;
  };
  struct Bucket : Interval {
    int64_t index = -1;
  };

  // Bounds of a bucket are stated for its start.
  double Widening(const Bucket& b, Instant at) const {
    return drift_ * static_cast<double>(std::abs(at.nanos() - b.index * kBucketNanos));
  }

  Bucket& At(Instant now) {
    const int64_t index = now.nanos() / kBucketNanos;
    Bucket& b = buckets_[static_cast<size_t>(index) % kBuckets];
    if (b.index != index) b = Bucket{{}, index};
    return b;
  }

  Interval At(Instant now) const {
    Interval out;
    const int64_t newest = now.nanos() / kBucketNanos;
    for (const Bucket& b : buckets_) {
      if (b.index < 0 || newest - b.index >= kBuckets) continue;
      const double w = Widening(b, now);
      if (b.lower > -kUnknown) out.lower = std::max(out.lower, b.lower - w);
      if (b.upper < kUnknown) out.upper = std::min(out.upper, b.upper + w);
    }
    return out;
  }

  static double Middle(const Interval& i) {
    if (i.lower > -kUnknown && i.upper < kUnknown) return (i.lower + i.upper) / 2;
    if (i.upper < kUnknown) return i.upper;  // the fastest message so far, taken as instantaneous
    return i.lower > -kUnknown ? i.lower : 0;
  }

  double drift_;
  std::array<Bucket, kBuckets> buckets_;
};

}  // namespace foretoken
