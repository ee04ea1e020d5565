# The sync stream: what an INSTANCE tells its SIMULATOR of the engine's progress, and the request to start over. All times are on the
# engine's monotonic clock; the receiver maps them by the heartbeats' round trips.
@0x808b68c226a366ff;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("foretoken::wire");
using Model = import "model.capnp";

struct StreamMessage {
  # INSTANCE -> SIMULATOR, the envelope of everything below. A stream is (instance, source, epoch); its messages carry seq = 0, 1, 2, ...
  # whatever their kind, so that the loss of any shows as a gap. Epoch grows at every (re)start of the engine and begins with a Hello.
  # Order: any order within the receiver's window is put right without a resync. Repetition: dropped and counted. Loss: after
  # gap_timeout, one ResyncRequest. An older epoch is dropped; a newer one voids the mirror.
  instance @0 :UInt32;
  source @1 :UInt32;  # an engine's plugin, or one of several gateways that infer progress
  epoch @2 :UInt64;
  seq @3 :UInt64;
  sentNs @4 :Int64;  # sender's clock
  body :union {
    hello @5 :Hello;
    arrived @6 :Arrived;
    aborted @7 :Aborted;
    syncBatchResult @8 :BatchTrace;
    snapshot @9 :Snapshot;
    heartbeat @10 :Heartbeat;
    aggregate @11 :Aggregate;
    blocksHashed @12 :BlocksHashed;
  }
}

struct Hello {
  # First message of an epoch: the engine's limits. What the SIMULATOR assumed before is replaced by it; its loss is a gap like any
  # other, and the limits of the topology stand until a later Hello.
  maxNumBatchedTokens @0 :Int32;
  maxNumSeqs @1 :Int32;
  blockTokens @2 :Int32;
  kvBlocks @3 :Int64;
  prefixCaching @4 :Bool;
  asyncScheduling @5 :Bool;
  priorityPolicy @6 :Bool;  # the waiting queue is ordered by priority; else first come, first served
  maxModelLen @7 :Int64;    # 0: not stated
  engine @8 :Text;          # "vllm", "sglang", "llama", "openai", "emulated"
  version @9 :Text;
  features @10 :List(Text);  # in use and not modelled: they lower the state level to `following`
  chunkedPrefill @11 :Bool = true;
  reserveFullIsl @12 :Bool = true;
  longPrefillAdaptive @13 :Bool;
  maxNumActiveSeqs @14 :Int32;  # 0: maxNumSeqs
  longPrefillTokenThreshold @15 :Int32;  # 0: off
  watermark @16 :Float64;
}

struct Arrived {
  # The engine took a request in. The order of these is the engine's own and may differ from the order of assignment. Confirms the
  # reservation; an id never assigned by us is foreign traffic. Lost for ever: the reservation expires after confirm_timeout.
  request @0 :UInt64;
  atNs @1 :Int64;
  promptTokens @2 :Int64;
  maxTokens @3 :Int64;  # 0: not known
  priority @4 :Int32;
  blockHashes @5 :List(UInt64);  # of the prompt's full blocks; empty: not known
  orderNs @6 :Int64;  # when its front end took it in (wall clock); decides among equal priorities. 0: not known
  structured @7 :Bool;  # its output is constrained by a grammar, which no mirror models
}

struct BlocksHashed {
  # A request that is about to end had filled blocks beyond those that its prompt fills alone; a later prompt that goes on from its
  # output has these hashes. Sent before the message that says that it has ended. Lost: a mirror takes such a hit for a miss.
  request @0 :UInt64;
  atNs @1 :Int64;
  blockHashes @2 :List(UInt64);  # behind those of its Arrived
}

struct Aborted {
  # A request left the engine between two steps. A repetition, or one of an unknown request, changes nothing.
  request @0 :UInt64;
  atNs @1 :Int64;
}

enum StepKind { real @0; dummy @1; empty @2; }

struct BatchTrace {
  # One executed step, sent at its end. Lists changes only: every running request past its prefill got one token unless it is in
  # chunks or skipped. `step` counts 0, 1, 2, ... within an epoch. Never applied twice (seq); a lost one is replaced by a snapshot.
  step @0 :UInt64;
  kind @1 :StepKind;
  scheduledNs @2 :Int64;
  startNs @3 :Int64;
  durationNs @4 :Int64;  # >= 0
  prefillTokens @5 :Int32;
  prefillSeqs @6 :Int32;
  prefillCtxTokens @7 :Int64;
  decodeSeqs @8 :Int32;
  decodeKvTokens @9 :Int64;
  chunks @10 :List(Chunk);
  admitted @11 :List(Admission);
  finished @12 :List(Finish);
  preempted @13 :List(UInt64);
  cancelled @14 :List(UInt64);
  skipped @15 :List(UInt64);
  waiting @16 :Int32;  # after the step, as the next three
  running @17 :Int32;
  freeBlocks @18 :Int64;
  totalBlocks @19 :Int64;

