// The timeline against what happened: executed steps.
#include <algorithm>

#include "runtime/predict/timeline.h"

namespace foretoken {
// True: the step is the one that the timeline had next. Leaves that step, composed, in work_.
bool TimelinePredictor::Agrees(const BatchTrace& trace) {
  if (!trace.preempted.empty() || !trace.cancelled.empty()) return false;
  if (trace.chunks.size() != static_cast<size_t>(work_.chunks) || work_.preempted) return false;
  if (trace.decode_seqs < work_.decoding()) return false;
  size_t next = 0;
  size_t admitted = 0;
  for (const TimelineState::Prefill& p : work_.prefills) {
    if (p.admit >= head_.next_admit) {
      if (admitted >= trace.admitted.size()) return false;
      const BatchTrace::Admission& a = trace.admitted[admitted++];
      if (a.request.value() != requests_[p.slot].id || a.cached != p.computed) return false;
    }
    if (p.chunk == 0) continue;
    const BatchTrace::Chunk& c = trace.chunks[next++];
    if (c.request.value() != requests_[p.slot].id || c.tokens != p.chunk || c.computed != p.computed) return false;
  }
  if (admitted != trace.admitted.size()) return false;
  for (RequestId id : trace.skipped) {
    if (slots_.Find(id.value()) != nullptr) return false;
  }
  return FinishesAgree(trace);
}

bool TimelinePredictor::FinishesAgree(const BatchTrace& trace) const {
  size_t expected = 0;
  for (size_t i = work_.front; i < work_.decodes.size() && work_.decodes[i].finish == work_.step; ++i) ++expected;
  for (const TimelineState::Prefill& p : work_.prefills) {
    if (p.computed + p.chunk == p.target && p.generated + 1 >= requests_[p.slot].total) ++expected;
  }
  if (expected != trace.finished.size()) return false;
  for (const BatchTrace::Finish& f : trace.finished) {
    const uint32_t* slot = slots_.Find(f.request.value());
    if (slot == nullptr) return false;
    const MirrorRequest& r = requests_[*slot];
    if (r.phase == MirrorPhase::kDecode && r.total - r.progress - 1 != work_.step) return false;
    if (r.phase != MirrorPhase::kDecode && r.total > r.progress + 1) return false;
  }
  return true;
}

void TimelinePredictor::OnStep(const BatchTrace& trace) {
  follows_steps_ = true;
  next_step_ = trace.step + 1;
  ++counters_.steps;
  Ticks predicted_end = 0;
  if (reach_valid_) {
    const TimelineSim::World world = WorldNow();
    work_.CopyFrom(head_);
    work_.cursor = waiting_front_;
    TimelineSim sim(world, work_);
    if (trace.kind != StepKind::kReal || !sim.ComposeNext() || !Agrees(trace)) {
      ++counters_.disagreed;
      reach_valid_ = false;
    } else {
      predicted_end = work_.time + sim.StepDuration();
    }
  }
  const bool agreed = reach_valid_;
  const int64_t before_ns = head_ns_;
  Apply(trace);
  if (agreed && reach_valid_) MoveReach(before_ns, predicted_end);
  ReadKv(trace);
  Learn(trace);
}

// A corrected law makes another timeline: it is run anew.
void TimelinePredictor::Learn(const BatchTrace& step) {
  const StepShape shape{step.prefill_tokens, step.prefill_ctx_tokens, step.decode_seqs, step.decode_kv_tokens};
  if (!step_time_.Observe(shape, step.duration)) return;
  clock_.Reset(step_time_.model());
  reach_valid_ = false;
}

void TimelinePredictor::Apply(const BatchTrace& trace) {
  ++events_;
  for (RequestId id : trace.cancelled) {
    const uint32_t* slot = slots_.Find(id.value());
    if (slot != nullptr) {
      reach_valid_ = false;
      Remove(*slot);
    }
  }
  for (RequestId id : trace.preempted) ApplyPreemption(id);
  for (const BatchTrace::Admission& a : trace.admitted) ApplyAdmission(a);
  std::vector<Sampled> sampled;
  for (const BatchTrace::Chunk& c : trace.chunks) ApplyChunk(c, sampled);
  if (trace.kind == StepKind::kReal) {
    for (RequestId id : trace.skipped) {
      const uint32_t* slot = slots_.Find(id.value());
      if (slot == nullptr || requests_[*slot].phase != MirrorPhase::kDecode) continue;
      // It stays where it is while the others move on by one.
      const int32_t generated = GeneratedOf(requests_[*slot]);
      const uint32_t admit = RemoveRunning(*slot);
      ++head_.step;
      head_.kv += head_.decoding();
      StartDecode(*slot, generated, admit);
      head_.kv -= head_.decoding();
      --head_.step;
    }
    head_.kv += head_.decoding();
    ++head_.step;
  }
  for (const auto& [slot, admit] : sampled) {
    MirrorRequest& r = requests_[slot];
    const int32_t generated = r.progress + 1;
    if (generated == 1) NoteFirstToken(r, trace.end());
    // One that ends with this very token is taken out below; until then it has a length beyond it.
    StartDecode(slot, generated, admit);
  }
  head_.zombies = 0;
  head_.zombie_blocks = head_.zombie_kv = 0;
  for (const BatchTrace::Finish& f : trace.finished) ApplyFinish(f, trace.end());
  RaiseOverdue(trace.end());
  head_.time = 0;
  head_.prev_time = -TicksOf(trace.duration);
  head_ns_ = trace.end().nanos();
}

void TimelinePredictor::NoteFirstToken(MirrorRequest& r, Instant at) {
  const Duration actual = Duration::Nanos(at.nanos() - r.ready_ns) + profile_.ttft_offset;
  if (r.first_token >= 0) ttft_error_.Observe(DurationOfOffset(r.first_token), actual);
  r.first_token = OffsetOf(actual);
}

// `output` tokens have come. The prediction is taken at that length: the length has a spread of its own (Fill), and an error that
// held both would count it twice.
void TimelinePredictor::NotePace(const MirrorRequest& r, int32_t output, Instant at) {
  if (r.predicted_end < 0 || r.first_token < 0 || r.total < 2 || output < 2) return;
  const Duration first = DurationOfOffset(r.first_token), decode = DurationOfOffset(r.predicted_end) - first;
  const Duration predicted = first + Duration::Nanos(decode.nanos() / (r.total - 1) * (output - 1));
  e2e_error_.Observe(predicted, Duration::Nanos(at.nanos() - r.ready_ns) + profile_.ttft_offset);
}

void TimelinePredictor::ApplyPreemption(RequestId id) {
  const uint32_t* found = slots_.Find(id.value());
  if (found == nullptr) return;
  const Slot slot = *found;
  MirrorRequest& r = requests_[slot];
  if (r.phase == MirrorPhase::kWaiting) return;
  const int32_t generated = GeneratedOf(r);
  RemoveRunning(slot);
  r.phase = MirrorPhase::kWaiting;
  r.progress = generated;
  // Its own blocks stay hashed at the far end of the free list: a soon return finds most of them.
  const int32_t bs = profile_.limits.block_size;
  r.computed = profile_.limits.prefix_caching ? (r.prompt + generated - 1) / bs * bs : 0;
  PushWaitingFront(slot);
}

void TimelinePredictor::ApplyAdmission(const BatchTrace::Admission& a) {
  const uint32_t* found = slots_.Find(a.request.value());
  const Slot slot = found != nullptr ? *found : Unknown(a.request, a.cached + 1, 0);
  MirrorRequest& r = requests_[slot];
  if (r.phase == MirrorPhase::kWaiting) EraseWaiting(slot);
  if (r.phase == MirrorPhase::kPrefill || r.phase == MirrorPhase::kDecode) {
    reach_valid_ = false;
    RemoveRunning(slot);
  }
  r.phase = MirrorPhase::kPrefill;
  r.computed = a.cached;
  head_.prefills.push_back({slot, a.cached, r.prompt + r.progress, r.progress, 0, head_.next_admit++});
  head_.prefill_kv += a.cached;
}

void TimelinePredictor::ApplyChunk(const BatchTrace::Chunk& c, std::vector<Sampled>& sampled) {
  const uint32_t* found = slots_.Find(c.request.value());
  Slot slot = 0;
  if (found == nullptr || requests_[*found].phase != MirrorPhase::kPrefill) {
    // Seen for the first time in the middle of its prefill, or believed to be somewhere else.
    reach_valid_ = false;
    ApplyAdmission({c.request, c.computed, false});
    slot = *slots_.Find(c.request.value());
  } else {
    slot = *found;
  }
  size_t i = 0;
  while (head_.prefills[i].slot != slot) ++i;
  TimelineState::Prefill& p = head_.prefills[i];
  const int32_t computed = c.computed + c.tokens;
  MirrorRequest& r = requests_[slot];
  if (c.samples) {
    // What was computed is the whole prompt, whatever was believed of it.
    if (computed != p.target) r.prompt = std::max(1, computed - p.generated);
    head_.prefill_kv -= p.computed;
    sampled.push_back({slot, p.admit});
    head_.prefills.erase(head_.prefills.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
  if (computed >= p.target) {
    r.prompt += computed + 1 - p.target;
    p.target = computed + 1;
  }
  head_.prefill_kv += computed - p.computed;
  p.computed = computed;
  r.computed = computed;
}

void TimelinePredictor::ApplyFinish(const BatchTrace::Finish& f, Instant at) {
  const uint32_t* found = slots_.Find(f.request.value());
  if (found == nullptr) return;
  const Slot slot = *found;
  const MirrorRequest& r = requests_[slot];
  if (profile_.limits.async_scheduling && r.phase != MirrorPhase::kWaiting) {
    ++head_.zombies;
    // The last token's KV is not computed, unless in vain by the batch in flight.
    const int64_t context = r.prompt + f.output_tokens - 1;
    head_.zombie_blocks += (context + profile_.limits.block_size - 1) / profile_.limits.block_size;
    head_.zombie_kv += context + 1;
  }
  if (f.reason != FinishReason::kAborted) NotePace(r, f.output_tokens, at);
  Remove(slot);
}

// The step went as the timeline had it: the reach stays, nearer by that step's predicted time.
void TimelinePredictor::MoveReach(int64_t before_ns, Ticks predicted_end) {
  if (reach_.step < head_.step) {
    // The head has come to it: it moves on by the same step.
    const TimelineSim::World world = WorldNow();
    TimelineSim sim(world, reach_);
    sim.Admit();
    sim.Execute(nullptr, 1);
    sim.Begin();
    sim.RunUntilQueueEmpty();  // whom it preempted is in the queue again
  }
  if (reach_.step < head_.step) {
    reach_valid_ = false;
    return;
  }
  const bool from_idle = reach_.prev_time == reach_.time;
  reach_.time -= predicted_end;
  reach_.prev_time -= predicted_end;
  // The step that is composed next is so while the one just executed ran: it took as long as it did. From idle it waits for nothing.
  if (reach_.step == head_.step && !from_idle) reach_.prev_time = head_.prev_time;
  reach_.tokens_taken = 0;
  // Who was thought to come before a batch was composed may have come after it, or the other way round.
  const int64_t predicted_ns = before_ns + DurationOf(predicted_end).nanos();
  if (latest_ready_ns_ > std::min(predicted_ns, head_ns_) - 1000) reach_valid_ = false;
}

// Shared prefix blocks count once in the engine and for every sharer here: what it reports free tells how many they are.
void TimelinePredictor::ReadKv(const BatchTrace& trace) {
  if (trace.total_blocks <= 0) return;
  int64_t usable = trace.total_blocks;
  if (profile_.limits.prefix_caching) {
    const TimelineSim::World world = WorldNow();
    const TimelineSim sim(world, head_);
    const int64_t used = sim.UsedBlocks(profile_.limits.async_scheduling ? 0 : -1);
    // Only where the pool is short does it matter.
    if (used * 2 > trace.total_blocks) usable += std::max<int64_t>(0, used - (trace.total_blocks - trace.free_blocks));
  }
  if (usable == usable_blocks_) return;
  if (reach_.kv_bound || reach_.peak_tokens > usable * profile_.limits.block_size) reach_valid_ = false;
  usable_blocks_ = usable;
}

// Nobody reports steps: the mirror believes its own.
void TimelinePredictor::AdvanceTo(Instant now) {
  for (;;) {
    const TimelineSim::World world = WorldNow();
    work_.CopyFrom(head_);
    work_.cursor = waiting_front_;
    TimelineSim sim(world, work_);
    if (!sim.ComposeNext()) return;
    const Ticks end = work_.time + sim.StepDuration();
    if (head_ns_ + DurationOf(end).nanos() > now.nanos()) return;
    reach_valid_ = false;
    BatchTrace trace;
    trace.start = Instant::FromNanos(head_ns_) + DurationOf(work_.time);
    trace.duration = DurationOf(end - work_.time);
    for (const TimelineState::Prefill& p : work_.prefills) {
      const RequestId id(requests_[p.slot].id);
      if (p.admit >= head_.next_admit) trace.admitted.push_back({id, p.computed, p.generated > 0});
      if (p.chunk > 0) trace.chunks.push_back({id, p.chunk, p.computed, p.computed + p.chunk == p.target});
    }
    for (auto r = work_.requeued.begin(); r != work_.requeued.end(); ++r) trace.preempted.emplace_back(requests_[r->slot].id);
    Apply(trace);
  }
}

void TimelinePredictor::OnAggregate(const AggregateState& state, const BatchTrace* step) {
  if (state.total_blocks > 0) usable_blocks_ = state.total_blocks;
  if (step == nullptr) {
    AdvanceTo(state.as_of);
  } else {
    const TimelineSim::World world = WorldNow();
    work_.CopyFrom(head_);
    work_.cursor = waiting_front_;
    TimelineSim sim(world, work_);
    if (sim.ComposeNext()) {
      BatchTrace trace;
      trace.start = step->start;
      trace.duration = step->duration;
      for (const TimelineState::Prefill& p : work_.prefills) {
        const RequestId id(requests_[p.slot].id);
        if (p.admit >= head_.next_admit) trace.admitted.push_back({id, p.computed, p.generated > 0});
        if (p.chunk > 0) trace.chunks.push_back({id, p.chunk, p.computed, p.computed + p.chunk == p.target});
      }
      Apply(trace);
    } else {
      head_ns_ = step->end().nanos();
    }
    Learn(*step);
  }
  ++events_;
  reach_valid_ = false;
  // The engine has taken in more than was believed.
  while (running() < state.running && waiting() > state.waiting) {
    const Slot slot = waiting_[waiting_front_];
    ApplyAdmission({RequestId(requests_[slot].id), requests_[slot].computed, false});
  }
}

}  // namespace foretoken
