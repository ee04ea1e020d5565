# A request's way: asked for (Schedule), foretold (Predict), reserved (EnqueueRequest), sent (Dispatch), answered (TokenEvent,
# RequestOutcome).
@0xd0a787a864082c98;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("foretoken::wire");
using Model = import "model.capnp";

struct Schedule {
  # GATEWAY -> SCHEDULER. Answered by exactly one Decision. Loss: the GATEWAY's deadline ends it. A repetition of an id that is still
  # open is refused, never scheduled twice.
  request @0 :Model.RequestMeta;
  submittedNs @1 :Int64;  # sender's clock
}

enum PlacementRole { whole @0; prefill @1; decode @2; }

struct Placement {
  # One instance and the part of the request that it does.
  instance @0 :UInt32;
  role @1 :PlacementRole;
}

struct Decision {
  # SCHEDULER -> GATEWAY. A placement is a list: one `whole`, or later a prefill and a decode instance. Empty: rejected, for `reason`.
  # The decision id is unique per SCHEDULER and lives until the request's outcome.
  decision @0 :UInt64;
  request @1 :UInt64;
  placement @2 :List(Placement);
  reason @3 :Model.OutcomeReason;
  predictor @4 :Model.PredictorKind;
  score @5 :Float64;
  stamps @6 :Model.Stamps;
}

struct Question {
  # What every candidate of a decision is asked alike: the request and the output length assumed for it.
  request @0 :Model.RequestMeta;
  lengthQuantile @1 :Float64;  # 0..1, drawn once per request
  expectedOutput @2 :Int64;    # >= 1
  slo @3 :Model.Slo;
  wantExternality @4 :Bool;
}

struct Predict {
  # SCHEDULER -> SIMULATOR. A pure question: repetition changes nothing. Loss: the decision goes on at its deadline without it.
  decision @0 :UInt64;
  instance @1 :UInt32;
  question @2 :Question;
  submittedNs @3 :Int64;
}

struct PredictReply {
  # SIMULATOR -> SCHEDULER. After the decision's end, or twice: counted, not used.
  decision @0 :UInt64;
  prediction @1 :Model.Prediction;
  stamps @2 :Model.Stamps;
}

struct PredictBatch {
  # SCHEDULER -> NODE, one frame per node and decision; the NODE asks the SIMULATORs that it hosts. Otherwise as Predict.
  decision @0 :UInt64;
  instances @1 :List(UInt32);
  question @2 :Question;
  submittedNs @3 :Int64;
}

struct PredictionBatch {
  # NODE -> SCHEDULER. Otherwise as PredictReply.
  decision @0 :UInt64;
  predictions @1 :List(Model.Prediction);
  unreachable @2 :List(UInt32);  # of the instances asked for; none will answer
  stamps @3 :Model.Stamps;
  terms @4 :List(UInt64);  # one per prediction: the ownership that it was made under; an older one than the SCHEDULER knows of is refused
}

enum ScoreKind { none @0; ttft @1; e2e @2; externality @3; slo @4; }

enum RepickRule { versioned @0; alwaysAccept @1; rejectOnAnyChange @2; }

struct EnqueueRequest {
  # SCHEDULER -> SIMULATOR: reserve. The request joins the waiting view before its engine confirms it (Arrived). Idempotent by decision: a
  # repetition is answered as before. Guarded: refused, with a fresh prediction, when reservations have changed since `predictedOn` and
  # the score under `scoreRule` is now worse than `runnerUp`. Loss: the request is dispatched all the same, and Arrived tells of it.
  # A reservation that nothing confirms expires after confirm_timeout.
  decision @0 :UInt64;
  instance @1 :UInt32;
  question @2 :Question;
  predictedOn @3 :Model.Versions;
  score @4 :Float64;
  runnerUp @5 :Float64;  # infinity: no other candidate
  scoreKind @6 :ScoreKind;
  latencyWeight @7 :Float64;
  guarded @8 :Bool;
  rule @9 :RepickRule;
  atNs @10 :Int64;  # sender's clock
}

struct EnqueueReply {
  # SIMULATOR -> SCHEDULER, to a guarded EnqueueRequest. Loss: the decision's deadline dispatches to the winner.
  decision @0 :UInt64;
  instance @1 :UInt32;
  versions @2 :Model.Versions;
  union {
    accepted @3 :Void;
    overtaken @4 :Model.Prediction;  # a fresh one; the SCHEDULER re-picks at most once
  }
}

struct Cancel {
  # GATEWAY -> SIMULATOR and INSTANCE: the request is no longer wanted. Of an unknown or ended request: ignored. Loss at the SIMULATOR
  # is put right by the engine's own report; at the INSTANCE the engine works for nobody until the request's end.
  request @0 :UInt64;
  instance @1 :UInt32;
  reason @2 :Model.OutcomeReason;
}

struct Dispatch {
  # SCHEDULER -> INSTANCE: run it. Loss: no Arrived comes, and confirm_timeout gives it back to the SCHEDULER. A repetition of an id that
  # the INSTANCE holds is ignored and counted.
  decision @0 :UInt64;
  instance @1 :UInt32;
  request @2 :Model.RequestMeta;
  atNs @3 :Int64;  # sender's clock
}

struct TokenEvent {
  # INSTANCE -> GATEWAY: output tokens first .. first + count - 1 came out. In order per request; a gap or a repetition shows in `first`.
  request @0 :UInt64;
  instance @1 :UInt32;
  first @2 :Int32;  # from 0
  count @3 :Int32;  # >= 1
  atNs @4 :Int64;
}

struct RequestOutcome {
  # INSTANCE -> GATEWAY and SCHEDULER: the end, exactly one per dispatched request. A second one is counted and ignored.
  request @0 :UInt64;
  instance @1 :UInt32;
  kind @2 :Model.OutcomeKind;
  reason @3 :Model.OutcomeReason;
  outputTokens @4 :Int64;
  atNs @5 :Int64;
}
