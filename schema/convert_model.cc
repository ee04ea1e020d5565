#include <utility>

#include "schema/convert.h"

namespace foretoken::codec {
namespace {

template <class T>
void WriteOptional(const std::optional<T>& in, wire::OptionalInt::Builder out) {
  if (!in) return out.setNone();
  if constexpr (std::is_same_v<T, Duration>) {
    out.setSome(in->nanos());
  } else {
    out.setSome(in->value());
  }
}

std::optional<int64_t> ReadOptional(wire::OptionalInt::Reader in, const char* rule) {
  switch (in.which()) {
    case wire::OptionalInt::NONE: return std::nullopt;
    case wire::OptionalInt::SOME: return NotNegative(in.getSome(), rule);
  }
  throw Malformed{rule};
}

std::optional<TokenCount> ReadTokens(wire::OptionalInt::Reader in, const char* rule) {
  const auto n = ReadOptional(in, rule);
  return n ? std::optional<TokenCount>(TokenCount(*n)) : std::nullopt;
}

}  // namespace

OutcomeReason ReadReason(wire::OutcomeReason in) {
  static_assert(static_cast<int>(OutcomeReason::kClientGone) == static_cast<int>(wire::OutcomeReason::CLIENT_GONE));
  return FromWire<OutcomeReason, OutcomeReason::kClientGone>(in, "outcome reason: known");
}

void Write(const Slo& in, wire::Slo::Builder out) {
  out.setTtftNs(in.ttft.nanos());
  out.setTpotNs(in.tpot.nanos());
}

Slo Read(wire::Slo::Reader in) {
  return {NotNegativeDuration(in.getTtftNs(), "slo.ttft: >= 0"), NotNegativeDuration(in.getTpotNs(), "slo.tpot: >= 0")};
}

void Write(const RequestMeta& in, wire::RequestMeta::Builder out) {
  out.setId(in.id.value());
  out.setModel(in.model.value());
  out.setArrivalNs(in.arrival.nanos());
  out.setPromptTokens(in.prompt_tokens.value());
  if (in.max_tokens) WriteOptional(in.max_tokens, out.initMaxTokens());
  if (in.output_hint) WriteOptional(in.output_hint, out.initOutputHint());
  out.setPriority(in.priority);
  out.setLengthClass(in.length_class);
  out.setSession(in.session);
  if (in.slo) Write(*in.slo, out.initSlo());
  if (in.segments.empty()) return;
  auto segments = out.initSegments(static_cast<uint32_t>(in.segments.size()));
  for (uint32_t i = 0; i < in.segments.size(); ++i) {
    segments[i].setContent(in.segments[i].content);
    segments[i].setLength(in.segments[i].length.value());
  }
}

RequestMeta Read(wire::RequestMeta::Reader in) {
  RequestMeta out;
  out.id = RequestId(in.getId());
  out.model = ModelId(in.getModel());
  out.arrival = Instant::FromNanos(in.getArrivalNs());
  out.prompt_tokens = TokenCount(NotNegative(in.getPromptTokens(), "request.prompt_tokens: >= 0"));
  out.max_tokens = ReadTokens(in.getMaxTokens(), "request.max_tokens: absent or >= 0");
  out.output_hint = ReadTokens(in.getOutputHint(), "request.output_hint: absent or >= 0");
  out.priority = in.getPriority();
  out.length_class = in.getLengthClass();
  out.session = in.getSession();
  if (in.hasSlo()) out.slo = Read(in.getSlo());
  const auto segments = in.getSegments();
  out.segments.reserve(segments.size());
  for (const auto s : segments)
    out.segments.push_back({s.getContent(), TokenCount(NotNegative(s.getLength(), "request.segments[].length: >= 0"))});
  return out;
}

void Write(const Versions& in, wire::Versions::Builder out) {
  out.setState(in.state);
  out.setReservations(in.reservations);
}

Versions Read(wire::Versions::Reader in) { return {in.getState(), in.getReservations()}; }

void Write(const Prediction& in, wire::Prediction::Builder out) {
  out.setInstance(in.instance.value());
  out.setTtftNs(in.ttft.nanos());
  out.setTtftP90Ns(in.ttft_p90.nanos());
  out.setE2eNs(in.e2e.nanos());
  out.setE2eP90Ns(in.e2e_p90.nanos());
  out.setE2eAloneNs(in.e2e_alone.nanos());
  if (in.tpot) WriteOptional(in.tpot, out.initTpotNs());
  out.setLongestGapNs(in.longest_gap.nanos());
  out.setSloViolation(in.slo_violation);
  out.setExternalityNs(in.externality.nanos());
  out.setSloViolationAdded(in.slo_violation_added);
  out.setCachedTokens(in.cached_tokens.value());
  out.setKvHeadroom(in.kv_headroom.value());
  Write(in.versions, out.initVersions());
  out.setAsOfNs(in.as_of.nanos());
  out.setAgeNs(in.age.nanos());
  out.setAgeUncertaintyNs(in.age_uncertainty.nanos());
  out.setPredictor(ToWire<wire::PredictorKind>(in.predictor));
  out.setLevel(ToWire<wire::StateLevel>(in.level));
  out.setStale(in.stale);
  out.setUsable(in.usable);
}

Prediction Read(wire::Prediction::Reader in, const DecodeLimits& limits) {
  static_assert(static_cast<int>(PredictorKind::kLedger) == static_cast<int>(wire::PredictorKind::LEDGER));
  static_assert(static_cast<int>(StateLevel::kInferred) == static_cast<int>(wire::StateLevel::INFERRED));
  Prediction out;
  out.instance = InstanceOf(in.getInstance(), limits);
  out.ttft = NotNegativeDuration(in.getTtftNs(), "prediction.ttft: >= 0");
  out.ttft_p90 = NotNegativeDuration(in.getTtftP90Ns(), "prediction.ttft_p90: >= 0");
  out.e2e = NotNegativeDuration(in.getE2eNs(), "prediction.e2e: >= 0");
  out.e2e_p90 = NotNegativeDuration(in.getE2eP90Ns(), "prediction.e2e_p90: >= 0");
  out.e2e_alone = NotNegativeDuration(in.getE2eAloneNs(), "prediction.e2e_alone: >= 0");
  if (const auto tpot = ReadOptional(in.getTpotNs(), "prediction.tpot: absent or >= 0")) out.tpot = Duration::Nanos(*tpot);
  out.longest_gap = NotNegativeDuration(in.getLongestGapNs(), "prediction.longest_gap: >= 0");
  out.slo_violation = Number(in.getSloViolation(), "prediction.slo_violation: a number");
  out.externality = Duration::Nanos(in.getExternalityNs());
  out.slo_violation_added = Number(in.getSloViolationAdded(), "prediction.slo_violation_added: a number");
  out.cached_tokens = TokenCount(NotNegative(in.getCachedTokens(), "prediction.cached_tokens: >= 0"));
  out.kv_headroom = BlockCount(in.getKvHeadroom());
  out.versions = Read(in.getVersions());
  out.as_of = Instant::FromNanos(in.getAsOfNs());
  out.age = Duration::Nanos(in.getAgeNs());
  out.age_uncertainty = NotNegativeDuration(in.getAgeUncertaintyNs(), "prediction.age_uncertainty: >= 0");
  out.predictor = FromWire<PredictorKind, PredictorKind::kLedger>(in.getPredictor(), "prediction.predictor: known");
  out.level = FromWire<StateLevel, StateLevel::kInferred>(in.getLevel(), "prediction.level: known");
  out.stale = in.getStale();
  out.usable = in.getUsable();
  return out;
}

void Write(const Stamps& in, wire::Stamps::Builder out) {
  out.setSubmittedNs(in.submitted.nanos());
  out.setStartedNs(in.started.nanos());
  out.setEndedNs(in.ended.nanos());
}

Stamps Read(wire::Stamps::Reader in) {
  return {Instant::FromNanos(in.getSubmittedNs()), Instant::FromNanos(in.getStartedNs()), Instant::FromNanos(in.getEndedNs())};
}

}  // namespace foretoken::codec
