// DecisionSeen: one decision as whoever watches sees it: every candidate as it stood then, what was predicted of the winner, and what then
// happened. It holds numbers and ids only: of a request's content there is nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"

namespace foretoken {

struct CandidateSeen {
  InstanceId instance;
  int32_t requests = 0;  // that the SCHEDULER had there
  bool predicted = false;
  bool stale = false;
  PredictorKind predictor = PredictorKind::kLedger;
  uint64_t state_version = 0;
  Duration ttft, ttft_p90, e2e, e2e_p90;  // when predicted, as the next two
  Duration age;                           // of the state that the prediction was made on
  double slo_violation = 0;
  double score = 0;  // lower is better; infinity: left out
};

struct DecisionSeen {
  uint64_t number = 0;  // grows by one per decision of a SCHEDULER, those included that are not kept
  uint32_t scheduler = 0;
  DecisionId decision;
  RequestId request;
  InstanceId instance;
  int32_t attempt = 0;  // 0: the first assignment of this request
  bool repicked = false;
  int64_t prompt_tokens = 0;
  Instant submitted;
  Instant decided;
  double score = 0;
  bool predicted = false;
  Prediction prediction;  // the winner's, when predicted
  // Best first; never null.
  std::shared_ptr<const std::vector<CandidateSeen>> candidates;
  // What then happened; Max: not yet.
  Instant first_token = Instant::Max();
  Instant ended = Instant::Max();
  OutcomeKind outcome = OutcomeKind::kLost;  // until it ended
  int64_t output_tokens = 0;
};

}  // namespace foretoken
