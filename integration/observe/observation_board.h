// ObservationBoard: where a host puts its latest Observation and whoever watches takes it. Any thread; nobody waits for anybody longer
// than it takes to copy a pointer.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <utility>

#include "integration/observe/observation.h"

namespace foretoken {

class ObservationBoard {
 public:
  using Clock = std::chrono::steady_clock;

  void Put(std::shared_ptr<const Observation> observation) {
    const std::lock_guard lock(mutex_);
    latest_ = std::move(observation);
  }
  // Null before the first.
  std::shared_ptr<const Observation> Latest() const {
    const std::lock_guard lock(mutex_);
    return latest_;
  }
  // Somebody watches: for the next seconds observations are taken more often.
  void Touch() {
    const std::lock_guard lock(mutex_);
    touched_at_ = Clock::now();
  }
  // Asked by the host: how long to wait from one observation to the next. More instances, more rarely: taking one costs some
  // 20 us for each (the quantiles of its ledger), all hosts together at most 1 % of one core.
  std::chrono::milliseconds Interval(size_t instances) const {
    const std::lock_guard lock(mutex_);
    const bool watched = touched_at_ != Clock::time_point() && Clock::now() - touched_at_ < std::chrono::seconds(3);
    const std::chrono::milliseconds least(instances * 2);
    return std::max(watched ? std::chrono::milliseconds(250) : std::chrono::milliseconds(1000), least);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const Observation> latest_;
  Clock::time_point touched_at_;
};

}  // namespace foretoken
