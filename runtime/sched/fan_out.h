// FanOut: one decision round as a value. It holds the targets, what each answered, and the deadline; it knows when it is
// complete and why. Decision latency is the slowest reply or the deadline, never the sum.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"

namespace foretoken {

enum class ReplyOutcome : uint8_t { kWaiting, kAnswered, kUnreachable, kLate };

class FanOut {
 public:
  struct Target {
    InstanceId instance;
    ReplyOutcome outcome = ReplyOutcome::kWaiting;
    Prediction prediction;  // when kAnswered
  };

  void Open(Instant now, Instant deadline) {
    opened_ = now;
    deadline_ = deadline;
    targets_.clear();
    waiting_ = 0;
  }
  void AddTarget(InstanceId instance) {
    targets_.push_back({instance, ReplyOutcome::kWaiting, {}});
    ++waiting_;
  }

  // False: not one of the targets still waited for (unknown, repeated, or the round is over).
  bool Answer(InstanceId instance, const Prediction& prediction) {
    Target* t = Waiting(instance);
    if (t == nullptr) return false;
    t->outcome = ReplyOutcome::kAnswered;
    t->prediction = prediction;
    --waiting_;
    return true;
  }
  bool Fail(InstanceId instance) {
    Target* t = Waiting(instance);
    if (t == nullptr) return false;
    t->outcome = ReplyOutcome::kUnreachable;
    --waiting_;
    return true;
  }
  // The deadline has passed: whoever has not answered is late. The number of late ones.
  int32_t Expire() {
    const int32_t late = waiting_;
    for (Target& t : targets_)
      if (t.outcome == ReplyOutcome::kWaiting) t.outcome = ReplyOutcome::kLate;
    waiting_ = 0;
    return late;
  }

  bool complete() const { return waiting_ == 0; }
  Instant opened() const { return opened_; }
  Instant deadline() const { return deadline_; }
  const std::vector<Target>& targets() const { return targets_; }
  std::vector<Target>& targets() { return targets_; }

 private:
  Target* Waiting(InstanceId instance) {
    for (Target& t : targets_)
      if (t.instance == instance) return t.outcome == ReplyOutcome::kWaiting ? &t : nullptr;
    return nullptr;
  }

  Instant opened_;
  Instant deadline_;
  int32_t waiting_ = 0;
  std::vector<Target> targets_;
};

}  // namespace foretoken
