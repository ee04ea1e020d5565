# What a RECORDER writes: a log of records, one after another in Cap'n Proto's standard stream framing, appended and never changed. A record
# that is cut off at the end (the process was killed) is the end of the log. Times are on the recording process's clock.
@0xb3a1c6b0f1f5d7e2;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("foretoken::wire");
using Model = import "model.capnp";
using Frame = import "frame.capnp";

struct Session {
  # First record of a log: what the SCHEDULERs were made of. The topology is that of the text, with these overrides; paths in it are
  # relative to `folder`.
  topologyFile @0 :Text;
  topologyText @1 :Text;
  folder @2 :Text;
  overrides @3 :List(Text);
  node @4 :Text;  # empty: all nodes in one process
  schedulers @5 :UInt32;
  sole @6 :Bool;  # SchedulerCore::Options::sole
  zeroNs @7 :Int64;  # what the machine's monotonic clock said at time 0 of this log: relates it to others of the same machine
}

struct Candidate {
  # Membership said whether the instance may be chosen.
  instance @0 :UInt32;
  usable @1 :Bool;
}

struct NewPolicy {
  # The operator set another policy or other weights.
  policy @0 :Text;
  sloLatency @1 :Float64;
  sloTtftGuardNs @2 :Int64;
  autoTail @3 :Float64;
  hybridLoad @4 :Float64;
  hybridPrefill @5 :Float64;
  rules @6 :List(Float64);  # the constants of the simple rules, in the order of PolicyWeights
}

struct Rejection {
  # What a SCHEDULER decided: no placement.
  request @0 :UInt64;
  reason @1 :Model.OutcomeReason;
}

struct Hosting {
  # The process came to own the SIMULATOR of an instance, or goes on with it under another term; or it lost it.
  instance @0 :UInt32;
  term @1 :UInt64;
  here @2 :Bool;
}

struct Join {
  # An instance joined the cluster. Whoever plays this gives it what it gave the instance `kind` of the topology.
  instance @0 :UInt32;
  kind @1 :UInt32;
  name @2 :Text;
  fresh @3 :Bool;  # it was trusted bit by bit
}

struct Record {
  # One event of one SCHEDULER, in the order in which it took them, or one decision that it made of them; or (`scheduler` is 2^32 - 1) the same
  # of the SIMULATORs of the process, in order for each instance.
  atNs @0 :Int64;
  scheduler @1 :UInt32;  # of the process, from 0
  union {
    session @2 :Session;
    message @3 :Frame.Frame;  # received: Schedule, PredictionBatch, EnqueueReply, TokenEvent, RequestOutcome; made: Decision.
                              # SIMULATORs received: StreamMessage, PredictBatch, EnqueueRequest, Cancel, RequestOutcome; made:
                              # PredictionBatch, EnqueueReply
    deadline @4 :UInt64;      # of this decision
    candidate @5 :Candidate;
    rejection @6 :Rejection;
    full @7 :Void;  # the log has reached its size: nothing was recorded from here on
    policy @8 :NewPolicy;
    hosting @9 :Hosting;
    timer @10 :UInt32;  # of the SIMULATOR of this instance
    join @11 :Join;
    left @12 :UInt32;  # this instance, for good
  }
}
