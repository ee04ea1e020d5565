#include "tests/testing/random_messages.h"

#include <limits>
#include <string>
#include <vector>

namespace foretoken::testing {
namespace {

// Extremes are as likely as the middle: a codec breaks at the ends of a range.
int64_t NonNegative(Prng& p) {
  switch (p.Below(4)) {
    case 0: return 0;
    case 1: return std::numeric_limits<int64_t>::max();
    default: return static_cast<int64_t>(p.Next() >> (1 + p.Below(62)));
  }
}
int64_t Any(Prng& p) { return p.Chance(0.5) ? NonNegative(p) : -1 - NonNegative(p); }
int32_t NonNegative32(Prng& p) { return static_cast<int32_t>(p.Chance(0.1) ? INT32_MAX : NonNegative(p) & INT32_MAX); }
int32_t Any32(Prng& p) { return static_cast<int32_t>(Any(p)); }
bool Flag(Prng& p) { return p.Chance(0.5); }
double Real(Prng& p) {
  switch (p.Below(5)) {
    case 0: return 0;
    case 1: return std::numeric_limits<double>::infinity();
    case 2: return -p.Unit() * 1e9;
    default: return p.Unit() * 1e3;
  }
}
Instant At(Prng& p) { return Instant::FromNanos(Any(p)); }
Duration Length(Prng& p) { return Duration::Nanos(NonNegative(p)); }
template <class T>
T IdOf(Prng& p) {
  return T(static_cast<decltype(T().value())>(p.Next() >> p.Below(64)));
}
InstanceId Instance(Prng& p) { return InstanceId(static_cast<uint32_t>(p.Below(UINT32_MAX))); }  // the greatest is no instance
template <class E>
E EnumUpTo(E last, Prng& p) {
  return static_cast<E>(p.Below(static_cast<uint64_t>(last) + 1));
}
std::string Text(Prng& p, int64_t max) {
  std::string s;
  for (int64_t n = p.Between(0, max); n > 0; --n) s.push_back(static_cast<char>(p.Between(1, 127)));
  return s;
}
template <class F>
auto List(Prng& p, int64_t max, F element) {
  std::vector<decltype(element(p))> v;
  for (int64_t n = p.Between(0, max); n > 0; --n) v.push_back(element(p));
  return v;
}
template <class T>
std::vector<T> Ids(Prng& p, int64_t max) {
  return List(p, max, IdOf<T>);
}
std::optional<TokenCount> MaybeTokens(Prng& p) {
  return Flag(p) ? std::optional<TokenCount>(TokenCount(NonNegative(p))) : std::nullopt;
}

Slo RandomSlo(Prng& p) { return {Length(p), Length(p)}; }

RequestMeta Meta(Prng& p, int64_t max) {
  RequestMeta m;
  m.id = IdOf<RequestId>(p);
  m.model = IdOf<ModelId>(p);
  m.arrival = At(p);
  m.prompt_tokens = TokenCount(NonNegative(p));
  m.max_tokens = MaybeTokens(p);
  m.output_hint = MaybeTokens(p);
  m.priority = Any32(p);
  m.length_class = static_cast<uint32_t>(p.Next());
  m.session = p.Next();
  if (Flag(p)) m.slo = RandomSlo(p);
  m.segments = List(p, max, [](Prng& q) { return PromptSegment{q.Next(), TokenCount(NonNegative(q))}; });
  return m;
}

Question RandomQuestion(Prng& p, int64_t max) {
  return {Meta(p, max), p.Unit(), TokenCount(std::max<int64_t>(1, NonNegative(p))), RandomSlo(p), Flag(p)};
}

Versions RandomVersions(Prng& p) { return {p.Next(), p.Next()}; }
Stamps RandomStamps(Prng& p) { return {At(p), At(p), At(p)}; }

Prediction RandomPrediction(Prng& p) {
  Prediction r;
  r.instance = Instance(p);
  r.ttft = Length(p);
  r.ttft_p90 = Length(p);
  r.e2e = Length(p);
  r.e2e_p90 = Length(p);
  r.e2e_alone = Length(p);
  if (Flag(p)) r.tpot = Length(p);
  r.longest_gap = Length(p);
  r.slo_violation = Real(p);
  r.externality = Duration::Nanos(Any(p));
  r.slo_violation_added = Real(p);
  r.cached_tokens = TokenCount(NonNegative(p));
  r.kv_headroom = BlockCount(Any(p));
  r.versions = RandomVersions(p);
  r.as_of = At(p);
  r.age = Duration::Nanos(Any(p));
  r.age_uncertainty = Length(p);
  r.predictor = EnumUpTo(PredictorKind::kLedger, p);
  r.level = EnumUpTo(StateLevel::kInferred, p);
  r.stale = Flag(p);
  r.usable = Flag(p);
  return r;
}

Hello RandomHello(Prng& p, int64_t max) {
  return {NonNegative32(p),
          NonNegative32(p),
          NonNegative32(p),
          NonNegative(p),
          Flag(p),
          Flag(p),
          Flag(p),
          NonNegative(p),
          Text(p, 20),
          Text(p, 20),
          List(p, max, [](Prng& q) { return Text(q, 30); }),
          Flag(p),
          Flag(p),
          Flag(p),
          NonNegative32(p),
          NonNegative32(p),
          p.Unit()};
}

BatchTrace Trace(Prng& p, int64_t max) {
  BatchTrace t;
  t.step = p.Next();
  t.kind = EnumUpTo(StepKind::kEmpty, p);
  t.scheduled = At(p);
  t.start = At(p);
  t.duration = Length(p);
  t.prefill_tokens = static_cast<int32_t>(p.Below(1 << 20));
  t.prefill_seqs = static_cast<int32_t>(p.Below(1 << 12));
  t.prefill_ctx_tokens = NonNegative(p);
  t.decode_seqs = static_cast<int32_t>(p.Below(1 << 12));
  t.decode_kv_tokens = NonNegative(p);
  t.chunks = List(p, max, [](Prng& q) {
    return BatchTrace::Chunk{IdOf<RequestId>(q), NonNegative32(q), NonNegative32(q), Flag(q)};
  });
  t.admitted = List(p, max, [](Prng& q) { return BatchTrace::Admission{IdOf<RequestId>(q), NonNegative32(q), Flag(q)}; });
  t.finished = List(p, max, [](Prng& q) {
    return BatchTrace::Finish{IdOf<RequestId>(q), EnumUpTo(FinishReason::kAborted, q), NonNegative32(q)};
  });
  t.preempted = Ids<RequestId>(p, max);
  t.cancelled = Ids<RequestId>(p, max);
  t.skipped = Ids<RequestId>(p, max);
  t.waiting = NonNegative32(p);
  t.running = static_cast<int32_t>(p.Below(1 << 12));
  t.free_blocks = static_cast<int64_t>(p.Below(1 << 30));
  t.total_blocks = t.free_blocks + static_cast<int64_t>(p.Below(1 << 30));
  return t;
}

Snapshot::Request SnapshotRequest(Prng& p) {
  return {IdOf<RequestId>(p), NonNegative32(p), NonNegative32(p), NonNegative32(p), NonNegative32(p)};
}

Snapshot RandomSnapshot(Prng& p, int64_t max) {
  Snapshot s;
  s.last_seq = p.Next();
  s.next_step = p.Next();
  s.as_of = At(p);
  s.running = List(p, max, SnapshotRequest);
  s.waiting = List(p, max, SnapshotRequest);
  s.free_blocks = static_cast<int64_t>(p.Below(1 << 30));
  s.total_blocks = s.free_blocks + static_cast<int64_t>(p.Below(1 << 30));
  if (Flag(p)) return s;
  const auto number = [](Prng& q) { return static_cast<uint32_t>(q.Next()); };
  Snapshot::Exact e;
  e.requests = List(p, max, [&](Prng& q) {
    Snapshot::RequestBlocks r;
    r.request = IdOf<RequestId>(q);
    r.priority = Any32(q);
    r.max_tokens = NonNegative(q);
    r.arrival = At(q);
    r.blocks = List(q, max, number);
    r.prompt_hashes = Ids<BlockHash>(q, max);
    r.registered_blocks = static_cast<int32_t>(q.Below(r.blocks.size() + 1));
    r.placeholders = NonNegative32(q);
    r.in_flight_tokens = NonNegative32(q);
    r.stale_tokens = NonNegative32(q);
    r.preempted = Flag(q);
    r.partial_prefill = Flag(q);
    r.skipped = Flag(q);
    return r;
  });
  e.free_list = List(p, max, number);
  e.hashed_blocks = List(p, max, [&](Prng& q) { return std::pair(number(q), IdOf<BlockHash>(q)); });
  e.in_flight = List(p, max, [&](Prng& q) {
    Snapshot::InFlight f{q.Next(), At(q), Ids<RequestId>(q, max), {}, {}};
    for (size_t i = 0; i < f.requests.size(); ++i) {
      f.tokens.push_back(NonNegative32(q));
      f.samples.push_back(Flag(q));
    }
    return f;
  });
  e.finish_pending = Flag(p);
  e.executed_steps = NonNegative(p);
  e.last_prefill_step = Any(p);
  e.capacity_bound = Flag(p);
  s.exact = std::move(e);
  return s;
}

StreamBody Body(size_t body, Prng& p, int64_t max) {
  switch (body) {
    case 0: return RandomHello(p, max);
    case 1:
      return Arrived{IdOf<RequestId>(p),     At(p),         NonNegative(p), NonNegative(p), Any32(p),
                     Ids<BlockHash>(p, max), At(p).nanos(), Flag(p)};
    case 7: return BlocksHashed{IdOf<RequestId>(p), At(p), Ids<BlockHash>(p, max)};
    case 2: return Aborted{IdOf<RequestId>(p), At(p)};
    case 3: return Trace(p, max);
    case 4: return RandomSnapshot(p, max);
    case 5: {
      Heartbeat h{At(p), p.Next(), NonNegative32(p), Flag(p), At(p)};
      if (Flag(p)) h.echo = {At(p), At(p)};
      return h;
    }
    default: return Aggregate{At(p), NonNegative32(p), NonNegative32(p), NonNegative(p), NonNegative(p)};
  }
}

Decision RandomDecision(Prng& p, int64_t max) {
  const auto placement = [](Prng& q) { return Placement{Instance(q), EnumUpTo(PlacementRole::kDecode, q)}; };
  return {IdOf<DecisionId>(p),
          IdOf<RequestId>(p),
          List(p, max, placement),
          EnumUpTo(OutcomeReason::kClientGone, p),
          EnumUpTo(PredictorKind::kLedger, p),
          Real(p),
          RandomStamps(p)};
}

EnqueueRequest RandomEnqueue(Prng& p, int64_t max) {
  EnqueueRequest e;
  e.decision = IdOf<DecisionId>(p);
  e.instance = Instance(p);
  e.question = RandomQuestion(p, max);
  e.predicted_on = RandomVersions(p);
  e.score = Real(p);
  e.runner_up = Real(p);
  e.score_rule = {EnumUpTo(ScoreKind::kSlo, p), Real(p)};
  e.guarded = Flag(p);
  e.rule = EnumUpTo(RepickRule::kRejectOnAnyChange, p);
  e.at = At(p);
  return e;
}

EnqueueReply RandomEnqueueReply(Prng& p) {
  EnqueueReply r{IdOf<DecisionId>(p), Instance(p), Flag(p), RandomVersions(p), {}};
  if (!r.accepted) r.fresh = RandomPrediction(p);
  return r;
}

NodeHello RandomNodeHello(Prng& p, int64_t max) {
  return {static_cast<uint32_t>(p.Next()), Text(p, 20), List(p, max, [](Prng& q) { return Text(q, 10); }),
          List(p, max,
               [](Prng& q) {
                 return NodeHello::Hosted{Instance(q), q.Next(), q.Next()};
               }),
          At(p)};
}

NodeHeartbeat RandomNodeHeartbeat(Prng& p) {
  return {p.Next(), At(p), Flag(p) ? std::optional<Instant>(At(p)) : std::nullopt, Length(p)};
}

}  // namespace

StreamMessage RandomStreamMessage(size_t body, Prng& p, int64_t list_max) {
  return {Instance(p), IdOf<SourceId>(p), IdOf<Epoch>(p), p.Next(), Body(body, p, list_max), At(p)};
}

Message RandomMessage(size_t kind, Prng& p, int64_t n) {
  const auto instance = [](Prng& q) { return Instance(q); };
  switch (kind) {
    case 0: return RandomStreamMessage(p.Below(kStreamKinds), p, n);
    case 1: return ResyncRequest{Instance(p), IdOf<SourceId>(p), IdOf<Epoch>(p), p.Next(), Flag(p)};
    case 2: return Schedule{Meta(p, n), At(p)};
    case 3: return RandomDecision(p, n);
    case 4: return Predict{IdOf<DecisionId>(p), Instance(p), RandomQuestion(p, n), At(p)};
    case 5: return PredictReply{IdOf<DecisionId>(p), RandomPrediction(p), RandomStamps(p)};
    case 6: return PredictBatch{IdOf<DecisionId>(p), List(p, n, instance), RandomQuestion(p, n), At(p)};
    case 7:
      return PredictionBatch{IdOf<DecisionId>(p), List(p, n, RandomPrediction), List(p, n, instance), RandomStamps(p),
                             List(p, n, [](Prng& q) { return q.Next(); })};
    case 8: return RandomEnqueue(p, n);
    case 9: return RandomEnqueueReply(p);
    case 10: return Cancel{IdOf<RequestId>(p), Instance(p), EnumUpTo(OutcomeReason::kClientGone, p)};
    case 11: return Dispatch{IdOf<DecisionId>(p), Instance(p), Meta(p, n), At(p)};
    case 12: return TokenEvent{IdOf<RequestId>(p), Instance(p), NonNegative32(p), 1 + NonNegative32(p) / 2, At(p)};
    case 13:
      return RequestOutcome{
          IdOf<RequestId>(p),         Instance(p), EnumUpTo(OutcomeKind::kLost, p), EnumUpTo(OutcomeReason::kClientGone, p),
          TokenCount(NonNegative(p)), At(p)};
    case 14: return RandomNodeHello(p, n);
    case 15: return RandomNodeHeartbeat(p);
    case 16: return OwnershipNotice{Instance(p), p.Next(), Text(p, 20)};
    case 17: return ControlRequest{p.Next(), Text(p, 10), List(p, n, [](Prng& q) { return Text(q, 10); })};
    default: return ControlReply{p.Next(), Flag(p), Text(p, 200)};
  }
}

}  // namespace foretoken::testing
