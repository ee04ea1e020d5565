// The times of a stream message, moved from one clock to another. What is on the receiver's clock already (an echo's `sent`) stays.
#pragma once

#include <type_traits>
#include <variant>

#include "runtime/base/units.h"
#include "runtime/model/stream_message.h"

namespace foretoken {

// `map`: from an Instant of the one clock to that of the other; never turns the order round.
template <class Map>
void MapTimes(StreamBody& body, const Map& map) {
  const auto step = [&map](BatchTrace& t) {
    const Instant end = map(t.end());
    t.scheduled = map(t.scheduled);
    t.start = map(t.start);
    t.duration = end - t.start;
  };
  const auto snapshot = [&map](Snapshot& s) {
    s.as_of = map(s.as_of);
    if (!s.exact) return;
    for (Snapshot::RequestBlocks& r : s.exact->requests) r.arrival = map(r.arrival);
    for (Snapshot::InFlight& f : s.exact->in_flight) f.start = map(f.start);
  };
  std::visit(
      [&](auto& b) {
        using B = std::decay_t<decltype(b)>;
        if constexpr (std::is_same_v<B, BatchTrace>) {
          step(b);
        } else if constexpr (std::is_same_v<B, Snapshot>) {
          snapshot(b);
        } else if constexpr (std::is_same_v<B, Heartbeat>) {
          b.at = map(b.at);
          b.in_flight_since = map(b.in_flight_since);
          if (b.echo) b.echo->received = map(b.echo->received);
        } else if constexpr (!std::is_same_v<B, Hello>) {
          b.at = map(b.at);
        }
      },
      body);
}

}  // namespace foretoken
