// RetryBudget: keeps retries from multiplying load. All retries together stay under a share of the requests of the last seconds,
// with a small floor so that a quiet gateway may retry at all. Pure: time comes in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/base/units.h"

namespace foretoken {

class RetryBudget {
 public:
  struct Options {
    double share = 0.1;  // retries per request
    int64_t least = 10;  // retries in a window that are allowed whatever the requests
    Duration window = Duration::Seconds(10);
  };

  RetryBudget() : RetryBudget(Options()) {}
  explicit RetryBudget(Options options) : options_(options) {}

  void OnRequest(Instant now) {
    Advance(now);
    ++At(slot_).requests;
    ++requests_;
  }
  // True: the retry may be made, and is counted.
  bool TryRetry(Instant now) {
    Advance(now);
    if (retries_ >= options_.least && static_cast<double>(retries_ + 1) > options_.share * static_cast<double>(requests_)) {
      ++denied_;
      return false;
    }
    ++At(slot_).retries;
    ++retries_;
    return true;
  }

  uint64_t denied() const { return denied_; }

 private:
  static constexpr int64_t kSlots = 20;
  struct Slot {
    int64_t requests = 0, retries = 0;
  };

  Slot& At(int64_t slot) { return slots_[static_cast<size_t>(slot % kSlots)]; }
  void Advance(Instant now) {
    const int64_t to = now.nanos() / (options_.window.nanos() / kSlots);
    for (int64_t gone = 0; slot_ < to && gone < kSlots; ++gone) {
      ++slot_;
      requests_ -= At(slot_).requests;
      retries_ -= At(slot_).retries;
      At(slot_) = {};
    }
    if (slot_ < to) slot_ = to;  // more than a window passed: all slots are empty
  }

  Options options_;
  std::array<Slot, kSlots> slots_{};
  int64_t slot_ = 0;
  int64_t requests_ = 0, retries_ = 0;
  uint64_t denied_ = 0;
};

}  // namespace foretoken
