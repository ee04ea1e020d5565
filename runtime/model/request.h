// A request as each party may see it. RequestMeta is all that scheduling reads; the true output length is in a type of its
// own (RequestTruth), which only an emulated engine and the evaluation hold: scheduling cannot read it by accident.
#pragma once

#include <optional>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"

namespace foretoken {

// Targets a user has for one request. TPOT: (E2E - TTFT) / (output tokens - 1).
struct Slo {
  Duration ttft = Duration::Seconds(1);
  Duration tpot = Duration::Millis(50);
  bool operator==(const Slo&) const = default;
};

// A run of prompt tokens. Two tokens are equal iff their `content` and their offset within it are equal; the run covers
// offsets 0 .. length-1.
struct PromptSegment {
  uint64_t content = 0;
  TokenCount length;
  bool operator==(const PromptSegment&) const = default;
};

// Content of a request's own output: its k-th output token is (OutputContent(id), k). A later turn of a conversation
// names it in a segment.
constexpr uint64_t OutputContent(RequestId id) { return id.value() * 2 + 1; }
// Content of a prompt (part) that is shared with no other request.
constexpr uint64_t PrivateContent(RequestId id) { return id.value() * 2 + 2; }

struct RequestMeta {
  RequestId id;
  ModelId model;
  Instant arrival;  // at the router, router's clock
  TokenCount prompt_tokens;
  std::optional<TokenCount> max_tokens;   // as the user set it
  std::optional<TokenCount> output_hint;  // a caller's estimate of the output length
  int32_t priority = 0;                   // lower value first, as in vLLM
  uint32_t length_class = 0;              // class for learned output lengths (a model's or a tenant's traffic)
  uint64_t session = 0;                   // affinity key; 0: none
  std::optional<Slo> slo;                 // absent: the pool's
  // What the prompt is made of, for prefix identity. Empty: shared with no other request.
  std::vector<PromptSegment> segments;
  bool operator==(const RequestMeta&) const = default;
};

struct RequestTruth {
  TokenCount output_tokens;  // >= 1
  bool operator==(const RequestTruth&) const = default;
};

// How a request ended. Every request ends in exactly one of these.
enum class OutcomeKind : uint8_t { kFinished, kRejected, kCancelled, kFailed, kLost };

// Why it was refused or failed; shown to the user.
enum class OutcomeReason : uint8_t {
  kNone,
  kStop,             // end of sequence
  kLength,           // max_tokens or max_model_len reached
  kTooLong,          // prompt >= max_model_len
  kNeverFits,        // needs more KV blocks than the engine has
  kNoCandidate,      // no instance can serve it
  kShed,             // admission control
  kEngineRestarted,  // the engine crashed or restarted under it
  kEngineDown,       // the engine did not take it: connection refused
  kRetriesExhausted,
  kClientGone,
};

}  // namespace foretoken
