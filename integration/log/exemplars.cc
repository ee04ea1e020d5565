#include "integration/log/exemplars.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace foretoken {

bool PredictedBadly(Duration predicted, Duration actual) {
  const double off = std::abs(predicted.seconds() - actual.seconds());
  return off > kBadLeast.seconds() && off > kBadShare * actual.seconds();
}

void Exemplars::Look(const Observation* o) {
  if (o == nullptr || o->number == seen_) return;
  seen_ = o->number;
  Instant latest = until_;
  for (const DecisionSeen& d : o->decisions) {
    if (d.ended == Instant::Max() || d.ended <= until_) continue;
    latest = std::max(latest, d.ended);
    if (d.outcome == OutcomeKind::kFinished) Look(*o, d);
  }
  until_ = latest;
}

void Exemplars::Look(const Observation& o, const DecisionSeen& d) {
  const auto request = static_cast<int64_t>(d.request.value());
  const std::string& engine = o.instances[d.instance.value()].name;
  const Duration e2e = d.ended - d.decided;
  if (d.first_token != Instant::Max() && d.first_token - d.submitted > o.facts.slo.ttft)
    log_.Example(LogLevel::kInfo, "slow_request", "a request's first token came after its target",
                 {{"request", request},
                  {"engine", engine},
                  {"ttft_s", (d.first_token - d.submitted).seconds()},
                  {"target_s", o.facts.slo.ttft.seconds()},
                  {"prompt_tokens", d.prompt_tokens}});
  if (d.predicted && PredictedBadly(d.prediction.e2e, e2e))
    log_.Example(LogLevel::kInfo, "badly_predicted", "a request took otherwise than predicted",
                 {{"request", request},
                  {"engine", engine},
                  {"predicted_e2e_s", d.prediction.e2e.seconds()},
                  {"e2e_s", e2e.seconds()},
                  {"state_age_s", d.prediction.age.seconds()},
                  {"output_tokens", d.output_tokens}});
}

}  // namespace foretoken
