#include "runtime/workload/arrival_process.h"

#include <cmath>

namespace foretoken {

ArrivalProcess::ArrivalProcess(const ArrivalProfile& profile, double rate_scale)
    : profile_(profile), rate_(profile.rate_rps * rate_scale), piece_s_(profile.piece.seconds() / rate_scale) {
  if (profile.kind == ArrivalKind::kEmpirical) unit_mean_ = profile.gaps.Mean();
  if (profile.kind == ArrivalKind::kReplay) {
    unit_mean_ = 0;
    for (const Duration gap : profile.replay) unit_mean_ += gap.seconds();
    unit_mean_ /= static_cast<double>(profile.replay.size());
  }
  for (const double w : profile.weights) weight_total_ += w;
}

// Arrivals during ON spells alone, at 1 / on_share of the mean rate; the OFF time before one is part of its gap.
double ArrivalProcess::OnOffGap(Prng& prng) {
  const double on_mean = profile_.on_mean.seconds() * rate_;  // in mean gaps
  double left = prng.Exponential(1) * profile_.on_share;      // of ON time until the arrival
  double gap = 0;
  while (left > on_left_) {
    gap += on_left_;
    left -= on_left_;
    gap += prng.Exponential(on_mean * (1 - profile_.on_share) / profile_.on_share);
    on_left_ = prng.Exponential(on_mean);
  }
  on_left_ -= left;
  return gap + left;
}

double ArrivalProcess::UnitGap(Prng& prng) {
  switch (profile_.kind) {
    case ArrivalKind::kUniform: return 1;
    case ArrivalKind::kPoisson: return prng.Exponential(1);
    case ArrivalKind::kGamma: {
      const double shape = 1 / (profile_.cv * profile_.cv);
      return prng.Gamma(shape, 1 / shape);
    }
    case ArrivalKind::kOnOff: return OnOffGap(prng);
    case ArrivalKind::kEmpirical: return profile_.gaps.At(prng.Unit()) / unit_mean_;
    case ArrivalKind::kReplay: {
      const double gap = profile_.replay[replay_at_].seconds() / unit_mean_;
      replay_at_ = (replay_at_ + 1) % profile_.replay.size();
      return gap;
    }
  }
  return 1;
}

// With weights, time runs through the pieces until the rate, summed over it, has reached the gap.
Instant ArrivalProcess::Next(Prng& prng) {
  double gap = first_ ? 0 : UnitGap(prng);
  first_ = false;
  if (profile_.weights.empty()) {
    now_s_ += gap / rate_;
    return Instant::FromNanos(static_cast<int64_t>(std::llround(now_s_ * 1e9)));
  }
  for (;;) {
    const double weight = profile_.weights[piece_at_ % profile_.weights.size()];
    const double rate = rate_ * weight * static_cast<double>(profile_.weights.size()) / weight_total_;
    const double left = (piece_start_s_ + piece_s_ - now_s_) * rate;
    if (gap <= left && rate > 0) {
      now_s_ += gap / rate;
      return Instant::FromNanos(static_cast<int64_t>(std::llround(now_s_ * 1e9)));
    }
    gap -= left;
    piece_start_s_ += piece_s_;
    now_s_ = piece_start_s_;
    ++piece_at_;
  }
}

}  // namespace foretoken
