// Units: time in integer nanoseconds, tokens and KV blocks as counts. Only meaningful arithmetic compiles
// (Instant - Instant = Duration; no Instant + Instant). Doubles appear only in reports and laws of step time.
#pragma once

#include <compare>
#include <cstdint>
#include <limits>

namespace foretoken {

class Duration {
 public:
  constexpr Duration() = default;
  static constexpr Duration Nanos(int64_t n) { return Duration(n); }
  static constexpr Duration Micros(int64_t n) { return Duration(n * 1'000); }
  static constexpr Duration Millis(int64_t n) { return Duration(n * 1'000'000); }
  static constexpr Duration Seconds(int64_t n) { return Duration(n * 1'000'000'000); }
  // Nearest nanosecond; for figures that come from text or from a fitted law.
  static constexpr Duration FromSeconds(double s) { return Duration(Round(s * 1e9)); }
  static constexpr Duration FromNanos(double ns) { return Duration(Round(ns)); }
  static constexpr Duration Max() { return Duration(std::numeric_limits<int64_t>::max()); }

  constexpr int64_t nanos() const { return ns_; }
  constexpr double seconds() const { return static_cast<double>(ns_) * 1e-9; }

  constexpr auto operator<=>(const Duration&) const = default;
  constexpr Duration operator-() const { return Duration(-ns_); }
  constexpr Duration& operator+=(Duration o) {
    ns_ += o.ns_;
    return *this;
  }
  constexpr Duration& operator-=(Duration o) {
    ns_ -= o.ns_;
    return *this;
  }
  friend constexpr Duration operator+(Duration a, Duration b) { return Duration(a.ns_ + b.ns_); }
  friend constexpr Duration operator-(Duration a, Duration b) { return Duration(a.ns_ - b.ns_); }
  friend constexpr Duration operator*(Duration a, int64_t k) { return Duration(a.ns_ * k); }

 private:
  explicit constexpr Duration(int64_t ns) : ns_(ns) {}
  static constexpr int64_t Round(double x) { return static_cast<int64_t>(x < 0 ? x - 0.5 : x + 0.5); }
  int64_t ns_ = 0;
};

// A point on one clock; which clock is said where the value is declared. Virtual time starts at 0.
class Instant {
 public:
  constexpr Instant() = default;
  static constexpr Instant FromNanos(int64_t ns) { return Instant(ns); }
  static constexpr Instant Max() { return Instant(std::numeric_limits<int64_t>::max()); }

  constexpr int64_t nanos() const { return ns_; }
  constexpr double seconds() const { return static_cast<double>(ns_) * 1e-9; }

  constexpr auto operator<=>(const Instant&) const = default;
  constexpr Instant& operator+=(Duration d) {
    ns_ += d.nanos();
    return *this;
  }
  friend constexpr Instant operator+(Instant t, Duration d) { return Instant(t.ns_ + d.nanos()); }
  friend constexpr Instant operator-(Instant t, Duration d) { return Instant(t.ns_ - d.nanos()); }
  friend constexpr Duration operator-(Instant a, Instant b) { return Duration::Nanos(a.ns_ - b.ns_); }

 private:
  explicit constexpr Instant(int64_t ns) : ns_(ns) {}
  int64_t ns_ = 0;
};

// A signed count of one kind of thing.
template <class Tag>
class Count {
 public:
  constexpr Count() = default;
  explicit constexpr Count(int64_t n) : n_(n) {}
  constexpr int64_t value() const { return n_; }
  constexpr auto operator<=>(const Count&) const = default;
  constexpr Count& operator+=(Count o) {
    n_ += o.n_;
    return *this;
  }
  constexpr Count& operator-=(Count o) {
    n_ -= o.n_;
    return *this;
  }
  friend constexpr Count operator+(Count a, Count b) { return Count(a.n_ + b.n_); }
  friend constexpr Count operator-(Count a, Count b) { return Count(a.n_ - b.n_); }

 private:
  int64_t n_ = 0;
};

using TokenCount = Count<struct TokenTag>;
using BlockCount = Count<struct BlockTag>;

// Blocks needed to hold `tokens` when a KV block holds `block_tokens` (> 0) of them: rounds up.
constexpr BlockCount BlocksFor(TokenCount tokens, TokenCount block_tokens) {
  return BlockCount((tokens.value() + block_tokens.value() - 1) / block_tokens.value());
}

}  // namespace foretoken
