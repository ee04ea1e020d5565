// EnqueueRequest: an EnqueueOrder in the form that travels and is held: it owns the request it is about.
// Guarantee: OrderOf(RequestOf(order)) says the same as `order`; Reservation and PredictQuery are derived, never sent twice.
#pragma once

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/messages.h"
#include "runtime/model/prediction.h"
#include "runtime/model/score.h"
#include "runtime/predict/enqueue_order.h"

namespace foretoken {

// Idempotent by decision: a repetition is answered like the first.
struct EnqueueRequest {
  DecisionId decision;
  InstanceId instance;
  Question question;
  Versions predicted_on;
  double score = 0;
  double runner_up = 0;  // infinity: there is none
  ScoreRule score_rule;
  bool guarded = false;  // wants an EnqueueReply, and may be refused under `rule`
  RepickRule rule = RepickRule::kVersioned;
  Instant at;  // sender's clock
  bool operator==(const EnqueueRequest&) const = default;
};

// The result points into `question`, which must outlive it.
inline PredictQuery QueryOf(const Question& question) {
  return {&question.request, question.length_quantile, question.expected_output, question.slo, question.want_externality};
}

inline Question QuestionOf(const PredictQuery& query) {
  return {*query.request, query.length_quantile, query.expected_output, query.slo, query.want_externality};
}

inline Reservation ReservationOf(const Question& q) {
  const RequestMeta& r = q.request;
  return {r.id,
          r.priority,
          r.arrival,
          r.prompt_tokens.value(),
          q.expected_output.value(),
          LengthKey{r.id, r.length_class, q.length_quantile, r.max_tokens, r.output_hint},
          q.slo,
          r.segments};
}

// The order's query points into `request`, which must outlive it.
inline EnqueueOrder OrderOf(const EnqueueRequest& request) {
  return {request.decision,  request.instance,   ReservationOf(request.question), request.predicted_on, request.score,
          request.runner_up, request.score_rule, QueryOf(request.question),       request.guarded,      request.rule};
}

inline EnqueueRequest RequestOf(const EnqueueOrder& order, Instant at) {
  return {order.decision,  order.instance,   QuestionOf(order.query), order.predicted_on, order.score,
          order.runner_up, order.score_rule, order.guarded,           order.rule,         at};
}

}  // namespace foretoken
