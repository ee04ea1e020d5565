// The end of a tracked request's run: it decodes, and nobody waits who could join. Until it ends only decodes end, one after
// another, so that the general way of composing a step (Begin, Admit, Execute) has nothing to decide between two ends.
// Guarantee: the same numbers, to the last bit, as the general way gives.
#include <algorithm>

#include "runtime/predict/timeline_sim.h"

namespace foretoken {

bool TimelineSim::InTail(const TimelineTrack& track) const {
  const bool drains_late = limits_.async_scheduling && limits_.stop_at_eos;  // the ended compute once more, a step of its own
  return track.decoding && !drains_late && s_.prefills.empty() && s_.requeued.empty() && s_.cursor >= w_.waiting_size;
}

// How far the decodes run on as they are; 0: KV may run short on the way.
template <bool kOthers>
int64_t TimelineSim::TailLength(const TimelineTrack& track, const StepClock::Piece& piece) const {
  const int64_t n = s_.decoding();
  int64_t m = piece.StepsWithin(s_.kv, s_.decodes[s_.front].finish - s_.step + 1);
  if (kOthers && n > 1) {
    const int64_t kv = s_.kv - (track.base_ctx + s_.step);
    m = w_.clock->Decode(n - 1, kv).StepsWithin(kv, m);
  }
  return UsedTokensAtMost() + n * (m - 1) > usable_tokens_ ? 0 : m;
}

template <bool kOthers>
void TimelineSim::EndTailDecodes(TimelineTrack& track) {
  ClearZombies();
  while (s_.front < s_.decodes.size() && s_.decodes[s_.front].finish < s_.step) {
    const TimelineState::Decode& d = s_.decodes[s_.front++];
    s_.kv -= d.base_ctx + s_.step;
    if (limits_.async_scheduling) AddZombie(d.base_ctx + s_.step - 1);
    if (d.slot == track.slot) {
      track.end = s_.time;
      track.done = true;
    } else if (kOthers) {
      OtherEnded(d.slot, track);
    }
  }
}

template <bool kOthers>
int32_t TimelineSim::RunTail(TimelineTrack& track, int32_t most_events) {
  int32_t events = 0;
  for (; events < most_events && !track.done; ++events) {
    const int64_t n = s_.decoding();
    const StepClock::Piece& piece = w_.clock->Decode(n, s_.kv);
    const int64_t m = TailLength<kOthers>(track, piece);
    if (m == 0) break;
    const Ticks first = piece.Sum(s_.kv, 1);
    const Ticks last = first + piece.per_token * (n * (m - 1));
    const Ticks d = piece.Sum(s_.kv, m);
    track.longest_gap = std::max({track.longest_gap, last, s_.time + first - track.last_token});
    track.last_token = s_.time + d;
    if (w_.arrivals.per_tick > 0) AddDrag(d, m, piece.per_token, track);
    if (kOthers && n > 1) {
      const int64_t kv = s_.kv - (track.base_ctx + s_.step);
      track.lost += d - w_.clock->Decode(n - 1, kv).Sum(kv, m);
    }
    s_.prev_time = s_.time + d - last;
    s_.time += d;
    s_.tokens_taken += n * m;
    s_.kv += n * m;
    s_.step += static_cast<int32_t>(m);
    EndTailDecodes<kOthers>(track);
    NoteFree(track);
  }
  if (track.done) {
    TrackEnded(track);
  } else {
    Begin();
  }
  return events;
}

int32_t TimelineSim::RunTail(TimelineTrack& track, int32_t most_events) {
  return track.others ? RunTail<true>(track, most_events) : RunTail<false>(track, most_events);
}

}  // namespace foretoken
