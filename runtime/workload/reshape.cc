#include "runtime/workload/reshape.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

constexpr uint64_t kNamedByFile = uint64_t{1} << 63;  // contents with this bit are no request's own (load_trace.h)

// Where a seed begins, as a share of the part: multiples of the golden ratio spread any number of seeds evenly.
double StartOf(uint64_t seed) {
  constexpr double kGolden = 0.6180339887498949;
  const double turns = static_cast<double>(seed - std::min<uint64_t>(seed, 1)) * kGolden;
  return turns - std::floor(turns);
}

// One request of one copy, on its way to its new number.
struct Placed {
  int64_t at_ns = 0;
  int32_t copy = 0;
  size_t index = 0;  // in the recorded trace
};

std::vector<Placed> Place(const Trace& trace, const TraceShape& shape, uint64_t seed) {
  const auto n = static_cast<double>(trace.requests.size());
  const auto from = static_cast<size_t>(n * shape.from), to = static_cast<size_t>(n * shape.to);
  std::vector<Placed> placed;
  if (to <= from) return placed;
  const int64_t start = trace.requests[from].meta.arrival.nanos();
  const int64_t last = trace.requests[to - 1].meta.arrival.nanos() - start;
  // The gap between the last request and the first of the next turn is a mean one.
  const int64_t span = std::max<int64_t>(1, last + last / static_cast<int64_t>(std::max<size_t>(to - from - 1, 1)));
  for (int32_t copy = 0; copy < shape.copies; ++copy) {
    double turn = (shape.rotate ? StartOf(seed) : 0) + static_cast<double>(copy) / shape.copies;
    turn -= std::floor(turn);
    const auto shift = static_cast<int64_t>(turn * static_cast<double>(span));
    for (size_t k = from; k < to; ++k) {
      const int64_t at = trace.requests[k].meta.arrival.nanos() - start - shift;
      placed.push_back({at < 0 ? at + span : at, copy, k});
    }
  }
  std::stable_sort(placed.begin(), placed.end(), [](const Placed& a, const Placed& b) { return a.at_ns < b.at_ns; });
  return placed;
}

// New numbers of the recorded requests, per copy.
class Numbers {
 public:
  Numbers(const Trace& trace, const std::vector<Placed>& placed, int32_t copies)
      : trace_(trace),
        numbers_(static_cast<size_t>(copies), std::vector<uint64_t>(trace.requests.size(), 0)),
        next_(placed.size()) {
    for (size_t k = 0; k < placed.size(); ++k) numbers_[static_cast<size_t>(placed[k].copy)][placed[k].index] = k + 1;
  }

  // What content is called in a copy: shared contents stay shared within it and only there.
  uint64_t ContentOf(uint64_t content, int32_t copy) {
    if ((content & kNamedByFile) != 0) return copy == 0 ? content : Mix64(content, static_cast<uint64_t>(copy)) | kNamedByFile;
    const bool output = content % 2 == 1;
    const uint64_t id = output ? (content - 1) / 2 : (content - 2) / 2;
    const uint64_t number = NumberOf(id, copy);
    return output ? OutputContent(RequestId(number)) : PrivateContent(RequestId(number));
  }

 private:
  // A recorded trace numbers its requests 1, 2, ...; those outside the part get numbers behind all others.
  uint64_t NumberOf(uint64_t id, int32_t copy) {
    if (id == 0 || id > trace_.requests.size()) return Mix64(id, static_cast<uint64_t>(copy)) >> 2;
    uint64_t& number = numbers_[static_cast<size_t>(copy)][id - 1];
    if (number == 0) number = ++next_;
    return number;
  }

  const Trace& trace_;
  std::vector<std::vector<uint64_t>> numbers_;  // 0: none yet
  uint64_t next_;
};

}  // namespace

Trace Reshape(const Trace& trace, const TraceShape& shape, uint64_t seed) {
  const std::vector<Placed> placed = Place(trace, shape, seed);
  Numbers numbers(trace, placed, shape.copies);
  Trace out;
  out.name = trace.name;
  out.requests.reserve(placed.size());
  for (const Placed& p : placed) {
    TraceRequest r = trace.requests[p.index];
    r.meta.id = RequestId(out.requests.size() + 1);
    r.meta.arrival = Instant::FromNanos(p.at_ns);
    if (p.copy > 0 && r.meta.session != 0) r.meta.session = Mix64(r.meta.session, static_cast<uint64_t>(p.copy));
    for (PromptSegment& s : r.meta.segments) s.content = numbers.ContentOf(s.content, p.copy);
    out.requests.push_back(std::move(r));
  }
  return out;
}

}  // namespace foretoken
