// Random messages with every field random within what the codec accepts, for round trips and for frames to damage.
#pragma once

#include <cstdint>

#include "runtime/base/prng.h"
#include "schema/codec.h"

namespace foretoken::testing {

inline constexpr size_t kMessageKinds = std::variant_size_v<Message>;
inline constexpr size_t kStreamKinds = std::variant_size_v<StreamBody>;

// The kind is an index of Message. Lists have up to `list_max` elements.
Message RandomMessage(size_t kind, Prng& prng, int64_t list_max = 8);
// A StreamMessage with the body of that index of StreamBody.
StreamMessage RandomStreamMessage(size_t body, Prng& prng, int64_t list_max = 8);

}  // namespace foretoken::testing
