#include "runtime/predict/timeline_sim.h"

#include <algorithm>
#include <cstring>

namespace foretoken {

void TimelineState::CopyFrom(const TimelineState& o) {
  step = o.step;
  time = o.time;
  prev_time = o.prev_time;
  decodes.assign(o.decodes.begin() + o.front, o.decodes.end());
  front = 0;
  prefills.assign(o.prefills.begin(), o.prefills.end());
  requeued.assign(o.requeued.begin(), o.requeued.end());
  cursor = o.cursor;
  next_admit = o.next_admit;
  kv = o.kv;
  prefill_kv = o.prefill_kv;
  chunk_tokens = o.chunk_tokens;
  chunk_ctx = o.chunk_ctx;
  chunks = o.chunks;
  budget = o.budget;
  zombies = o.zombies;
  zombie_blocks = o.zombie_blocks;
  zombie_kv = o.zombie_kv;
  tokens_taken = o.tokens_taken;
  peak_tokens = o.peak_tokens;
  preempted = o.preempted;
  kv_bound = o.kv_bound;
}

size_t TimelineState::memory_bytes() const {
  return decodes.capacity() * sizeof(Decode) + prefills.capacity() * sizeof(Prefill) + requeued.capacity() * sizeof(Requeued);
}

void TimelineSim::InsertDecode(TimelineState& state, const TimelineState::Decode& d) {
  if (state.front >= 32) {
    state.decodes.erase(state.decodes.begin(), state.decodes.begin() + state.front);
    state.front = 0;
  }
  // Grow by a quarter: three of these per instance, a thousand instances.
  const size_t size = state.decodes.size();
  if (size == state.decodes.capacity()) state.decodes.reserve(size + std::max<size_t>(16, size / 4));
  state.decodes.push_back(d);
  TimelineState::Decode* at = state.decodes.data() + state.front;
  size_t left = size - state.front;
  // Branch-free search for the first one that ends later.
  TimelineState::Decode* const end = at + left;
  while (left > 0) {
    const size_t half = (left + 1) / 2;
    at += at[half - 1].finish <= d.finish ? half : 0;
    left -= half;
  }
  std::memmove(at + 1, at, static_cast<size_t>(end - at) * sizeof(d));
  *at = d;
}

int32_t TimelineSim::Chunk(int64_t remaining) const {
  int64_t n = remaining;
  if (limits_.long_prefill_token_threshold > 0) n = std::min<int64_t>(n, limits_.long_prefill_token_threshold);
  return static_cast<int32_t>(std::min<int64_t>(n, std::max(s_.budget, 0)));
}

int64_t TimelineSim::UsedBlocks(int64_t steps_ahead) const {
  int64_t used = steps_ahead == 0 ? s_.zombie_blocks : 0;
  const int64_t at = s_.step + steps_ahead;
  for (size_t i = s_.front; i < s_.decodes.size(); ++i) used += BlocksOf(s_.decodes[i].base_ctx + at);
  for (const TimelineState::Prefill& p : s_.prefills) used += BlocksOf(p.computed + p.chunk);
  return used;
}

bool TimelineSim::Fits(int64_t tokens, int64_t blocks) {
  // Rounded up to whole blocks: at most the tokens and a block less one.
  const int64_t at_most = UsedTokensAtMost() + tokens + (blocks + 1) * limits_.block_size;
  s_.peak_tokens = std::max(s_.peak_tokens, at_most);
  if (at_most <= usable_tokens_) return true;
  s_.kv_bound = true;
  return UsedBlocks() + BlocksOf(tokens) + blocks <= w_.usable_blocks;
}

void TimelineSim::Begin() {
  s_.preempted = false;
  s_.chunk_tokens = s_.chunk_ctx = 0;
  s_.chunks = 0;
  s_.budget = limits_.max_num_batched_tokens - s_.decoding() - Wasted();
  if (!s_.prefills.empty()) GiveChunks();
  const int64_t at_most = UsedTokensAtMost();
  s_.peak_tokens = std::max(s_.peak_tokens, at_most);
  if (at_most > usable_tokens_) FreeShortage();
}

void TimelineSim::GiveChunks() {
  for (TimelineState::Prefill& p : s_.prefills) {
    p.chunk = Chunk(p.target - p.computed);
    if (p.chunk == 0) continue;
    s_.budget -= p.chunk;
    s_.chunk_tokens += p.chunk;
    s_.chunk_ctx += static_cast<int64_t>(p.chunk) * p.computed;
    s_.prefill_kv += p.chunk;
    ++s_.chunks;
  }
}

void TimelineSim::FreeShortage() {
  s_.kv_bound = true;
  while (s_.running() > 1 && UsedBlocks() > w_.usable_blocks) PreemptLast();
}

void TimelineSim::PreemptLast() {
  const int64_t free = std::max<int64_t>(0, w_.usable_blocks - UsedBlocks());
  TimelineState::Requeued r;
  size_t last = s_.front;
  for (size_t i = s_.front; i < s_.decodes.size(); ++i) {
    if (s_.decodes[i].admit > s_.decodes[last].admit) last = i;
  }
  if (!s_.prefills.empty() && (s_.decoding() == 0 || s_.prefills.back().admit > s_.decodes[last].admit)) {
    const TimelineState::Prefill& p = s_.prefills.back();
    r = {p.slot, p.generated, 0};
    s_.prefill_kv -= p.computed + p.chunk;
    s_.chunk_tokens -= p.chunk;
    s_.chunk_ctx -= static_cast<int64_t>(p.chunk) * p.computed;
    if (p.chunk > 0) --s_.chunks;
    s_.budget += p.chunk;
    s_.prefills.pop_back();
  } else {
    const TimelineState::Decode d = s_.decodes[last];
    r = {d.slot, d.base_ctx + s_.step - w_.requests[d.slot].prompt, 0};
    s_.kv -= d.base_ctx + s_.step;
    s_.decodes.erase(s_.decodes.begin() + static_cast<std::ptrdiff_t>(last));
    ++s_.budget;
  }
  r.evict_from = s_.tokens_taken + free * limits_.block_size;
  s_.requeued.push_back(r);
  s_.preempted = true;
  if (track_ != nullptr && r.slot == track_->slot) {
    track_->preempted = true;
    track_->decoding = false;
    track_->generated = r.generated;
    track_->least_free_tokens = std::min<int64_t>(track_->least_free_tokens, -limits_.block_size);
  }
}

TimelineSim::Candidate TimelineSim::Next() const {
  Candidate c;
  if (!s_.requeued.empty()) {
    const TimelineState::Requeued& r = s_.requeued.back();
    c = {r.slot, 0, w_.requests[r.slot].prompt + r.generated, r.generated};
    if (limits_.prefix_caching) {
      const int64_t bs = limits_.block_size;
      const int64_t lost = (std::max<int64_t>(0, s_.tokens_taken - r.evict_from) + bs - 1) / bs;
      c.cached = static_cast<int32_t>(std::max<int64_t>(0, (c.target - 1) / bs - lost) * bs);
    }
    return c;
  }
  const MirrorRequest& r = w_.requests[w_.waiting[s_.cursor]];
  c = {w_.waiting[s_.cursor], r.computed, r.prompt + r.progress, r.progress};
  return c;
}

void TimelineSim::Admit() {
  for (;;) {
    const bool returning = !s_.requeued.empty();
    if (!returning && s_.cursor >= w_.waiting_size) {
      blocked_ = Block::kEmpty;
      return;
    }
    const int32_t there = s_.running() + s_.zombies;
    if (there >= w_.most_seqs) {
      blocked_ = Block::kSequences;
      return;
    }
    if (s_.preempted || s_.budget <= 0) {
      blocked_ = Block::kBudget;
      return;
    }
    if (!returning && ComposeTime() < w_.latest_ready && ReadyAt(w_.waiting[s_.cursor]) > ComposeTime()) {
      blocked_ = Block::kReady;
      return;
    }
    const Candidate c = Next();
    const int64_t remaining = c.target - c.cached;
    if (!limits_.chunked_prefill && remaining > s_.budget && s_.running() > 0) {
      blocked_ = Block::kBudget;
      return;
    }
    const int32_t chunk = Chunk(remaining);
    const int64_t known = limits_.reserve_full_isl ? std::min<int64_t>(c.target, limits_.max_model_len) : c.cached + chunk;
    if (!Fits(known, s_.running() > 0 ? w_.watermark : 0) && there > 0) {
      blocked_ = Block::kKv;
      return;
    }
    returning ? s_.requeued.pop_back() : static_cast<void>(++s_.cursor);
    Join(c, chunk);
  }
}

void TimelineSim::Join(const Candidate& c, int32_t chunk) {
  s_.prefills.push_back({c.slot, c.cached, c.target, c.generated, chunk, s_.next_admit++});
  s_.budget -= chunk;
  s_.chunk_tokens += chunk;
  s_.chunk_ctx += static_cast<int64_t>(chunk) * c.cached;
  s_.prefill_kv += c.cached + chunk;
  ++s_.chunks;
  if (track_ != nullptr && c.slot == track_->slot) {
    track_->admitted = true;
    NoteFree(*track_);
  }
}

void TimelineSim::ClearZombies() {
  s_.zombies = 0;
  s_.zombie_blocks = s_.zombie_kv = 0;
}

void TimelineSim::AddZombie(int64_t context) {
  ++s_.zombies;
  s_.zombie_blocks += BlocksOf(context);
  s_.zombie_kv += context + 1;
}

StepShape TimelineSim::Shape() const {
  const int64_t ctx = s_.chunk_ctx > 0 ? (s_.chunk_ctx + s_.chunk_tokens / 2) / s_.chunk_tokens : 0;
  const int32_t wasted = Wasted();
  return {s_.chunk_tokens, ctx, s_.decoding() + wasted, s_.kv + (wasted > 0 ? s_.zombie_kv : 0)};
}

Ticks TimelineSim::StepDuration() const {
  const StepShape shape = Shape();
  if (shape.prefill_tokens > 0) return w_.clock->Mixed(shape);
  if (shape.decode_seqs == 0) return 0;
  return w_.clock->Decode(shape.decode_seqs, shape.decode_kv_tokens).Sum(shape.decode_kv_tokens, 1);
}

bool TimelineSim::SkipIdle() {
  if (blocked_ == Block::kEmpty) return false;
  s_.prev_time = s_.time = blocked_ == Block::kReady ? std::max(s_.time, ReadyAt(Next().slot)) : s_.time;
  ClearZombies();
  return true;
}

bool TimelineSim::ComposeNext() {
  for (;;) {
    Begin();
    Admit();
    if (s_.running() > 0 || Wasted() > 0) return true;
    if (!SkipIdle()) return false;
  }
}

template <bool kTracked>
void TimelineSim::ExecuteMixed(TimelineTrack* track) {
  const int64_t n = s_.decoding();
  StepShape shape = Shape();
  const Ticks d = w_.clock->Mixed(shape);
  if (kTracked && track->others && track->admitted) {
    int64_t ctx = s_.chunk_ctx;
    for (const TimelineState::Prefill& p : s_.prefills) {
      if (p.slot != track->slot || p.chunk == 0) continue;
      shape.prefill_tokens -= p.chunk;
      ctx -= static_cast<int64_t>(p.chunk) * p.computed;
    }
    if (track->decoding) {
      --shape.decode_seqs;
      shape.decode_kv_tokens -= track->base_ctx + s_.step;
    }
    shape.prefill_ctx = ctx > 0 ? (ctx + shape.prefill_tokens / 2) / shape.prefill_tokens : 0;
    track->lost += d - w_.clock->Mixed(shape);
  }
  if (kTracked && track->decoding) {
    track->longest_gap = std::max(track->longest_gap, s_.time + d - track->last_token);
    track->last_token = s_.time + d;
    if (w_.arrivals.per_tick > 0) AddDrag(d, 1, n > 0 ? w_.clock->Decode(n, s_.kv).per_token : 0, *track);
  }
  s_.prev_time = s_.time;
  s_.time += d;
  s_.tokens_taken += n + s_.chunk_tokens;
  s_.kv += n;
  ++s_.step;
  ClearZombies();
  FinishDecodes<kTracked>(track);
  FinishPrefills<kTracked>(track);
  if (kTracked && track->done) TrackEnded(*track);
}

template <bool kTracked>
void TimelineSim::ExecuteRun(TimelineTrack* track, int64_t most_steps) {
  const int64_t n = s_.decoding();
  const StepShape shape = Shape();
  const StepClock::Piece& piece = w_.clock->Decode(shape.decode_seqs, shape.decode_kv_tokens);
  const int64_t m = RunLength<kTracked>(track, piece, most_steps);
  const Ticks first = piece.Sum(shape.decode_kv_tokens, 1);
  const Ticks d = m == 1 ? first : piece.Sum(s_.kv, m);
  const Ticks last = m == 1 ? first : piece.Sum(s_.kv + n * (m - 1), 1);
  if (kTracked && track->decoding) {
    track->longest_gap = std::max({track->longest_gap, last, s_.time + first - track->last_token});
    track->last_token = s_.time + d;
    if (w_.arrivals.per_tick > 0) AddDrag(d, m, piece.per_token, *track);
    if (track->others && shape.decode_seqs > 1) {
      const int64_t kv = shape.decode_kv_tokens - (track->base_ctx + s_.step);
      track->lost += d - w_.clock->Decode(shape.decode_seqs - 1, kv).Sum(kv, m);
    }
  }
  s_.prev_time = s_.time + d - last;
  s_.time += d;
  s_.tokens_taken += n * m;
  s_.kv += n * m;
  s_.step += static_cast<int32_t>(m);
  ClearZombies();
  FinishDecodes<kTracked>(track);
  if (kTracked && track->done) TrackEnded(*track);
}

template <bool kTracked>
int64_t TimelineSim::RunLength(const TimelineTrack* track, const StepClock::Piece& piece, int64_t most_steps) {
  if (Wasted() > 0 || s_.preempted) return 1;
  if (s_.zombies > 0 && (blocked_ == Block::kSequences || blocked_ == Block::kKv)) return 1;
  int64_t m = std::min<int64_t>(most_steps, s_.decodes[s_.front].finish - s_.step + 1);
  m = piece.StepsWithin(s_.kv, m);
  if (m > 1 && kTracked && track->decoding && track->others && piece.decode_seqs > 1) {
    const int64_t kv = s_.kv - (track->base_ctx + s_.step);
    m = w_.clock->Decode(piece.decode_seqs - 1, kv).StepsWithin(kv, m);
  }
  if (m > 1 && blocked_ == Block::kReady) m = StepsUntil(piece, ReadyAt(Next().slot), m);
  return m > 1 ? StepsBeforeShortage(m) : 1;
}

int64_t TimelineSim::StepsUntil(const StepClock::Piece& piece, Ticks ready, int64_t limit) const {
  // The least m after which a batch is composed at or past `ready`.
  const int64_t lag = limits_.async_scheduling ? 1 : 0;
  int64_t low = 1, high = limit;
  while (low < high) {
    const int64_t mid = low + (high - low) / 2;
    if (s_.time + piece.Sum(s_.kv, mid - lag) >= ready) {
      high = mid;
    } else {
      low = mid + 1;
    }
  }
  return low;
}

int64_t TimelineSim::StepsBeforeShortage(int64_t limit) {
  const int64_t n = s_.decoding();
  const int64_t at_most = UsedTokensAtMost() + n * (limit - 1);
  s_.peak_tokens = std::max(s_.peak_tokens, at_most);
  if (at_most <= usable_tokens_) return limit;
  s_.kv_bound = true;
  // Step `m` (0: the one being composed, which fits) allocates at most one block per decode more than its predecessor.
  int64_t m = 1;
  while (m < limit) {
    const int64_t slack = w_.usable_blocks - UsedBlocks(m);
    if (slack < 0) return m;
    m += std::max<int64_t>(1, slack / n);
  }
  return limit;
}

template <bool kTracked>
void TimelineSim::FinishDecodes(TimelineTrack* track) {
  while (s_.front < s_.decodes.size() && s_.decodes[s_.front].finish < s_.step) {
    const TimelineState::Decode& d = s_.decodes[s_.front++];
    s_.kv -= d.base_ctx + s_.step;
    if (limits_.async_scheduling) AddZombie(d.base_ctx + s_.step - 1);
    if (!kTracked) continue;
    if (d.slot == track->slot) {
      track->end = s_.time;
      track->done = true;
    } else if (track->others) {
      OtherEnded(d.slot, *track);
    }
  }
}

template <bool kTracked>
void TimelineSim::FinishPrefills(TimelineTrack* track) {
  size_t kept = 0;
  for (size_t i = 0; i < s_.prefills.size(); ++i) {
    TimelineState::Prefill p = s_.prefills[i];
    p.computed += p.chunk;
    p.chunk = 0;
    if (p.computed < p.target) {
      s_.prefills[kept++] = p;
      continue;
    }
    s_.prefill_kv -= p.target;
    const MirrorRequest& r = w_.requests[p.slot];
    const int32_t generated = p.generated + 1;
    const bool ends = generated >= r.total;
    const bool tracked = kTracked && p.slot == track->slot;
    if (tracked) {
      if (p.generated == 0) track->first = s_.time;
      if (p.generated > 0) track->longest_gap = std::max(track->longest_gap, s_.time - track->last_token);
      track->last_token = s_.time;
      track->generated = generated;
      if (ends) {
        track->end = s_.time;
        track->done = true;
      }
    }
    if (ends) {
      if (limits_.async_scheduling) AddZombie(p.target);
      if (kTracked && !tracked && track->others) OtherEnded(p.slot, *track);
      continue;
    }
    const TimelineState::Decode d{s_.step + (r.total - generated) - 1, r.prompt + generated - s_.step, p.slot, p.admit};
    InsertDecode(s_, d);
    s_.kv += r.prompt + generated;
    if (tracked) {
      track->decoding = true;
      track->base_ctx = d.base_ctx;
    }
  }
  s_.prefills.resize(kept);
}

bool TimelineSim::Execute(TimelineTrack* track, int64_t most_steps) {
  track_ = track;
  if (s_.running() == 0 && Wasted() == 0) return SkipIdle();
  if (track == nullptr) {
    s_.chunks > 0 ? ExecuteMixed<false>(nullptr) : ExecuteRun<false>(nullptr, most_steps);
  } else {
    s_.chunks > 0 ? ExecuteMixed<true>(track) : ExecuteRun<true>(track, most_steps);
  }
  return true;
}

void TimelineSim::OtherEnded(Slot slot, TimelineTrack& track) {
  track.others_lost += track.lost;
  if (w_.judge != nullptr)
    track.others_violations += w_.judge->ViolationAdded(slot, s_.time + track.drag - track.lost, track.lost);
}

// Everybody still there ends later by what was lost so far; when, is taken at the present pace.
void TimelineSim::TrackEnded(TimelineTrack& track) {
  NoteFree(track);
  if (!track.others) return;
  const auto others = static_cast<int64_t>(s_.running() + static_cast<int32_t>(s_.requeued.size()));
  track.others_lost += track.lost * others;
  if (w_.judge == nullptr || track.lost == 0 || s_.decoding() == 0) return;
  const Ticks pace = w_.clock->Decode(s_.decoding(), s_.kv).Sum(s_.kv, 1);
  for (size_t i = s_.front; i < s_.decodes.size(); ++i) {
    const TimelineState::Decode& d = s_.decodes[i];
    track.others_violations +=
        w_.judge->ViolationAdded(d.slot, s_.time + track.drag - track.lost + pace * (d.finish + 1 - s_.step), track.lost);
  }
}

// `steps` decode steps of `duration` in all, as they would be among those who come meanwhile. Fluid: after t, per_tick * t have
// come, and those who came longer ago than one stays have gone.
void TimelineSim::AddDrag(Ticks duration, int64_t steps, Ticks kv_token, TimelineTrack& track) const {
  const ExpectedArrivals& a = w_.arrivals;
  const double alone = steps == 1 ? static_cast<double>(duration) : static_cast<double>(duration) / static_cast<double>(steps);
  const double each = a.seq_ticks + a.context_tokens * static_cast<double>(kv_token);
  const double since = static_cast<double>(s_.time + track.drag - track.asked + duration / 2);
  double step = alone;
  // How long one stays depends on the step, and the step on how many stay; two rounds are within 1 % of the fixed point.
  for (int round = 0; round < 2; ++round)
    step = (alone + a.per_tick * std::min(since, a.output_tokens * step) * each) * a.stretch;
  track.drag += static_cast<Ticks>((step - alone) * static_cast<double>(steps));
}

void TimelineSim::NoteFree(TimelineTrack& track) {
  track.least_free_tokens = std::min(track.least_free_tokens, usable_tokens_ - UsedTokensAtMost());
}

// The common course of a deep queue in one go: decodes run to the next end, those that it makes room for join with their whole
// prompts, and that step is executed. Does what Admit, Execute and Begin would do; leaves the state between two steps. False:
// something rarer comes next, and nothing (more) was done.
bool TimelineSim::Cycle() {
  if (!s_.prefills.empty() || !s_.requeued.empty() || s_.preempted || s_.decoding() != w_.most_seqs) return false;
  const int64_t n = s_.decoding();
  const int64_t m = s_.decodes[s_.front].finish - s_.step + 1;
  const StepClock::Piece& piece = w_.clock->Decode(n, s_.kv);
  int64_t at_most = UsedTokensAtMost() + n * (m - 1);
  if (at_most > usable_tokens_ || s_.cursor >= w_.waiting_size || piece.StepsWithin(s_.kv, m) < m) return false;
  s_.peak_tokens = std::max(s_.peak_tokens, at_most);
  const Ticks d = piece.Sum(s_.kv, m);
  s_.prev_time = s_.time + d - piece.Sum(s_.kv + n * (m - 1), 1);
  s_.time += d;
  s_.tokens_taken += n * m;
  s_.kv += n * m;
  s_.step += static_cast<int32_t>(m);
  FinishDecodes<false>(nullptr);

  // Who joins; if one of them is not simple, whoever called composes the step.
  int32_t budget = limits_.max_num_batched_tokens - s_.decoding();
  int64_t chunk_ctx = 0, chunk_tokens = 0;
  at_most = UsedTokensAtMost() + (w_.watermark + 1) * limits_.block_size;
  uint32_t end = s_.cursor;
  for (int32_t room = w_.most_seqs - s_.decoding(); room > 0 && end < w_.waiting_size; --room, ++end) {
    const Slot slot = w_.waiting[end];
    const MirrorRequest& r = w_.requests[slot];
    if (s_.time < w_.latest_ready && ReadyAt(slot) > s_.time) break;
    const int32_t target = r.prompt + r.progress, chunk = target - r.computed;
    at_most += target + limits_.block_size;
    if (chunk > budget || at_most > usable_tokens_) return true;
    budget -= chunk;
    chunk_tokens += chunk;
    chunk_ctx += static_cast<int64_t>(chunk) * r.computed;
  }
  // With the last of the queue others may still join its step.
  if (end == s_.cursor || end == w_.waiting_size) return true;
  s_.peak_tokens = std::max(s_.peak_tokens, at_most);
  CyclePrefill(end, chunk_tokens, chunk_ctx);
  return true;
}

// The step in which the waiting up to `end` compute their prompts.
void TimelineSim::CyclePrefill(uint32_t end, int64_t chunk_tokens, int64_t chunk_ctx) {
  const int64_t decodes = s_.decoding();
  const int64_t ctx = chunk_ctx > 0 ? (chunk_ctx + chunk_tokens / 2) / chunk_tokens : 0;
  const Ticks d = w_.clock->Mixed({chunk_tokens, ctx, decodes, s_.kv});
  s_.prev_time = s_.time;
  s_.time += d;
  s_.tokens_taken += decodes + chunk_tokens;
  s_.kv += decodes;
  ++s_.step;
  FinishDecodes<false>(nullptr);
  for (; s_.cursor < end; ++s_.cursor) {
    const Slot slot = w_.waiting[s_.cursor];
    const MirrorRequest& r = w_.requests[slot];
    const int32_t generated = r.progress + 1;
    const uint32_t admit = s_.next_admit++;
    if (generated >= r.total) continue;
    InsertDecode(s_, {s_.step + (r.total - generated) - 1, r.prompt + generated - s_.step, slot, admit});
    s_.kv += r.prompt + generated;
  }
}

void TimelineSim::RunUntilQueueEmpty() {
  // An asynchronous engine's ended requests keep their place for a step, and a threshold cuts prompts: not that simple.
  const bool simple = !limits_.async_scheduling && limits_.long_prefill_token_threshold == 0;
  for (;;) {
    if (simple && Cycle()) {
      while (Cycle()) {}
      Begin();
    }
    Admit();
    if (blocked_ == Block::kEmpty || !Execute(nullptr)) return;
    Begin();
  }
}

void TimelineSim::RunUntilEnd(TimelineTrack& track, int32_t most_events) {
  track_ = &track;
  track.least_free_tokens = usable_tokens_;
  for (int32_t events = 0; events < most_events; ++events) {
    Admit();
    if (!Execute(&track) || track.done) return;
    if (track.decoding) NoteFree(track);
    Begin();
    if (InTail(track)) events += RunTail(track, most_events - events - 1);
    if (track.done) return;
  }
  track.gave_up = true;
  const Ticks pace = s_.decoding() > 0 ? w_.clock->Decode(s_.decoding(), s_.kv).Sum(s_.kv, 1) : 0;
  if (track.first == 0) track.first = s_.time;
  track.end = std::max(track.first, s_.time) + pace * (w_.requests[track.slot].total - std::max(track.generated, 1));
}

}  // namespace foretoken