  struct Chunk {
    request @0 :UInt64;
    tokens @1 :Int32;
    computed @2 :Int32;
    samples @3 :Bool;
  }
  struct Admission {
    request @0 :UInt64;
    cached @1 :Int32;
    resumed @2 :Bool;
  }
  struct Finish {
    request @0 :UInt64;
    reason @1 :Model.FinishReason;
    outputTokens @2 :Int32;
  }
}

struct Snapshot {
  # The engine's state after every message of its stream up to lastSeq; it replaces the mirror's. Answers a ResyncRequest, or is sent
  # unasked. Older than what is known: dropped by seq. A reservation is thereby in it, refused, or still in flight.
  lastSeq @0 :UInt64;
  nextStep @1 :UInt64;
  asOfNs @2 :Int64;
  running @3 :List(Request);  # in the engine's order
  waiting @4 :List(Request);
  freeBlocks @5 :Int64;
  totalBlocks @6 :Int64;
  exact @7 :Exact;  # null: a light snapshot

  struct Request {
    request @0 :UInt64;
    promptTokens @1 :Int32;
    computedTokens @2 :Int32;
    generatedTokens @3 :Int32;
    cachedTokens @4 :Int32;
  }
  struct Exact {
    # What a fork of the engine needs.
    requests @0 :List(RequestBlocks);
    freeList @1 :List(UInt32);  # front first
    hashedBlocks @2 :List(HashedBlock);  # in registration order
    inFlight @3 :List(InFlight);  # oldest first
    finishPending @4 :Bool;  # one empty step is due after a request's end
    executedSteps @5 :Int64;
    lastPrefillStep @6 :Int64;
    capacityBound @7 :Bool;
  }
  struct RequestBlocks {
    request @0 :UInt64;
    priority @1 :Int32;
    maxTokens @2 :Int64;
    arrivalNs @3 :Int64;
    blocks @4 :List(UInt32);
    promptHashes @5 :List(UInt64);
    registeredBlocks @6 :Int32;  # leading ones of blocks that have a hash
    placeholders @7 :Int32;      # sampled tokens that are scheduled and not yet known
    inFlightTokens @8 :Int32;
    staleTokens @9 :Int32;  # of these, from before its preemption
    preempted @10 :Bool;
    partialPrefill @11 :Bool;
    skipped @12 :Bool;
  }
  struct HashedBlock {
    block @0 :UInt32;
    hash @1 :UInt64;
  }
  struct InFlight {
    step @0 :UInt64;
    startNs @1 :Int64;
    requests @2 :List(UInt64);
    tokens @3 :List(Int32);  # as many as requests, as the next
    samples @4 :List(UInt8);  # 1: a token comes out
  }
}

struct Heartbeat {
  # 4 per second even when idle: tells an idle engine from a silent one, and a hung one from a slow one. Loss: a gap like any other.
  atNs @0 :Int64;
  lastSeq @1 :UInt64;
  held @2 :Int32;
  stepInFlight @3 :Bool;
  inFlightSinceNs @4 :Int64;
  echoed :union {  # the answer to an earlier heartbeat that came since the last one
    nothing @5 :Void;
    echo :group {
      sentNs @6 :Int64;  # on the SIMULATOR's clock
      receivedNs @7 :Int64;
    }
  }
}

struct Aggregate {
  # Counts alone, as metric scrapes give them (sync level poll). Each replaces the one before; a lost one costs freshness only.
  atNs @0 :Int64;
  waiting @1 :Int32;
  running @2 :Int32;
  freeBlocks @3 :Int64;
  totalBlocks @4 :Int64;
}

struct ResyncRequest {
  # SIMULATOR -> INSTANCE: messages from fromSeq on are missing; send a Snapshot. At most one per gap, repeated only when no answer
  # comes. Repetition costs a second snapshot, which is dropped or applied like any other.
  instance @0 :UInt32;
  source @1 :UInt32;
  epoch @2 :UInt64;
  fromSeq @3 :UInt64;
  exact @4 :Bool;  # the level asked for; else light
}
