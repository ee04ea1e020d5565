// A gateway's metrics (docs/operations.md): its numbers are copied on its thread, in microseconds, and made text of elsewhere.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "integration/engines/vllm/live_mirror.h"
#include "integration/gateway/engine.h"
#include "integration/gateway/gateway_counters.h"
#include "integration/gateway/shadow_statistics.h"
#include "integration/observe/observation.h"
#include "runtime/base/units.h"
#include "runtime/cluster/membership.h"
#include "runtime/sched/slow_start.h"

namespace foretoken {

class Gateway;

struct EngineReport {
  std::string name;
  std::string model;  // the first that it says it serves; never a name that a client made up
  bool up = false;
  bool takes_requests = true;    // as membership has it
  std::optional<double> window;  // while it joins
  int32_t outstanding = 0;
  EngineCounters counters;
  uint64_t times_out = 0;
  // Of its mirror.
  uint64_t steps = 0, rescaled = 0;
  std::string level;  // of its state
  struct Sync {
    LiveShadow::Counters shadow;
    SequencerCounters stream;
    LiveMirror::Counters live;
    Duration front_in, front_out;
  };
  std::optional<Sync> sync;  // its own stream's; absent: it has none
  Duration uncertainty, ttft_offset;
  double tokens_per_chunk = 0;
  int32_t running = 0, waiting = 0;
  int64_t free_blocks = 0, total_blocks = 0;  // 0: the engine does not say
};

struct GatewayReport {
  GatewayCounters counters;
  size_t open_connections = 0;
  size_t workers = 0;
  Membership::Counters members;
  MembershipCounters membership;
  SlowStart::Counters slow_starts;
  std::vector<EngineReport> engines;
  std::optional<ShadowStatistics::Report> shadow;
  std::shared_ptr<const Observation> observation;  // the latest; null: none is taken
};

// On the gateway's thread.
GatewayReport ReportOf(Gateway& gateway);
// On any.
std::string MetricsText(const GatewayReport& report);

}  // namespace foretoken
