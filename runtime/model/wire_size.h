// How large a message of a sync stream is as a frame of schema/*.capnp, by that format's layout: what a link carries, counted without
// encoding anything. tests/schema holds it to the codec's own frames.
#pragma once

#include <cstdint>

#include "runtime/model/stream_message.h"

namespace foretoken {

// Bytes of the frame, the transport's own length prefix apart: exact up to 2 KiB, less than a tenth short beyond (a larger frame has
// several segments and pointers between them).
int64_t WireBytesOf(const StreamMessage& message);

}  // namespace foretoken
