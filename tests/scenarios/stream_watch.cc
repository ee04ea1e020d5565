#include "tests/scenarios/stream_watch.h"

#include <algorithm>

namespace foretoken::testing {

size_t StreamWatch::NextVisible(size_t at, Epoch epoch) const {
  while (at < sent_.size() && (sent_[at].epoch < epoch || (sent_[at].epoch == epoch && !Visible(sent_[at])))) ++at;
  return at < sent_.size() && sent_[at].epoch == epoch ? at : sent_.size();
}

void StreamWatch::OnSent(const StreamMessage& m) {
  const bool restarted = !sent_.empty() && sent_.back().epoch < m.epoch;
  const uint64_t expected = sent_.empty() || restarted ? 0 : sent_.back().seq + 1;
  verdict_->Expect(m.seq == expected, name_ + ": sent seq " + std::to_string(m.seq) + " after " + std::to_string(expected));
  verdict_->Expect(sent_.empty() || sent_.back().sent <= m.sent, name_ + ": its stream went back in time");
  verdict_->Expect(sent_.empty() || sent_.back().epoch <= m.epoch, name_ + ": went back to an older epoch");
  if (restarted) {
    arrived_.clear();
    next_step_ = 0;
  }
  if (const auto* a = std::get_if<Arrived>(&m.body)) {
    const auto at = std::find(dispatched_.begin(), dispatched_.end(), a->request);
    verdict_->Expect(at != dispatched_.end(), name_ + ": told of arrivals in another order than requests came in");
    if (at != dispatched_.end()) dispatched_.erase(dispatched_.begin(), at + 1);  // those before it were refused
    arrived_.insert(a->request.value());
  } else if (const auto* trace = std::get_if<BatchTrace>(&m.body)) {
    CheckStep(*trace);
  } else if (const auto* s = std::get_if<Snapshot>(&m.body)) {
    verdict_->Expect(s->last_seq + 1 == m.seq, name_ + ": a snapshot that does not include all that was sent before it");
  }
  sent_.push_back(m);
}

void StreamWatch::CheckStep(const BatchTrace& trace) {
  verdict_->Expect(trace.step == next_step_,
                   name_ + ": step " + std::to_string(trace.step) + " after " + std::to_string(next_step_));
  next_step_ = trace.step + 1;
  for (const BatchTrace::Finish& f : trace.finished) ended_.insert(f.request.value());
  verdict_->Expect(trace.duration >= Duration() && trace.scheduled <= trace.start,
                   name_ + ": a step that starts before it is scheduled");
  verdict_->Expect(0 <= trace.free_blocks && trace.free_blocks <= trace.total_blocks,
                   name_ + ": more free KV blocks than there are");
  for (const BatchTrace::Admission& a : trace.admitted)
    verdict_->Expect(arrived_.count(a.request.value()) > 0,
                     name_ + ": admitted request " + std::to_string(a.request.value()) + " without telling of its arrival");
}

void StreamWatch::OnApplied(const Matcher& is, bool is_snapshot) {
  ++applied_;
  verdict_->Observe(applied_);
  if (awaits_epoch_ && !EnterEpochOf(is)) return;
  for (; next_ < sent_.size() && sent_[next_].epoch == epoch_; ++next_) {
    if (is(sent_[next_].body)) {
      ++next_;
      return;
    }
    if (Visible(sent_[next_]) && !is_snapshot) break;
  }
  verdict_->Fail(name_ + ": applied what is not the next message of its stream (repeated, out of order, or past a gap)");
}

bool StreamWatch::EnterEpochOf(const Matcher& is) {
  const Epoch entered = mirror_epoch_();
  for (size_t k = 0; k < sent_.size(); ++k) {
    if (!(epoch_ < entered) || !(sent_[k].epoch == entered) || !is(sent_[k].body)) continue;
    size_t first = k;
    while (first > 0 && sent_[first - 1].epoch == sent_[k].epoch) --first;
    awaits_epoch_ = false;
    epoch_ = sent_[k].epoch;
    next_ = first;
    return true;
  }
  verdict_->Fail(name_ + ": applied a message of no newer epoch after its mirror was reset");
  return false;
}

void StreamWatch::OnReset() {
  const bool newer = !sent_.empty() && epoch_ < sent_.back().epoch;
  verdict_->Expect(newer, name_ + ": its mirror was reset though no newer epoch began");
  awaits_epoch_ = true;
}

bool StreamWatch::IsNextAborted(RequestId request, Instant at) const {
  const auto is = [&](size_t k) {
    const Aborted* a = k < sent_.size() ? std::get_if<Aborted>(&sent_[k].body) : nullptr;
    return a != nullptr && a->request == request && Same(a->at, at);
  };
  if (!awaits_epoch_) return is(NextVisible(next_, epoch_));
  for (size_t k = 0; k < sent_.size(); ++k)
    if (sent_[k].epoch == mirror_epoch_() && is(k) && NextVisible(0, sent_[k].epoch) == k) return true;
  return false;
}

bool StreamWatch::complete() const {
  if (sent_.empty()) return true;
  const Epoch newest = sent_.back().epoch;
  if (awaits_epoch_ || !(epoch_ == newest)) return NextVisible(0, newest) == sent_.size();
  return NextVisible(next_, newest) == sent_.size();
}

void MirrorWatch::OnEnqueue(const Reservation& reservation, Instant now) {
  CheckTime(now);
  verdict_->Observe(reservation.request.value());
  for (const Reserved& r : reserved_)
    verdict_->Expect(!(r.reservation.request == reservation.request), name_ + ": reserved twice for one request");
  reserved_.push_back({reservation, now});
  inner_->OnEnqueue(reservation, now);
  if (fresh_) fresh_->OnEnqueue(reservation, now);
}

bool MirrorWatch::Release(RequestId request) {
  const auto at =
      std::find_if(reserved_.begin(), reserved_.end(), [&](const Reserved& r) { return r.reservation.request == request; });
  if (at == reserved_.end()) return false;
  reserved_.erase(at);
  return true;
}

void MirrorWatch::OnArrived(RequestId request, Instant at) {
  stream_->OnApplied(
      [&](const StreamBody& b) {
        const Arrived* a = std::get_if<Arrived>(&b);
        return a != nullptr && a->request == request && stream_->Same(a->at, at);
      },
      false);
  confirmed_.insert(request.value());
  inner_->OnArrived(request, at);
  if (fresh_) fresh_->OnArrived(request, at);
}

void MirrorWatch::OnGone(RequestId request, Instant now) {
  if (stream_->IsNextAborted(request, now)) {
    stream_->OnApplied(
        [&](const StreamBody& b) {
          const Aborted* a = std::get_if<Aborted>(&b);
          return a != nullptr && a->request == request && stream_->Same(a->at, now);
        },
        false);
    if (Release(request)) both_ = {request, now};
    aborted_.insert(request.value());
  } else {
    const bool said_twice = both_ == std::pair(request, now);
    const bool listed_again = aborted_.count(request.value()) > 0;  // by a step that was in flight: it is let go again
    if (!said_twice) CheckTime(now);
    verdict_->Expect(Release(request) || said_twice || listed_again,
                     name_ + ": request " + std::to_string(request.value()) + " released twice");
  }
  inner_->OnGone(request, now);
  if (fresh_) fresh_->OnGone(request, now);
}

void MirrorWatch::OnStep(const BatchTrace& trace) {
  const auto is = [&](const StreamBody& b) {
    const BatchTrace* t = std::get_if<BatchTrace>(&b);
    return t != nullptr && stream_->Same(*t, trace);
  };
  stream_->OnApplied(is, false);
  for (const BatchTrace::Finish& f : trace.finished) Release(f.request);
  inner_->OnStep(trace);
  if (fresh_) fresh_->OnStep(trace);
}

void MirrorWatch::OnAggregate(const AggregateState& state, const BatchTrace* step) {
  const auto is = [&](const StreamBody& b) {
    if (const BatchTrace* t = std::get_if<BatchTrace>(&b)) return step != nullptr && stream_->Same(*t, *step);
    const Aggregate* a = std::get_if<Aggregate>(&b);
    return step == nullptr && a != nullptr && stream_->Same(a->at, state.as_of) && a->waiting == state.waiting &&
           a->running == state.running && a->free_blocks == state.free_blocks;
  };
  stream_->OnApplied(is, false);
  inner_->OnAggregate(state, step);
  if (fresh_) fresh_->OnAggregate(state, step);
}

void MirrorWatch::OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) {
  if (snapshot.as_of == Instant()) {  // no engine's: the mirror starts anew
    stream_->OnReset();
  } else {
    stream_->OnApplied(
        [&](const StreamBody& b) {
          const Snapshot* s = std::get_if<Snapshot>(&b);
          return s != nullptr &&
                 (level_ != SyncLevel::kFull ? s->last_seq == snapshot.last_seq && stream_->Same(s->as_of, snapshot.as_of)
                                             : stream_->Same(*s, snapshot));
        },
        true);
    last_snapshot_ = snapshot;
    last_unconfirmed_ = reservations;
  }
  for (const auto* list : {&snapshot.running, &snapshot.waiting})
    for (const Snapshot::Request& r : *list) confirmed_.insert(r.request.value());
  for (const Reserved& r : reserved_) {
    const auto is = [&](const Reservation& other) { return other.request == r.reservation.request; };
    const bool kept = std::any_of(reservations.begin(), reservations.end(), is);
    verdict_->Expect(level_ != SyncLevel::kFull || kept || confirmed_.count(r.reservation.request.value()) > 0 ||
                         stream_->HasTold(r.reservation.request),
                     name_ + ": a snapshot made its mirror forget a reservation that it does not include");
  }
  std::erase_if(reserved_, [&](const Reserved& r) {  // what is in neither list has ended
    if (level_ != SyncLevel::kFull) return false;    // an outcome will tell
    const auto is = [&](const auto& other) { return other.request == r.reservation.request; };
    return std::none_of(snapshot.running.begin(), snapshot.running.end(), is) &&
           std::none_of(snapshot.waiting.begin(), snapshot.waiting.end(), is) &&
           std::none_of(reservations.begin(), reservations.end(), is);
  });
  inner_->OnSnapshot(snapshot, as_of, reservations);
  if (fresh_) fresh_->OnSnapshot(snapshot, as_of, reservations);
}

