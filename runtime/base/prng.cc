#include "runtime/base/prng.h"

#include <cmath>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

uint64_t Rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

// Box-Muller; one of the pair, so that a draw is a pure function of its two uniforms.
double NormalFrom(uint64_t a, uint64_t b) {
  return std::sqrt(-2.0 * std::log(1.0 - UnitFrom(a))) * std::cos(2.0 * M_PI * UnitFrom(b));
}

}  // namespace

Prng::Prng(uint64_t seed) {
  for (uint64_t& s : s_) {
    s = Mix64(seed);
    seed += 0x9E3779B97F4A7C15ull;
  }
}

uint64_t Prng::Next() {
  const uint64_t result = Rotl(s_[0] + s_[3], 23) + s_[0];
  const uint64_t t = s_[1] << 17;
  s_[2] ^= s_[0];
  s_[3] ^= s_[1];
  s_[1] ^= s_[2];
  s_[0] ^= s_[3];
  s_[2] ^= t;
  s_[3] = Rotl(s_[3], 45);
  return result;
}

uint64_t Prng::Below(uint64_t n) {
  FT_CHECK(n > 0);
  const uint64_t limit = -n % n;  // 2^64 mod n: values below it would be over-represented
  for (;;) {
    const uint64_t x = Next();
    if (x >= limit) return x % n;
  }
}

int64_t Prng::Between(int64_t lo, int64_t hi) {
  FT_CHECK(lo <= hi);
  const uint64_t numbers = static_cast<uint64_t>(hi) - static_cast<uint64_t>(lo) + 1;  // unsigned: the span may pass 2^63
  return static_cast<int64_t>(static_cast<uint64_t>(lo) + (numbers == 0 ? Next() : Below(numbers)));
}

double Prng::Exponential(double mean) { return -mean * std::log(1.0 - Unit()); }

double Prng::Normal() {
  const uint64_t a = Next();
  return NormalFrom(a, Next());
}

double Prng::LogNormal(double mu, double sigma) { return std::exp(mu + sigma * Normal()); }

double Prng::Pareto(double scale, double shape) { return scale / std::pow(1.0 - Unit(), 1.0 / shape); }

double Prng::Gamma(double shape, double scale) {
  FT_CHECK(shape > 0);
  if (shape < 1) {
    const double u = 1.0 - Unit();
    return Gamma(shape + 1, scale) * std::pow(u, 1.0 / shape);
  }
  const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = Normal();
    double v = 1.0 + c * x;
    if (v <= 0) continue;
    v = v * v * v;
    const double u = 1.0 - Unit();
    if (std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v * scale;
  }
}

double NormalAt(uint64_t seed, uint64_t counter) {
  const uint64_t a = Mix64(seed, counter);
  return NormalFrom(a, Mix64(a ^ 0xD1B54A32D192ED03ull));
}

}  // namespace foretoken
