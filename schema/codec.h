// Codec: messages <-> Cap'n Proto frames. One wire struct per message, one codec, no second serialisation.
// Guarantees: Decode(Encode(m)) == m. Decode never crashes, never allocates from a length that it has not checked against the bytes at hand,
// and returns either a message that passes the checks below or an Error that says which rule the frame breaks. It keeps no state.
// It does not: find frames in a byte stream (integration/transport), encrypt, or decide what an error does to a connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/model/messages.h"
#include "runtime/model/stream_message.h"
#include "runtime/predict/enqueue_request.h"

namespace foretoken {

using Message = std::variant<StreamMessage, ResyncRequest, Schedule, Decision, Predict, PredictReply, PredictBatch,
                             PredictionBatch, EnqueueRequest, EnqueueReply, Cancel, Dispatch, TokenEvent, RequestOutcome,
                             NodeHello, NodeHeartbeat, OwnershipNotice, ControlRequest, ControlReply>;

// Longest frame, both ways: a snapshot of a 1,000-request engine with its 26,000 blocks fits.
inline constexpr size_t kFrameBytesMax = 1 << 20;

// What the receiver knows of its peers; numbers beyond these are impossible. The defaults only refuse what no engine can do.
struct DecodeLimits {
  uint32_t instances = UINT32_MAX;  // ids are below this
  int32_t max_num_seqs = 1 << 20;
  int32_t max_num_batched_tokens = 1 << 28;
};

using Frame = std::vector<std::byte>;  // 8-byte aligned, a multiple of 8 bytes

// Error: the message does not fit in a frame.
Result<Frame> Encode(const Message& message);
Result<Frame> Encode(const StreamMessage& message);  // without a copy into a Message

// Error: too long or no multiple of 8; unreadable; an unknown enum ordinal or message kind (a newer peer); a negative duration or count; more
// tokens or sequences in a step than `limits`; an instance that there is not; a NaN.
Result<Message> Decode(std::span<const std::byte> frame, const DecodeLimits& limits = {});

// "StreamMessage", "Schedule", ...: for logs and errors.
std::string_view NameOf(const Message& message);

}  // namespace foretoken
