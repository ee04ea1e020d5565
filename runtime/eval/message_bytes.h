// Sizes of messages as links with a bandwidth see them: near the size of their frames (schema/), without encoding them. Every host
// uses these, so that a link delays alike in each.
#pragma once

#include <cstdint>
#include <variant>

#include "runtime/model/stream_message.h"

namespace foretoken {

inline constexpr int64_t kSmallMessageBytes = 64;  // a ResyncRequest or the like

// A fixed part, and a part per request named.
inline int64_t MessageBytes(const StreamMessage& m) {
  constexpr int64_t kFixed = 128, kPerRequest = 24;
  size_t named = 0;
  if (const BatchTrace* t = std::get_if<BatchTrace>(&m.body)) {
    named = t->chunks.size() + t->admitted.size() + t->finished.size() + t->preempted.size() + t->skipped.size();
  } else if (const Snapshot* s = std::get_if<Snapshot>(&m.body)) {
    named = s->running.size() + s->waiting.size();
  }
  return kFixed + kPerRequest * static_cast<int64_t>(named);
}

}  // namespace foretoken
