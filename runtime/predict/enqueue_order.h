// EnqueueOrder: a reservation that a SCHEDULER makes at a SIMULATOR, and the guard under which it stands (protocol.md,
// "Versions, and when an Enqueue is refused").
#pragma once

#include <cstdint>

#include "runtime/base/ids.h"
#include "runtime/model/prediction.h"
#include "runtime/model/score.h"
#include "runtime/predict/predictor.h"

namespace foretoken {

// When an Enqueue whose prediction other reservations have overtaken is refused.
enum class RepickRule : uint8_t {
  kVersioned,  // reservations changed since, and the fresh score is worse than the runner-up
  kAlwaysAccept,
  kRejectOnAnyChange,  // reservations changed since
};

struct EnqueueOrder {
  DecisionId decision;
  InstanceId instance;
  Reservation reservation;
  Versions predicted_on;
  double score = 0;  // in the units of score_rule
  double runner_up = 0;
  ScoreRule score_rule;  // how to value a fresh prediction against runner_up
  PredictQuery query;    // its request pointer is valid during the call only
  bool guarded = false;  // false: to be accepted whatever has changed
  RepickRule rule = RepickRule::kVersioned;
};

struct EnqueueReply {
  DecisionId decision;
  InstanceId instance;
  bool accepted = true;
  Versions versions;  // after the reservation
  Prediction fresh;   // when not accepted
  bool operator==(const EnqueueReply&) const = default;
};

}  // namespace foretoken
