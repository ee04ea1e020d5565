#include "runtime/sched/slo_headroom.h"

#include <algorithm>
#include <cmath>

namespace foretoken {
namespace {

constexpr uint64_t kLeastSeen =
    10;  // decisions and ends; fewer say little: a mean of ten has an error of a third of its spread
// Seconds. A window of ten holds a burst or none; what requests are like has long tails, and changes slowly.
constexpr double kRatesOver = 30, kLengthsOver = 120;
constexpr double kUse = 0.8;    // of the rate that the law allows
constexpr double kKvUse = 0.9;  // of the cache: beyond it requests wait for room, or are preempted
constexpr double kAim = 0.5;    // of missed_most
constexpr double kSteepUp = 3, kSteepDown = 8;
constexpr double kAlone = 0.8;     // of its target: a prompt that takes longer needs an engine of its own
constexpr double kGrowthMost = 2;  // times what is there

struct Capacity {
  double rate = 0;  // requests a second
  double load = 0;  // share of its time then
  double work_s = 0;
};

Capacity CapacityOf(const FleetLoad::Engine& e, const FleetLoad& l, double there) {
  const StepCost& c = e.cost;
  const double output = std::max(0.0, l.mean_output_tokens - 1);  // the first comes of the prompt's step
  const double context = l.mean_prompt_tokens + 0.5 * l.mean_output_tokens;
  const double prompt_s = l.mean_computed * c.prompt_token_s;
  Capacity out;
  out.work_s = prompt_s + output * (c.sequence_s + context * c.kv_token_s);
  if (out.work_s <= 0) return out;
  double most = 1;
  if (output > 0) most = std::min(most, 1 - c.fixed_s / l.slo.tpot.seconds());
  if (prompt_s > 0) {
    const double rest = c.prompt_token_s * l.mean_computed_squared / l.mean_computed / 2;
    const double left = l.slo.ttft.seconds() - prompt_s - c.fixed_s;
    most = std::min(most, left > 0 ? 1 - rest * std::log(1 / l.missed_most) / (there * left) : 0);
  }
  out.rate = kUse * std::max(0.0, most) / out.work_s;
  if (e.kv_tokens > 0) {
    const double room = kKvUse * e.kv_tokens;
    out.rate = std::min(out.rate, room / (output * c.fixed_s * context + room * out.work_s));
  }
  out.load = out.rate * out.work_s;
  return out;
}

// The share of prompts longer than this.
double Beyond(const std::array<double, kPromptBuckets>& shares, double tokens) {
  double beyond = 0;
  for (size_t i = 0; i < kPromptBuckets; ++i) {
    const double least = i == 0 ? 0 : std::exp2(static_cast<double>(i) - 1), most = std::exp2(static_cast<double>(i));
    if (tokens >= most) continue;
    // Within a bucket as if evenly on a scale of ratios.
    const double above = tokens <= least || least < 1 ? 1 : std::log2(most / tokens);
    beyond += shares[i] * above;
  }
  return beyond;
}

double Hopeless(const FleetLoad::Engine& e, const FleetLoad& l) {
  if (e.cost.prompt_token_s <= 0) return 0;
  return Beyond(l.computed, (kAlone * l.slo.ttft.seconds() - e.cost.fixed_s) / e.cost.prompt_token_s);
}

// As predicted, those included that were refused, or as it came if that was worse.
double Missed(const FleetLoad& l) {
  if (l.arrivals_per_second <= 0) return l.missed;
  const double refused = std::clamp(1 - l.decisions_per_second / l.arrivals_per_second, 0.0, 1.0);
  return std::max(refused + (1 - refused) * l.mean_violation, l.missed);
}

}  // namespace

void Headroom::Smooth(const FleetLoad& latest, double passed) {
  double share = known_ ? 1 - std::exp(-passed / kRatesOver) : 1;
  known_ = true;
  const auto towards = [&share](double& mean, double value) { mean += share * (value - mean); };
  share_ = share;
  towards(mean_.arrivals_per_second, latest.arrivals_per_second);
  mean_.slo = latest.slo;
  mean_.missed_most = latest.missed_most;
  if (latest.decisions == 0 || latest.finished == 0) return;  // what requests are like is not told by none
  share = mean_.decisions > 0 ? 1 - std::exp(-passed / kLengthsOver) : 1;
  mean_.decisions = latest.decisions;
  towards(mean_.mean_prompt_tokens, latest.mean_prompt_tokens);
  towards(mean_.mean_computed, latest.mean_computed);
  towards(mean_.mean_computed_squared, latest.mean_computed_squared);
  towards(mean_.mean_output_tokens, latest.mean_output_tokens);
  for (size_t i = 0; i < kPromptBuckets; ++i) towards(mean_.computed[i], latest.computed[i]);
}

SloHeadroom Headroom::Look(const FleetLoad& latest, Instant now) {
  SloHeadroom h;
  const double passed = std::clamp((now - looked_at_).seconds(), 0.0, 10.0);
  looked_at_ = now;
  const bool quiet = latest.arrivals_per_second <= 0 && latest.decisions == 0;
  const bool seen = latest.decisions >= kLeastSeen && latest.finished >= kLeastSeen && !latest.engines.empty();
  if (latest.instances == 0 || (!quiet && !seen)) return h;
  h.known = true;
  Smooth(latest, passed);
  const FleetLoad& l = mean_;
  const double there = latest.instances;
  h.missed = Missed(latest);
  double rate = 0;  // mean over the engines, as the next
  for (const FleetLoad::Engine& e : latest.engines) {
    const Capacity c = CapacityOf(e, l, there);
    const double count = static_cast<double>(latest.engines.size());
    rate += c.rate / count;
    h.load_at_target += c.load / count;
    h.load += l.arrivals_per_second / there * c.work_s / count;
    h.hopeless += Hopeless(e, l) / count;
  }
  h.hopeless = std::min(h.hopeless, h.missed);
  // Targets that no load allows are met by no number of instances: then only the predictions count.
  const double by_law = rate > 0 ? l.arrivals_per_second / rate : 0;
  const double over = (h.missed - h.hopeless) / (kAim * l.missed_most);
  const double by_predictions = there * std::pow(over, 1 / (over > 1 ? kSteepUp : kSteepDown));
  by_predictions_ += share_ * (by_predictions - by_predictions_);
  h.instances_needed = std::clamp(std::max(by_law, by_predictions_), 1.0, kGrowthMost * there);
  h.headroom = 1 - h.instances_needed / there;
  return h;
}

}  // namespace foretoken
