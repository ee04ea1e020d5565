#include "runtime/sched/slo_headroom.h"

#include <algorithm>

namespace foretoken {
namespace {

constexpr uint64_t kLeastDecisions = 10;  // fewer say little: a mean of ten has an error of a third of its spread
constexpr double kUse = 0.8;              // of the load that the target allows
constexpr double kNoFewer = 0.5;          // of missed_most, beyond which no instance is given back
// What is under way follows arrivals by the length of a request. By Little's law it is going to be arrivals x E2E; the present count
// over- or underestimates that, for noise as well, so it is believed within these bounds only.
constexpr double kTrendLeast = 0.7, kTrendMost = 1.5;
constexpr double kGrowthMost = 2;  // times, from one look to the next

double Trend(const FleetLoad& l) {
  if (l.mirrored == 0 || l.held < 1) return 1;
  const double held = l.held * l.instances / l.mirrored;
  return std::clamp(l.arrivals_per_second * l.mean_e2e_s / held, kTrendLeast, kTrendMost);
}

}  // namespace

SloHeadroom HeadroomOf(const FleetLoad& l) {
  SloHeadroom h;
  const bool quiet = l.arrivals_per_second <= 0 && l.decisions == 0;
  const bool law = l.step_alone_s > 0 && l.mirrored > 0;
  if (l.instances == 0 || (!quiet && (l.decisions < kLeastDecisions || !law))) return h;
  h.known = true;
  const double there = l.instances;
  const double refused =
      l.arrivals_per_second > 0 ? std::clamp(1 - l.decisions_per_second / l.arrivals_per_second, 0.0, 1.0) : 0.0;
  h.missed = refused + (1 - refused) * l.mean_violation;
  h.load = l.mean_tpot_s > l.step_alone_s ? 1 - l.step_alone_s / l.mean_tpot_s : 0;
  h.load_at_target = kUse * std::max(0.0, 1 - l.step_alone_s / l.slo.tpot.seconds());
  // A target below what one request alone takes is met by no number of instances: then only misses count.
  double needed = h.load_at_target > 0 ? there * h.load * Trend(l) / h.load_at_target : 0;
  if (h.missed > kNoFewer * l.missed_most) needed = std::max(needed, there);
  if (h.missed > l.missed_most) needed = std::max(needed, there * (1 + h.missed - l.missed_most));
  h.instances_needed = std::clamp(needed, 1.0, kGrowthMost * there);
  h.headroom = 1 - h.instances_needed / there;
  return h;
}

}  // namespace foretoken
