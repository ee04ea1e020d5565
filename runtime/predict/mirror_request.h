// MirrorRequest: all that the timeline keeps of one request, in 64 bytes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/base/units.h"
#include "runtime/model/request.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

// Its times after arrival are kept in units of 2^14 ns (16 us): 9 hours fit.
inline int32_t OffsetOf(Duration d) { return static_cast<int32_t>(std::clamp<int64_t>(d.nanos() >> 14, 0, INT32_MAX)); }
inline Duration DurationOfOffset(int32_t offset) { return Duration::Nanos(int64_t{offset} << 14); }

enum class MirrorPhase : uint8_t { kFree, kWaiting, kPrefill, kDecode };

struct MirrorRequest {
  uint64_t id = 0;
  int64_t ready_ns = 0;  // when the engine has it; router's clock
  // After `ready_ns`, as OffsetOf: the first token, predicted until it is there, and the predicted last one; negative: unknown.
  int32_t first_token = -1;
  int32_t predicted_end = -1;
  float quantile = 0.5F;  // of its output length
  uint32_t length_class = 0;
  int32_t max_tokens = -1;  // negative: absent
  int32_t hint = -1;        // negative: absent
  int32_t prompt = 0;
  int32_t total = 1;     // output tokens expected
  int32_t expected = 1;  // as assigned: `total` before any of it was passed
  // Waiting and prefill: tokens generated before (a preempted request). Decode: tokens generated minus the step's index.
  int32_t progress = 0;
  // Waiting: prompt tokens expected in the prefix cache. Prefill: tokens computed.
  int32_t computed = 0;
  int16_t priority = 0;
  MirrorPhase phase = MirrorPhase::kFree;
  uint8_t slo = 0;  // index into the mirror's targets

  LengthKey Key() const {
    LengthKey key{RequestId(id), length_class, static_cast<double>(quantile), std::nullopt, std::nullopt};
    if (max_tokens >= 0) key.max_tokens = TokenCount(max_tokens);
    if (hint >= 0) key.hint = TokenCount(hint);
    return key;
  }
};
static_assert(sizeof(MirrorRequest) == 64);

}  // namespace foretoken
