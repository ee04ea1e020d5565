// SlowStart: how far an instance that has joined is trusted, from how well what was predicted of it came true. What nobody has measured may be
// predicted wrongly either way: far too fast, and it would be given everything; too slow, and it would be given nothing, so that the
// error would never show. So a joining instance may hold a bounded number of requests (its window), which grows with every prediction that
// came true, and it gets a request from time to time whatever the policy says (probing traffic). It has joined when its mean
// error is within bounds, or no worse than that of the others, or when patience ends (counted).
// Costs nothing while no instance is joining. Time comes in; no randomness.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"

namespace foretoken {

class SlowStart {
 public:
  struct Options {
    double bound = 0.25;        // mean |ln(predicted / actual)| that is good enough: 28 % too long, 22 % too short
    double peers_factor = 1.5;  // or so many times that of the instances that have joined
    int32_t least_judged = 6;   // first tokens and ends
    int32_t least_ended = 2;    // of these, ends: they show the pace of decoding
    double window = 2;          // requests at first
    double growth = 2;          // for each prediction that came true: doubles the requests per time to first token
    double slow_growth = 0.25;  // for each that did not: nobody is held back for ever by a mirror that is bad at its kind
    Duration probe_every = Duration::Millis(200);
    int32_t decisions_per_probe = 4;  // no more than one request in so many is a probe
    Duration patience = Duration::Seconds(60);
    Duration slack = Duration::Millis(10);  // added to both sides: nobody cares whether 1 ms was 2
  };
  struct Counters {
    uint64_t begun = 0;
    uint64_t confirmed = 0;    // joined, with errors within bounds
    uint64_t unconfirmed = 0;  // joined, because patience ended
    uint64_t probes = 0;
    uint64_t held_back = 0;  // candidates passed over because their window was full
  };

  SlowStart() : SlowStart(Options()) {}
  explicit SlowStart(Options options) : options_(options) {}

  // It joins, or comes back as what may be another engine.
  void Begin(InstanceId instance, Instant now) {
    if (instance.value() >= joining_.size()) joining_.resize(instance.value() + 1);
    std::optional<Joining>& j = joining_[instance.value()];
    if (!j) ++count_;
    j = Joining{};
    j->window = options_.window;
    j->since = now;
    ++counters_.begun;
  }
  // It leaves, or is trusted for another reason.
  void End(InstanceId instance) {
    if (!IsJoining(instance)) return;
    joining_[instance.value()].reset();
    if (--count_ == 0) {
      expected_ = {};
      peers_ = {};
    }
  }

  bool active() const { return count_ > 0; }
  bool IsJoining(InstanceId instance) const { return instance.value() < joining_.size() && joining_[instance.value()]; }
  // Whether it may be given one more; `outstanding`: requests there now.
  bool Open(InstanceId instance, int32_t outstanding) const {
    return !IsJoining(instance) || outstanding < static_cast<int32_t>(joining_[instance.value()]->window);
  }
  // Whether the next request should go there whatever the policy says; the longer it has waited, the sooner. Empty: no.
  std::optional<Duration> ProbeDue(InstanceId instance, int32_t outstanding, Instant now) const {
    if (!IsJoining(instance) || since_probe_ < options_.decisions_per_probe) return std::nullopt;
    const Joining& j = *joining_[instance.value()];
    if (outstanding > 0 && !j.error.has_value()) return std::nullopt;  // the first one is still under way
    if (!Open(instance, outstanding)) return std::nullopt;
    if (!j.tried) return Duration::Max();
    return now - j.tried_at >= options_.probe_every ? std::optional<Duration>(now - j.tried_at) : std::nullopt;
  }
  void CountHeldBack(uint64_t n) { counters_.held_back += n; }

  // Every assignment while active(). `prediction`: null when none was made: nothing can be learnt.
  void OnAssigned(RequestId request, InstanceId instance, const Prediction* prediction, bool probe, Instant now) {
    probe ? void(since_probe_ = 0) : void(++since_probe_);
    if (probe) ++counters_.probes;
    if (IsJoining(instance)) {
      joining_[instance.value()]->tried = true;
      joining_[instance.value()]->tried_at = now;
    }
    expected_.Erase(request.value());  // decided again
    if (prediction == nullptr) return;
    expected_.Insert(request.value(), Expected{instance, now, std::nullopt, prediction->ttft, prediction->tpot});
  }
  void OnFirstToken(RequestId request, Instant now) {
    Expected* e = expected_.Find(request.value());
    if (e == nullptr || e->first) return;
    e->first = now;
    Judge(e->instance, e->ttft, now - e->assigned, false, now);
  }
  void OnFinished(RequestId request, int64_t output, Instant now) {
    const Expected* found = expected_.Find(request.value());
    if (found == nullptr) return;
    const Expected e = *found;
    expected_.Erase(request.value());
    if (!e.first || !e.tpot || output < 2) return;
    // By the pace per token: how long an answer becomes is nobody's step law.
    Judge(e.instance, *e.tpot * (output - 1), now - *e.first, true, now);
  }
  void OnGone(RequestId request) { expected_.Erase(request.value()); }

  // For whoever shows it: the window of one that is joining; empty: it has joined.
  std::optional<double> window(InstanceId instance) const {
    return IsJoining(instance) ? std::optional<double>(joining_[instance.value()]->window) : std::nullopt;
  }
  const Counters& counters() const { return counters_; }

 private:
  static constexpr double kMemory = 1.0 / 8;  // of the mean errors, per judgement

  struct Joining {
    double window = 0;
    std::optional<double> error;  // mean
    int32_t judged = 0;
    Instant since;
    Instant tried_at;
    bool tried = false;
    int32_t ended = 0;
  };
  struct Expected {
    InstanceId instance;
    Instant assigned;
    std::optional<Instant> first;
    Duration ttft;
    std::optional<Duration> tpot;
  };

  static void Mix(std::optional<double>& mean, double error) { mean = mean ? *mean + kMemory * (error - *mean) : error; }

  void Judge(InstanceId instance, Duration predicted, Duration actual, bool end, Instant now) {
    const auto of = [this](Duration d) { return static_cast<double>((std::max(d, Duration()) + options_.slack).nanos()); };
    const double error = std::min(3.0, std::abs(std::log(of(predicted) / of(actual))));
    if (!IsJoining(instance)) return Mix(peers_, error);
    Joining& j = *joining_[instance.value()];
    Mix(j.error, error);
    ++j.judged;
    j.ended += end;
    const double bound = std::max(options_.bound, options_.peers_factor * peers_.value_or(0));
    j.window += error <= bound ? options_.growth : options_.slow_growth;
    if (j.judged < options_.least_judged || j.ended < options_.least_ended) return;
    const bool confirmed = *j.error <= bound;
    if (!confirmed && now - j.since < options_.patience) return;
    ++(confirmed ? counters_.confirmed : counters_.unconfirmed);
    End(instance);
  }

  Options options_;
  std::vector<std::optional<Joining>> joining_;  // by instance
  size_t count_ = 0;                             // of those
  int32_t since_probe_ = 1 << 20;
  IdMap<Expected> expected_;     // requests under way that were assigned meanwhile
  std::optional<double> peers_;  // mean error of those that have joined
  Counters counters_;
};

}  // namespace foretoken
