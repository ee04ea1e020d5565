// The timeline's table of mirrored requests and what happens to them outside steps.
#include <algorithm>
#include <cmath>

#include "runtime/base/check.h"
#include "runtime/predict/timeline.h"

namespace foretoken {
Slot TimelinePredictor::NewSlot(const MirrorRequest& r) {
  Slot slot = free_;
  if (slot != 0) {
    free_ = static_cast<Slot>(requests_[slot].prompt);
    requests_[slot] = r;
  } else {
    // Grow by an eighth, so that a thousand instances do not pay for doubling.
    if (requests_.size() == requests_.capacity())
      requests_.reserve(requests_.size() + std::max<size_t>(32, requests_.size() / 8));
    slot = static_cast<Slot>(requests_.size());
    requests_.push_back(r);
  }
  FT_CHECK(slots_.Insert(r.id, slot));
  return slot;
}

void TimelinePredictor::Release(Slot slot) {
  slots_.Erase(requests_[slot].id);
  requests_[slot] = MirrorRequest{};
  requests_[slot].prompt = static_cast<int32_t>(free_);
  free_ = slot;
}

uint8_t TimelinePredictor::SloIndex(const Slo& slo) {
  for (size_t i = 0; i < slos_.size(); ++i) {
    if (slos_[i] == slo) return static_cast<uint8_t>(i);
  }
  // More than 255 different targets at one instance share the pool's.
  if (slos_.size() >= 256) return 0;
  slos_.push_back(slo);
  return static_cast<uint8_t>(slos_.size() - 1);
}

MirrorRequest TimelinePredictor::FromReservation(const Reservation& r, Instant ready) {
  MirrorRequest m;
  m.id = r.request.value();
  m.ready_ns = ready.nanos();
  m.quantile = static_cast<float>(r.length.quantile);
  m.length_class = r.length.length_class;
  if (r.length.max_tokens) m.max_tokens = static_cast<int32_t>(r.length.max_tokens->value());
  if (r.length.hint) m.hint = static_cast<int32_t>(r.length.hint->value());
  m.prompt = static_cast<int32_t>(std::max<int64_t>(1, r.prompt_tokens));
  const int64_t room = std::max<int64_t>(1, profile_.limits.max_model_len - m.prompt);
  m.total = m.expected = static_cast<int32_t>(std::clamp<int64_t>(r.expected_output, 1, room));
  m.priority = static_cast<int16_t>(std::clamp(r.priority, -32768, 32767));
  m.phase = MirrorPhase::kWaiting;
  m.slo = SloIndex(r.slo);
  return m;
}

// A request that the engine runs and nobody told us of: foreign traffic, modelled from what steps show.
Slot TimelinePredictor::Unknown(RequestId id, int32_t prompt, int32_t generated) {
  MirrorRequest m;
  m.id = id.value();
  m.ready_ns = head_ns_;
  m.prompt = std::max(prompt, 1);
  m.total = 1;
  RaiseTotal(m, generated);
  return NewSlot(m);
}

int32_t TimelinePredictor::GeneratedOf(const MirrorRequest& r) const {
  return r.phase == MirrorPhase::kDecode ? r.progress + head_.step : r.progress;
}

// It goes on although its expected length is reached: asks for the length given what was generated.
void TimelinePredictor::RaiseTotal(MirrorRequest& r, int32_t generated) const {
  const int64_t room = std::max<int64_t>(generated + 1, profile_.limits.max_model_len - r.prompt);
  while (r.total <= generated) {
    const int64_t next = lengths_ != nullptr ? lengths_->Total(r.Key(), TokenCount(generated)).value()
                                             : generated + std::max<int64_t>(1, generated / 2);
    r.total = static_cast<int32_t>(std::clamp<int64_t>(next, generated + 1, room));
    r.predicted_end = -1;  // it was of another length
  }
}

void TimelinePredictor::StartDecode(Slot slot, int32_t generated, uint32_t admit) {
  MirrorRequest& r = requests_[slot];
  RaiseTotal(r, generated);
  r.phase = MirrorPhase::kDecode;
  r.progress = generated - head_.step;
  TimelineSim::InsertDecode(head_, {head_.step + (r.total - generated) - 1, r.prompt + generated - head_.step, slot, admit});
  head_.kv += r.prompt + generated;
}

// Decodes that should have ended by now and did not.
void TimelinePredictor::RaiseOverdue(Instant at) {
  while (head_.front < head_.decodes.size() && head_.decodes[head_.front].finish < head_.step) {
    const TimelineState::Decode d = head_.decodes[head_.front++];
    head_.kv -= d.base_ctx + head_.step;
    NotePace(requests_[d.slot], requests_[d.slot].total, at);
    StartDecode(d.slot, d.base_ctx + head_.step - requests_[d.slot].prompt, d.admit);
    reach_valid_ = false;
  }
}

void TimelinePredictor::EraseWaiting(Slot slot) {
  for (uint32_t i = waiting_front_; i < waiting_.size(); ++i) {
    if (waiting_[i] != slot) continue;
    if (i == waiting_front_) {
      ++waiting_front_;
      confirmed_ = std::max(confirmed_, waiting_front_);
    } else {
      waiting_.erase(waiting_.begin() + i);
      if (i < confirmed_) --confirmed_;
      // Positions behind it moved.
      reach_valid_ = false;
    }
    break;
  }
  if (waiting_front_ == waiting_.size() || waiting_front_ >= 64) {
    const uint32_t gone = waiting_front_;
    waiting_.erase(waiting_.begin(), waiting_.begin() + gone);
    waiting_front_ = 0;
    confirmed_ -= gone;
    if (reach_.cursor < gone) reach_valid_ = false;
    reach_.cursor -= std::min(reach_.cursor, gone);
  }
}

void TimelinePredictor::PushWaitingFront(Slot slot) {
  if (waiting_front_ > 0) {
    waiting_[--waiting_front_] = slot;
    confirmed_ = std::max(confirmed_, waiting_front_ + 1);
  } else {
    waiting_.insert(waiting_.begin(), slot);
    ++confirmed_;
  }
  reach_valid_ = false;
}

uint32_t TimelinePredictor::RemoveRunning(Slot slot) {
  const MirrorRequest& r = requests_[slot];
  if (r.phase == MirrorPhase::kPrefill) {
    for (size_t i = 0; i < head_.prefills.size(); ++i) {
      if (head_.prefills[i].slot != slot) continue;
      const uint32_t admit = head_.prefills[i].admit;
      head_.prefill_kv -= head_.prefills[i].computed;
      head_.prefills.erase(head_.prefills.begin() + static_cast<std::ptrdiff_t>(i));
      return admit;
    }
  }
  FT_CHECK(r.phase == MirrorPhase::kDecode);
  const int32_t finish = r.total - r.progress - 1;
  auto it = std::lower_bound(head_.decodes.begin() + head_.front, head_.decodes.end(), finish,
                             [](const TimelineState::Decode& d, int32_t f) { return d.finish < f; });
  while (it != head_.decodes.end() && it->slot != slot) ++it;
  FT_CHECK(it != head_.decodes.end());
  const uint32_t admit = it->admit;
  head_.kv -= it->base_ctx + head_.step;
  if (it == head_.decodes.begin() + head_.front) {
    ++head_.front;
  } else {
    head_.decodes.erase(it);
  }
  return admit;
}

void TimelinePredictor::Remove(Slot slot) {
  if (requests_[slot].phase == MirrorPhase::kWaiting) {
    EraseWaiting(slot);
  } else {
    RemoveRunning(slot);
  }
  Release(slot);
}

void TimelinePredictor::OnEnqueue(const Reservation& reservation, Instant now) {
  if (const uint32_t* found = slots_.Find(reservation.request.value())) {
    // Steps told of it before its order came: what was expected of it counts when it is passed, and from the next snapshot on.
    const MirrorRequest m = FromReservation(reservation, now);
    MirrorRequest& r = requests_[*found];
    r.quantile = m.quantile;
    r.length_class = m.length_class;
    r.max_tokens = m.max_tokens;
    r.hint = m.hint;
    r.expected = m.expected;
    r.priority = m.priority;
    r.slo = m.slo;
    return;
  }
  if (!follows_steps_) AdvanceTo(now);
  MirrorRequest m = FromReservation(reservation, now);
  NotePrediction(reservation, now, m);
  ++events_;
  const PrefixEstimator::Request prefix{reservation.request, m.prompt, m.total, &reservation.segments};
  m.computed = prefixes_.ExpectedCached(prefix);
  prefixes_.Enter(prefix);
  arrival_rate_.OnAssigned(now, m.prompt - m.computed, m.total);
  waiting_.push_back(NewSlot(m));
  latest_ready_ns_ = std::max(latest_ready_ns_, m.ready_ns);
  if (reach_valid_) Extend();
}

void TimelinePredictor::OnArrived(RequestId request, Instant at) {
  const uint32_t* found = slots_.Find(request.value());
  if (found == nullptr) {
    // Foreign: its prompt is not known yet; a step will tell.
    return;
  }
  const Slot slot = *found;
  MirrorRequest& r = requests_[slot];
  if (r.phase != MirrorPhase::kWaiting) return;
  ++events_;
  const auto it = std::find(waiting_.begin() + waiting_front_, waiting_.end(), slot);
  const auto index = static_cast<uint32_t>(it - waiting_.begin());
  if (index >= confirmed_) {
    confirmed_ = std::max(confirmed_, waiting_front_);
    if (index != confirmed_) {
      std::rotate(waiting_.begin() + confirmed_, it, it + 1);
      reach_valid_ = false;
    }
    ++confirmed_;
  }
  if (at.nanos() == r.ready_ns) return;
  // A later arrival changes nothing as long as it is not later than the batch that takes the request in.
  const bool known_before = at.nanos() <= head_ns_ && r.ready_ns <= head_ns_;
  const bool last_joined =
      reach_valid_ && !reach_.prefills.empty() && reach_.prefills.back().slot == slot && reach_.prefills.back().chunk > 0 &&
      at.nanos() >= r.ready_ns &&
      (profile_.limits.async_scheduling ? reach_.prev_time : reach_.time) >= TicksOf(Duration::Nanos(at.nanos() - head_ns_));
  if (!known_before && !last_joined) reach_valid_ = false;
  r.ready_ns = at.nanos();
  latest_ready_ns_ = std::max(latest_ready_ns_, r.ready_ns);
}

void TimelinePredictor::OnGone(RequestId request, Instant now) {
  if (!follows_steps_) AdvanceTo(now);
  const uint32_t* found = slots_.Find(request.value());
  if (found == nullptr) return;
  ++events_;
  const MirrorRequest& r = requests_[*found];
  if (!follows_steps_ && r.phase == MirrorPhase::kDecode && r.predicted_end >= 0) {
    e2e_error_.Observe(DurationOfOffset(r.predicted_end), Duration::Nanos(now.nanos() - r.ready_ns));
  }
  reach_valid_ = false;
  Remove(*found);
}

void TimelinePredictor::Forget() {
  requests_.assign(1, MirrorRequest{});
  free_ = 0;
  slots_.Clear();
  waiting_.clear();
  waiting_front_ = confirmed_ = 0;
  const int32_t step = head_.step;
  head_ = TimelineState{};
  head_.step = step;
  latest_ready_ns_ = 0;
}

// A running request as a light snapshot has it. What it counts as computed includes the batch in flight, which is composed anew
// here: a prompt's last chunk is taken back, as large as the budget let it be.
void TimelinePredictor::Resume(MirrorRequest m, const Snapshot::Request& s, int32_t budget) {
  const uint32_t admit = head_.next_admit++;
  const bool prefilling = s.generated_tokens == 0 || s.computed_tokens < s.prompt_tokens + s.generated_tokens - 1;
  if (!prefilling) {
    StartDecode(NewSlot(m), s.generated_tokens, admit);
    return;
  }
  const int32_t from = s.generated_tokens == 0 ? std::min(s.cached_tokens, s.computed_tokens) : 0;
  const int32_t known = std::min(s.computed_tokens, s.prompt_tokens + s.generated_tokens);
  const int32_t computed = std::max(from, known - std::max(budget, 1));
  m.phase = MirrorPhase::kPrefill;
  m.progress = s.generated_tokens;
  const Slot slot = NewSlot(m);
  head_.prefills.push_back({slot, computed, s.prompt_tokens + s.generated_tokens, s.generated_tokens, 0, admit});
  head_.prefill_kv += computed;
}

void TimelinePredictor::OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) {
  ++events_;
  reach_valid_ = false;
  IdMap<uint32_t> known;  // index into `old`
  std::vector<MirrorRequest> old;
  for (const MirrorRequest& r : requests_) {
    if (r.phase == MirrorPhase::kFree) continue;
    known.Insert(r.id, static_cast<uint32_t>(old.size()));
    old.push_back(r);
  }
  IdMap<uint32_t> reserved;
  for (size_t i = 0; i < reservations.size(); ++i) reserved.Insert(reservations[i].request.value(), static_cast<uint32_t>(i));
  Forget();
  head_ns_ = as_of.nanos();
  follows_steps_ = true;
  next_step_ = snapshot.next_step;
  if (snapshot.total_blocks > 0) usable_blocks_ = snapshot.total_blocks;
  const auto recall = [&](const Snapshot::Request& s) {
    MirrorRequest m;
    m.ready_ns = as_of.nanos();
    if (const uint32_t* i = known.Find(s.request.value())) {
      m = old[*i];
    } else if (const uint32_t* r = reserved.Find(s.request.value())) {
      m = FromReservation(reservations[*r], reservations[*r].arrival);
    }
    m.id = s.request.value();
    m.prompt = s.prompt_tokens;
    // Not from what became of it in steps which another mirror may have missed.
    m.total = m.expected;
    RaiseTotal(m, s.generated_tokens);
    return m;
  };
  int32_t decoding = 0;
  for (const Snapshot::Request& s : snapshot.running) decoding += s.generated_tokens > 0 ? 1 : 0;
  for (const Snapshot::Request& s : snapshot.running) {
    Resume(recall(s), s, profile_.limits.max_num_batched_tokens - decoding);
  }
  for (const Snapshot::Request& s : snapshot.waiting) {
    MirrorRequest m = recall(s);
    m.phase = MirrorPhase::kWaiting;
    m.progress = s.generated_tokens;
    m.computed = 0;
    m.ready_ns = std::min(m.ready_ns, as_of.nanos());
    waiting_.push_back(NewSlot(m));
  }
  confirmed_ = static_cast<uint32_t>(waiting_.size());
  for (const Reservation& r : reservations) {
    if (slots_.Find(r.request.value()) != nullptr) continue;
    const MirrorRequest m = FromReservation(r, r.arrival);
    waiting_.push_back(NewSlot(m));
    latest_ready_ns_ = std::max(latest_ready_ns_, m.ready_ns);
  }
}

size_t TimelinePredictor::memory_bytes() const {
  return sizeof(*this) + requests_.capacity() * sizeof(MirrorRequest) + slots_.memory_bytes() +
         waiting_.capacity() * sizeof(Slot) + slos_.capacity() * sizeof(Slo) + head_.memory_bytes() + reach_.memory_bytes() +
         work_.memory_bytes() + clock_.memory_bytes();
}

}  // namespace foretoken
