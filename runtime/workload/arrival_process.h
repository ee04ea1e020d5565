// ArrivalProcess: the times of an ArrivalProfile, one by one.
#pragma once

#include <cstddef>

#include "runtime/base/prng.h"
#include "runtime/base/units.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {

class ArrivalProcess {
 public:
  // `rate_scale`: arrivals come so many times as fast as the profile says. The profile outlives this.
  explicit ArrivalProcess(const ArrivalProfile& profile, double rate_scale = 1);
  // The next arrival; the first is at 0. Never before the one before it.
  Instant Next(Prng& prng);

 private:
  double UnitGap(Prng& prng);  // mean 1
  double OnOffGap(Prng& prng);

  const ArrivalProfile& profile_;
  double rate_;           // arrivals per second, mean
  double unit_mean_ = 1;  // mean of the table or the recording
  double weight_total_ = 0;
  bool first_ = true;
  double on_left_ = 0;  // of an ON spell, seconds at the mean rate
  size_t replay_at_ = 0;
  double piece_s_;
  double piece_start_s_ = 0;
  size_t piece_at_ = 0;
  double now_s_ = 0;
};

}  // namespace foretoken
