// SloHeadroom: how much of its targets a fleet still has free, and how many instances it would need: what an autoscaler is told
// (docs/operations.md). A pure function of what was predicted lately and of what came lately.
//
// The law behind it. Let a request bring w seconds of work to an instance beyond the fixed part `a` of every step (its prompt's
// tokens, its share of each decode step). With r requests a second an instance spends the share r w of its time on that and repeats
// its fixed part in what is left, so a step, and with it every output token, takes tpot = a / (1 - r w). Read backwards, the load
// r w = 1 - a / tpot: it grows in proportion to the arrivals and in inverse proportion to the instances, which a latency does not, so a
// proportional controller can follow it. The target T allows the load 1 - a / T.
// Requests differ and come in bursts, so only kUse of that is planned for; and whatever the law says, decisions that predict too many
// missed targets ask for more, and those that predict nearly too many for no fewer.
#pragma once

#include <cstdint>

#include "runtime/model/request.h"

namespace foretoken {

// Of the last seconds.
struct FleetLoad {
  Slo slo;
  double missed_most = 0.1;  // share of requests that may miss a target
  double arrivals_per_second = 0;
  double decisions_per_second = 0;
  // Of the decisions made on a prediction: that of the winner.
  uint64_t decisions = 0;
  double mean_violation = 0;  // P(a target missed)
  double mean_e2e_s = 0;
  double mean_tpot_s = 0;  // 0: no output had more than one token
  // Of the instances that take requests.
  int32_t instances = 0;
  int32_t mirrored = 0;     // of these, the next two are of them
  double held = 0;          // requests there, running and waiting
  double step_alone_s = 0;  // mean duration of a step with one request: `a`
};

struct SloHeadroom {
  bool known = false;           // false: too little was predicted to say anything; the rest is 0
  double load = 0;              // r w; below 1
  double load_at_target = 0;    // that kUse of the target allows
  double missed = 0;            // share of requests that is predicted to miss a target, refused ones included
  double instances_needed = 0;  // a fraction; at least 1
  double headroom = 0;          // 1 - needed / there: .25 is a quarter too many, negative too few
};

SloHeadroom HeadroomOf(const FleetLoad& load);

}  // namespace foretoken
