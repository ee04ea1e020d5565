// LengthEstimator: how long an output will be, when nobody may read the truth. One quantile is drawn per request and kept for
// its life: sampling instead of averaging, because mean lengths break the timeline when KV is nearly full (TTFT error 118 %
// against 16 % sampled, measured by a research simulator).
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"

namespace foretoken {

enum class LengthEstimatorKind : uint8_t { kOracle, kMaxTokens, kHint, kMean, kSampled };

// What an estimate may depend on.
struct LengthKey {
  RequestId request;  // kOracle only (evaluation)
  uint32_t length_class = 0;
  double quantile = 0.5;  // the request's own, in (0, 1); fixed for its life
  std::optional<TokenCount> max_tokens;
  std::optional<TokenCount> hint;
};

class LengthEstimator {
 public:
  virtual ~LengthEstimator() = default;
  // Total output tokens expected of a request that has produced `generated` and goes on: > generated, and at most max_tokens
  // when that is set and > generated. A pure function of what was learned so far.
  virtual TokenCount Total(const LengthKey& key, TokenCount generated) const = 0;
  // A request of that class finished with `output` tokens.
  virtual void Learn(uint32_t length_class, TokenCount output) = 0;
  // Moves when an answer of Total may have changed.
  virtual uint64_t version() const = 0;
};

}  // namespace foretoken
