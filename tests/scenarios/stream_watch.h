// StreamWatch: what one INSTANCE sent on its sync stream beside what its mirror applied of it. Guarantees to notice: a message
// applied twice, out of order, in another epoch or after a gap that no snapshot closed; a stream that is not numbered or ordered in
// time; arrivals told in another order than the engine took requests in, or not at all.
// MirrorWatch: a Predictor in front of the real one that reports each call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/model/stream_message.h"
#include "runtime/predict/predictor.h"
#include "runtime/sync/map_times.h"

namespace foretoken::testing {

// The first violation of a run, and a digest of all that was observed.
class Verdict {
 public:
  explicit Verdict(uint64_t seed) : prng_(seed) {}
  void Fail(const std::string& what) {
    if (failure_.empty()) failure_ = what;
  }
  void Expect(bool holds, const std::string& what) {
    if (!holds) Fail(what);
  }
  // Draws now and then, as the event says: two runs end with the same next draw only if they saw the same events.
  void Observe(uint64_t event) {
    digest_ = Mix64(digest_, event);
    if (digest_ % 4 == 0) prng_.Next();
  }
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  uint64_t digest() const { return digest_; }
  uint64_t Unseed() { return prng_.Next(); }

 private:
  std::string failure_;
  uint64_t digest_ = 0;
  Prng prng_;
};

class StreamWatch {
 public:
  // `own_clock`: the engine has one, so that a mirror is given other times than were sent.
  StreamWatch(std::string name, bool own_clock, Verdict* verdict)
      : name_(std::move(name)), own_clock_(own_clock), verdict_(verdict) {}

  // Which epoch the mirror says that it is in: bodies alone may be those of several.
  void Follow(std::function<Epoch()> epoch) { mirror_epoch_ = std::move(epoch); }
  // The engine is given a request; it takes it in, which it must tell in this order, or refuses it.
  void OnDispatch(RequestId request) { dispatched_.push_back(request); }
  void OnSent(const StreamMessage& message);
  // The mirror forgot everything: a newer epoch was heard of.
  void OnReset();
  // The mirror was given a message; `is` tells which. A snapshot may stand in for all that comes before it.
  using Matcher = std::function<bool(const StreamBody&)>;
  void OnApplied(const Matcher& is, bool is_snapshot);
  // Equal, as far as a mirror's clock lets them be.
  template <class Body>
  bool Same(const Body& a, const Body& b) const {
    return own_clock_ ? Timeless(a) == Timeless(b) : a == b;
  }
  bool Same(Instant a, Instant b) const { return own_clock_ || a == b; }

  // An OnGone may be the stream's word or a SCHEDULER's: true if it is the next message.
  bool IsNextAborted(RequestId request, Instant at) const;

  // The request's end was sent, whether or not it came.
  bool HasTold(RequestId request) const { return ended_.count(request.value()) > 0; }

  // All that a mirror can see of what was sent has been applied.
  bool complete() const;
  uint64_t applied() const { return applied_; }

 private:
  static bool Visible(const StreamMessage& m) {
    return !std::holds_alternative<Hello>(m.body) && !std::holds_alternative<Heartbeat>(m.body);
  }
  static StreamBody Timeless(StreamBody body) {
    MapTimes(body, [](Instant) { return Instant(); });
    return body;
  }
  // The index of the first message that a mirror sees from `at` on, within `epoch`.
  size_t NextVisible(size_t at, Epoch epoch) const;
  void CheckStep(const BatchTrace& trace);
  bool EnterEpochOf(const Matcher& is);

  std::string name_;
  bool own_clock_;
  Verdict* verdict_;
  std::vector<StreamMessage> sent_;
  std::vector<RequestId> dispatched_;  // not yet told of
  std::set<uint64_t> ended_;
  std::set<uint64_t> arrived_;  // in the newest epoch
  uint64_t next_step_ = 0;
  std::function<Epoch()> mirror_epoch_;
  Epoch epoch_{0};            // that the mirror is in
  bool awaits_epoch_ = true;  // reset: the next message applied says which
  size_t next_ = 0;           // index in sent_ behind the last one applied
  uint64_t applied_ = 0;
};

class MirrorWatch final : public Predictor {
 public:
  MirrorWatch(std::string name, SyncLevel level, std::unique_ptr<Predictor> inner, StreamWatch* stream, Verdict* verdict)
      : name_(std::move(name)), level_(level), inner_(std::move(inner)), stream_(stream), verdict_(verdict) {}

  PredictorKind kind() const override { return inner_->kind(); }
  void OnEnqueue(const Reservation& reservation, Instant now) override;
  void OnArrived(RequestId request, Instant at) override;
  void OnGone(RequestId request, Instant now) override;
  void OnStep(const BatchTrace& trace) override;
  void OnAggregate(const AggregateState& state, const BatchTrace* step) override;
  void OnSnapshot(const Snapshot& snapshot, Instant as_of, const std::vector<Reservation>& reservations) override;
  Prediction Predict(const PredictQuery& query, Instant now) override;
  int32_t waiting() const override { return inner_->waiting(); }
  int32_t running() const override { return inner_->running(); }
  size_t memory_bytes() const override { return inner_->memory_bytes(); }
  const StepTimeModel& step_time() const override { return inner_->step_time(); }

  struct Reserved {
    Reservation reservation;
    Instant at;
  };
  const std::vector<Reserved>& reserved() const { return reserved_; }  // in order; released ones gone
  // `fresh` begins with the reservations and the latest snapshot, hears the same from here on, and has to answer alike at once, to
  // the last nanosecond: a snapshot leaves nothing of what was before. Learnt state is apart: quantiles beyond the median, and what
  // prefixes were seen.
  void CompareWith(std::unique_ptr<Predictor> fresh);
  uint64_t compared() const { return compared_; }

 private:
  bool Release(RequestId request);
  void CheckTime(Instant now) {
    verdict_->Expect(now_ <= now, name_ + ": time went back at its mirror");
    now_ = now;
  }

  std::string name_;
  SyncLevel level_;
  std::unique_ptr<Predictor> inner_;
  StreamWatch* stream_;
  Verdict* verdict_;
  Instant now_;  // latest of the calls that carry the receiver's clock
  std::vector<Reserved> reserved_;
  Snapshot last_snapshot_;
  std::vector<Reservation> last_unconfirmed_;
  std::pair<RequestId, Instant>
      both_;                      // gone by the stream's word while it was reserved: a SCHEDULER may say so at the same instant
  std::set<uint64_t> confirmed_;  // by an arrival or a snapshot
  std::set<uint64_t> aborted_;    // by the stream's word
  std::unique_ptr<Predictor> fresh_;
  uint64_t compared_ = 0;
};

}  // namespace foretoken::testing
