#include "integration/engines/emulated/prompt_segments.h"

#include <algorithm>
#include <string_view>

#include "runtime/base/prng.h"

namespace foretoken {
namespace {

constexpr size_t kBytesPerToken = 4;
constexpr size_t kTokensPerSegment = 16;       // the grain in which prompts are compared: a block of most engines
constexpr uint64_t kText = uint64_t{1} << 63;  // content ids of prompts, apart from those of outputs (runtime/model/request.h)

}  // namespace

int64_t PromptTokensOf(const EngineCall& call) {
  const size_t tokens =
      call.token_ids.empty() ? (call.text.size() + kBytesPerToken - 1) / kBytesPerToken : call.token_ids.size();
  return std::max<int64_t>(static_cast<int64_t>(tokens), 1);
}

std::vector<PromptSegment> SegmentsOf(const EngineCall& call, int64_t tokens) {
  std::vector<PromptSegment> segments;
  const size_t count = static_cast<size_t>(tokens);
  for (size_t at = 0; at < count; at += kTokensPerSegment) {
    const size_t n = std::min(kTokensPerSegment, count - at);
    uint64_t hash = n;
    if (!call.token_ids.empty()) {
      for (size_t i = at; i < at + n; ++i) hash = Mix64(hash, call.token_ids[i]);
    } else {
      const std::string_view text = std::string_view(call.text).substr(at * kBytesPerToken, n * kBytesPerToken);
      for (const char c : text) hash = Mix64(hash, static_cast<unsigned char>(c));
    }
    segments.push_back({hash | kText, TokenCount(static_cast<int64_t>(n))});
  }
  return segments;
}

}  // namespace foretoken
