#include <utility>

#include "schema/convert.h"

namespace foretoken::codec {
namespace {

uint32_t Size(size_t n) { return static_cast<uint32_t>(n); }

void Write(const Question& in, wire::Question::Builder out) {
  codec::Write(in.request, out.initRequest());
  out.setLengthQuantile(in.length_quantile);
  out.setExpectedOutput(in.expected_output.value());
  codec::Write(in.slo, out.initSlo());
  out.setWantExternality(in.want_externality);
}

Question Read(wire::Question::Reader in) {
  Question out;
  out.request = codec::Read(in.getRequest());
  out.length_quantile = in.getLengthQuantile();
  Require(out.length_quantile >= 0 && out.length_quantile <= 1, "question.length_quantile: 0..1");
  Require(in.getExpectedOutput() >= 1, "question.expected_output: >= 1");
  out.expected_output = TokenCount(in.getExpectedOutput());
  out.slo = codec::Read(in.getSlo());
  out.want_externality = in.getWantExternality();
  return out;
}

std::vector<InstanceId> ReadInstances(capnp::List<uint32_t>::Reader in, const DecodeLimits& limits) {
  std::vector<InstanceId> out;
  out.reserve(in.size());
  for (const uint32_t id : in) out.push_back(InstanceOf(id, limits));
  return out;
}

}  // namespace

void Write(const Schedule& in, wire::Schedule::Builder out) {
  Write(in.request, out.initRequest());
  out.setSubmittedNs(in.submitted.nanos());
}

Schedule Read(wire::Schedule::Reader in, const DecodeLimits&) {
  return {Read(in.getRequest()), Instant::FromNanos(in.getSubmittedNs())};
}

void Write(const Decision& in, wire::Decision::Builder out) {
  out.setDecision(in.decision.value());
  out.setRequest(in.request.value());
  auto placement = out.initPlacement(Size(in.placement.size()));
  for (uint32_t i = 0; i < in.placement.size(); ++i) {
    placement[i].setInstance(in.placement[i].instance.value());
    placement[i].setRole(ToWire<wire::PlacementRole>(in.placement[i].role));
  }
  out.setReason(ToWire<wire::OutcomeReason>(in.reason));
  out.setPredictor(ToWire<wire::PredictorKind>(in.predictor));
  out.setScore(in.score);
  Write(in.stamps, out.initStamps());
}

Decision Read(wire::Decision::Reader in, const DecodeLimits& limits) {
  static_assert(static_cast<int>(PlacementRole::kDecode) == static_cast<int>(wire::PlacementRole::DECODE));
  Decision out;
  out.decision = DecisionId(in.getDecision());
  out.request = RequestId(in.getRequest());
  const auto placement = in.getPlacement();
  out.placement.reserve(placement.size());
  for (const auto p : placement)
    out.placement.push_back({InstanceOf(p.getInstance(), limits),
                             FromWire<PlacementRole, PlacementRole::kDecode>(p.getRole(), "decision.placement[].role: known")});
  out.reason = ReadReason(in.getReason());
  out.predictor = FromWire<PredictorKind, PredictorKind::kLedger>(in.getPredictor(), "decision.predictor: known");
  out.score = Number(in.getScore(), "decision.score: a number");
  out.stamps = Read(in.getStamps());
  return out;
}

void Write(const Predict& in, wire::Predict::Builder out) {
  out.setDecision(in.decision.value());
  out.setInstance(in.instance.value());
  Write(in.question, out.initQuestion());
  out.setSubmittedNs(in.submitted.nanos());
}

Predict Read(wire::Predict::Reader in, const DecodeLimits& limits) {
  return {DecisionId(in.getDecision()), InstanceOf(in.getInstance(), limits), Read(in.getQuestion()),
          Instant::FromNanos(in.getSubmittedNs())};
}

void Write(const PredictReply& in, wire::PredictReply::Builder out) {
  out.setDecision(in.decision.value());
  Write(in.prediction, out.initPrediction());
  Write(in.stamps, out.initStamps());
}

PredictReply Read(wire::PredictReply::Reader in, const DecodeLimits& limits) {
  return {DecisionId(in.getDecision()), Read(in.getPrediction(), limits), Read(in.getStamps())};
}

void Write(const PredictBatch& in, wire::PredictBatch::Builder out) {
  out.setDecision(in.decision.value());
  WriteIds(in.instances, out.initInstances(Size(in.instances.size())));
  Write(in.question, out.initQuestion());
  out.setSubmittedNs(in.submitted.nanos());
}

PredictBatch Read(wire::PredictBatch::Reader in, const DecodeLimits& limits) {
  return {DecisionId(in.getDecision()), ReadInstances(in.getInstances(), limits), Read(in.getQuestion()),
          Instant::FromNanos(in.getSubmittedNs())};
}

void Write(const PredictionBatch& in, wire::PredictionBatch::Builder out) {
  out.setDecision(in.decision.value());
  auto predictions = out.initPredictions(Size(in.predictions.size()));
  for (uint32_t i = 0; i < in.predictions.size(); ++i) Write(in.predictions[i], predictions[i]);
  WriteIds(in.unreachable, out.initUnreachable(Size(in.unreachable.size())));
  Write(in.stamps, out.initStamps());
  WriteInts(in.terms, out.initTerms(Size(in.terms.size())));
}

PredictionBatch Read(wire::PredictionBatch::Reader in, const DecodeLimits& limits) {
  PredictionBatch out;
  out.decision = DecisionId(in.getDecision());
  const auto predictions = in.getPredictions();
  out.predictions.reserve(predictions.size());
  for (const auto p : predictions) out.predictions.push_back(Read(p, limits));
  out.unreachable = ReadInstances(in.getUnreachable(), limits);
  out.stamps = Read(in.getStamps());
  out.terms = ReadInts<uint64_t>(in.getTerms());
  return out;
}

void Write(const EnqueueRequest& in, wire::EnqueueRequest::Builder out) {
  out.setDecision(in.decision.value());
  out.setInstance(in.instance.value());
  Write(in.question, out.initQuestion());
  Write(in.predicted_on, out.initPredictedOn());
  out.setScore(in.score);
  out.setRunnerUp(in.runner_up);
  out.setScoreKind(ToWire<wire::ScoreKind>(in.score_rule.kind));
  out.setLatencyWeight(in.score_rule.latency_weight);
  out.setGuarded(in.guarded);
  out.setRule(ToWire<wire::RepickRule>(in.rule));
  out.setAtNs(in.at.nanos());
}

EnqueueRequest Read(wire::EnqueueRequest::Reader in, const DecodeLimits& limits) {
  static_assert(static_cast<int>(ScoreKind::kSlo) == static_cast<int>(wire::ScoreKind::SLO));
  static_assert(static_cast<int>(RepickRule::kRejectOnAnyChange) == static_cast<int>(wire::RepickRule::REJECT_ON_ANY_CHANGE));
  EnqueueRequest out;
  out.decision = DecisionId(in.getDecision());
  out.instance = InstanceOf(in.getInstance(), limits);
  out.question = Read(in.getQuestion());
  out.predicted_on = Read(in.getPredictedOn());
  out.score = Number(in.getScore(), "enqueue.score: a number");
  out.runner_up = Number(in.getRunnerUp(), "enqueue.runner_up: a number");
  out.score_rule.kind = FromWire<ScoreKind, ScoreKind::kSlo>(in.getScoreKind(), "enqueue.score_kind: known");
  out.score_rule.latency_weight = Number(in.getLatencyWeight(), "enqueue.latency_weight: a number");
  out.guarded = in.getGuarded();
  out.rule = FromWire<RepickRule, RepickRule::kRejectOnAnyChange>(in.getRule(), "enqueue.rule: known");
  out.at = Instant::FromNanos(in.getAtNs());
  return out;
}

void Write(const EnqueueReply& in, wire::EnqueueReply::Builder out) {
  out.setDecision(in.decision.value());
  out.setInstance(in.instance.value());
  Write(in.versions, out.initVersions());
  if (in.accepted) {
    out.setAccepted();
  } else {
    Write(in.fresh, out.initOvertaken());
  }
}

EnqueueReply Read(wire::EnqueueReply::Reader in, const DecodeLimits& limits) {
  EnqueueReply out;
  out.decision = DecisionId(in.getDecision());
  out.instance = InstanceOf(in.getInstance(), limits);
  out.versions = Read(in.getVersions());
  switch (in.which()) {
    case wire::EnqueueReply::ACCEPTED: out.accepted = true; return out;
    case wire::EnqueueReply::OVERTAKEN:
      out.accepted = false;
      out.fresh = Read(in.getOvertaken(), limits);
      return out;
  }
  throw Malformed{"enqueue reply: accepted or overtaken"};
}

void Write(const Cancel& in, wire::Cancel::Builder out) {
  out.setRequest(in.request.value());
  out.setInstance(in.instance.value());
  out.setReason(ToWire<wire::OutcomeReason>(in.reason));
}

Cancel Read(wire::Cancel::Reader in, const DecodeLimits& limits) {
  return {RequestId(in.getRequest()), InstanceOf(in.getInstance(), limits), ReadReason(in.getReason())};
}

void Write(const Dispatch& in, wire::Dispatch::Builder out) {
  out.setDecision(in.decision.value());
  out.setInstance(in.instance.value());
  Write(in.request, out.initRequest());
  out.setAtNs(in.at.nanos());
}

Dispatch Read(wire::Dispatch::Reader in, const DecodeLimits& limits) {
  return {DecisionId(in.getDecision()), InstanceOf(in.getInstance(), limits), Read(in.getRequest()),
          Instant::FromNanos(in.getAtNs())};
}

void Write(const TokenEvent& in, wire::TokenEvent::Builder out) {
  out.setRequest(in.request.value());
  out.setInstance(in.instance.value());
  out.setFirst(in.first);
  out.setCount(in.count);
  out.setAtNs(in.at.nanos());
}

TokenEvent Read(wire::TokenEvent::Reader in, const DecodeLimits& limits) {
  TokenEvent out{RequestId(in.getRequest()), InstanceOf(in.getInstance(), limits),
                 NotNegative(in.getFirst(), "tokens.first: >= 0"), in.getCount(), Instant::FromNanos(in.getAtNs())};
  Require(out.count >= 1, "tokens.count: >= 1");
  return out;
}

void Write(const RequestOutcome& in, wire::RequestOutcome::Builder out) {
  out.setRequest(in.request.value());
  out.setInstance(in.instance.value());
  out.setKind(ToWire<wire::OutcomeKind>(in.kind));
  out.setReason(ToWire<wire::OutcomeReason>(in.reason));
  out.setOutputTokens(in.output_tokens.value());
  out.setAtNs(in.at.nanos());
}

RequestOutcome Read(wire::RequestOutcome::Reader in, const DecodeLimits& limits) {
  static_assert(static_cast<int>(OutcomeKind::kLost) == static_cast<int>(wire::OutcomeKind::LOST));
  return {RequestId(in.getRequest()),
          InstanceOf(in.getInstance(), limits),
          FromWire<OutcomeKind, OutcomeKind::kLost>(in.getKind(), "outcome.kind: known"),
          ReadReason(in.getReason()),
          TokenCount(NotNegative(in.getOutputTokens(), "outcome.output_tokens: >= 0")),
          Instant::FromNanos(in.getAtNs())};
}

}  // namespace foretoken::codec
