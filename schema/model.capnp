# Values that several messages carry. Conventions of all schema files: times and durations are Int64 nanoseconds with the suffix Ns, on the
# clock that the message's comment names; counts are tokens or KV blocks as named; ids are those of runtime/base/ids.h and are never
# reused within a run. An ordinal that an enum does not list, a negative count or a NaN makes the whole frame invalid.
@0xfa7bab8001913c0e;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("foretoken::wire");

enum FinishReason { stop @0; length @1; aborted @2; }

enum OutcomeKind { finished @0; rejected @1; cancelled @2; failed @3; lost @4; }

enum OutcomeReason {
  none @0;
  stop @1;
  length @2;
  tooLong @3;
  neverFits @4;
  noCandidate @5;
  shed @6;
  engineRestarted @7;
  engineDown @8;
  retriesExhausted @9;
  clientGone @10;
}

enum PredictorKind { reference @0; pattern @1; patternReuse @2; timeline @3; ledger @4; }

# How well the SIMULATOR knows its engine: exact (a shadow engine agrees with every step), following, aggregate, inferred.
enum StateLevel { exact @0; following @1; aggregate @2; inferred @3; }

struct OptionalInt {
  # An integer that may be absent; absent differs from 0.
  union {
    none @0 :Void;
    some @1 :Int64;
  }
}

struct Slo {
  # Targets of one request, both >= 0.
  ttftNs @0 :Int64;
  tpotNs @1 :Int64;
}

struct PromptSegment {
  # A run of prompt tokens: token k of content c equals token k of content c in any other prompt.
  content @0 :UInt64;
  length @1 :Int64;
}

struct RequestMeta {
  # All that scheduling may know of a request; its true output length is never sent. The id is the router's and lives as long as the
  # request: from Schedule to RequestOutcome.
  id @0 :UInt64;
  model @1 :UInt32;
  arrivalNs @2 :Int64;  # router's clock
  promptTokens @3 :Int64;
  maxTokens @4 :OptionalInt;
  outputHint @5 :OptionalInt;
  priority @6 :Int32;  # lower first
  lengthClass @7 :UInt32;
  session @8 :UInt64;  # 0: none
  slo @9 :Slo;         # null: the pool's
  segments @10 :List(PromptSegment);
}

struct Versions {
  # Of a SIMULATOR's state: `state` moves with every step, `reservations` with every accepted Enqueue and Cancel.
  state @0 :UInt64;
  reservations @1 :UInt64;
}

struct Prediction {
  # "This request, on this instance, now." Durations count from the question. Valid for the versions it names; it ages.
  instance @0 :UInt32;
  ttftNs @1 :Int64;
  ttftP90Ns @2 :Int64;
  e2eNs @3 :Int64;
  e2eP90Ns @4 :Int64;
  tpotNs @5 :OptionalInt;  # none: the output has one token
  longestGapNs @6 :Int64;
  sloViolation @7 :Float64;       # 0..1
  externalityNs @8 :Int64;        # delay added to the others there, summed; may be negative
  sloViolationAdded @9 :Float64;  # summed over the others
  cachedTokens @10 :Int64;
  kvHeadroom @11 :Int64;  # least free blocks over the stay; negative: it would preempt
  versions @12 :Versions;
  asOfNs @13 :Int64;  # state known up to here; receiver's clock
  ageNs @14 :Int64;
  ageUncertaintyNs @15 :Int64;
  predictor @16 :PredictorKind;
  level @17 :StateLevel;
  stale @18 :Bool;
  usable @19 :Bool;  # false: the instance is believed hung or unreachable
  e2eAloneNs @20 :Int64;  # e2e with nobody coming after it
}

struct Stamps {
  # Of one answer: submitted -> started is queueing, started -> ended computing. Submitted is the asker's clock, the others the
  # answerer's; they are compared only when both are the same machine's.
  submittedNs @0 :Int64;
  startedNs @1 :Int64;
  endedNs @2 :Int64;
}
