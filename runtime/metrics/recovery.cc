#include "runtime/metrics/recovery.h"

#include <algorithm>
#include <cstdint>

namespace foretoken {
namespace {

struct Slice {
  Instant from;
  double sum = 0;
  int64_t count = 0;
  double mean() const { return sum / static_cast<double>(count); }
};

// Those that have samples, from `begin` on.
std::vector<Slice> SlicesOf(const std::vector<ErrorSample>& samples, Instant begin, Duration width) {
  std::vector<Slice> slices;
  for (const ErrorSample& s : samples) {
    if (s.at < begin) continue;
    const Instant from = begin + width * ((s.at - begin).nanos() / width.nanos());
    if (slices.empty() || slices.back().from != from) slices.push_back({from, 0, 0});
    slices.back().sum += s.error;
    ++slices.back().count;
  }
  return slices;
}

}  // namespace

std::optional<Duration> RecoveryTime(const std::vector<ErrorSample>& faulty, const std::vector<ErrorSample>& clean, Instant end,
                                     const RecoveryOptions& options) {
  const std::vector<Slice> normal = SlicesOf(clean, Instant(), options.slice), after = SlicesOf(faulty, end, options.slice);
  if (normal.empty() || after.empty()) return std::nullopt;
  double band = 0;
  for (const Slice& s : normal) band = std::max(band, s.mean());
  std::optional<Instant> back;
  for (const Slice& s : after) {
    if (s.mean() > band) {
      back.reset();
    } else {
      if (!back) back = s.from;
      if (s.from - *back >= options.stays) break;
    }
  }
  if (!back) return std::nullopt;
  return *back - end;
}

}  // namespace foretoken
