// Seeded randomness whose bytes are ours: the generator and every distribution are written out here, since the ones in
// <random> differ between standard libraries. Same seed, same numbers. Not for cryptography.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace foretoken {

// A good 64-bit mixer (SplitMix64's finaliser): for hashing small keys and for counter-based noise.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}
constexpr uint64_t Mix64(uint64_t a, uint64_t b) { return Mix64(a ^ Mix64(b)); }

// [0, 1) from the top 53 bits.
constexpr double UnitFrom(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }

// xoshiro256++ (Blackman, Vigna), seeded by SplitMix64.
class Prng {
 public:
  explicit Prng(uint64_t seed);
  // An independent stream for a named purpose, so that adding a consumer does not shift another's numbers.
  static Prng ForStream(uint64_t seed, uint64_t stream) { return Prng(Mix64(seed, stream)); }

  uint64_t Next();
  double Unit() { return UnitFrom(Next()); }  // [0, 1)
  uint64_t Below(uint64_t n);                 // uniform over 0..n-1; n > 0; unbiased
  int64_t Between(int64_t lo, int64_t hi);    // uniform over lo..hi, both included
  bool Chance(double p) { return Unit() < p; }
  double Exponential(double mean);
  double Normal();  // mean 0, sd 1
  double LogNormal(double mu, double sigma);
  double Pareto(double scale, double shape);
  double Gamma(double shape, double scale);  // shape > 0 (Marsaglia, Tsang 2000)

  template <class T>
  void Shuffle(std::vector<T>& v) {
    for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[Below(i)]);
  }

 private:
  uint64_t s_[4];
};

// Standard normal at position `counter` of stream `seed`: noise that does not depend on the order of evaluation.
double NormalAt(uint64_t seed, uint64_t counter);

}  // namespace foretoken