Prediction MirrorWatch::Predict(const PredictQuery& query, Instant now) {
  CheckTime(now);
  const Prediction p = inner_->Predict(query, now);
  verdict_->Observe(static_cast<uint64_t>(p.e2e.nanos()));
  verdict_->Expect(p.ttft >= Duration() && p.ttft <= p.e2e,
                   name_ + ": predicts ttft " + std::to_string(p.ttft.nanos()) + " and e2e " + std::to_string(p.e2e.nanos()));
  if (!fresh_) return p;
  const Prediction f = fresh_->Predict(query, now);  // always: pattern_reuse keeps what it was asked
  if (query.request->segments.empty()) {
    ++compared_;
    verdict_->Expect(p.ttft == f.ttft && p.e2e == f.e2e && p.kv_headroom == f.kv_headroom,
                     name_ + ": predicts ttft " + std::to_string(p.ttft.nanos()) + " and e2e " + std::to_string(p.e2e.nanos()) +
                         " ns, a mirror that began with its latest snapshot " + std::to_string(f.ttft.nanos()) + " and " +
                         std::to_string(f.e2e.nanos()));
  }
  return p;
}

void MirrorWatch::CompareWith(std::unique_ptr<Predictor> fresh) {
  for (const Reserved& r : reserved_) fresh->OnEnqueue(r.reservation, r.at);
  fresh->OnSnapshot(last_snapshot_, last_snapshot_.as_of, last_unconfirmed_);
  fresh_ = std::move(fresh);
}

}  // namespace foretoken::testing
