#include "runtime/observe/mirror_view.h"

#include <algorithm>

namespace foretoken {

MirrorView ViewOf(const SimulatorCore& core, Instant now) {
  MirrorView v;
  v.instance = core.instance();
  v.liveness = core.LivenessAt(now);
  v.epoch = core.epoch();
  v.versions = core.versions();
  const Predictor& p = core.predictor();
  v.running = p.running();
  v.waiting = p.waiting();
  v.unconfirmed = static_cast<int32_t>(core.unconfirmed());
  v.assigned = static_cast<int32_t>(core.assigned());
  v.free_blocks = core.free_blocks();
  v.total_blocks = core.total_blocks();
  v.age = core.AgeAt(now);
  v.heard = core.last_heard() > Instant();
  v.unheard = std::max(Duration(), now - core.last_heard());
  v.predictor = p.kind();
  v.answers = core.answered_last().value_or(p.kind());
  if (const PredictionLedger* ledger = p.ledger()) {
    v.ttft = ledger->ttft();
    v.e2e = ledger->e2e();
    v.demotions = ledger->demotions();
  }
  v.drift = core.drift();
  v.sync = core.sync_counters();
  v.counters = core.counters();
  v.cost = CostOf(p.step_time());
  v.kv_tokens = static_cast<double>(core.total_blocks() * core.block_tokens());
  return v;
}

std::string_view LivenessName(Liveness liveness) {
  switch (liveness) {
    case Liveness::kFresh: return "fresh";
    case Liveness::kStale: return "stale";
    case Liveness::kHung: return "hung";
    case Liveness::kUnreachable: return "unreachable";
  }
  return "";
}

}  // namespace foretoken
