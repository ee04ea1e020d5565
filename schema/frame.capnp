# What processes send each other: frames, each one message, in Cap'n Proto's standard stream framing (the segment table in front), so that
# any language's library reads them from the connection. A frame is at most 1 MiB and has at most 64 segments. An unreadable frame is
# counted, logged and ends its connection; nothing else is affected.
@0xd54bc93433b173ae;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("foretoken::wire");
using Stream = import "stream.capnp";
using Decision = import "decision.capnp";

struct NodeHello {
  # NODE <-> NODE, first frame both ways. Different protocol versions do not talk: the connection is closed with a message. Instances are
  # compared one by one by configuration version, never by a hash of the whole topology; the higher term owns a SIMULATOR.
  protocolVersion @0 :UInt32;
  node @1 :Text;
  roles @2 :List(Text);
  hosted @3 :List(Hosted);
  atNs @4 :Int64;

  struct Hosted {
    instance @0 :UInt32;
    configVersion @1 :UInt64;
    term @2 :UInt64;
  }
}

struct NodeHeartbeat {
  # NODE <-> NODE, at the same interval both ways, also when other frames flow. None for dead_after: the peer is unreachable.
  count @0 :UInt64;  # 0, 1, 2, ... per connection
  atNs @1 :Int64;
  echoed :union {
    nothing @2 :Void;
    echoNs @3 :Int64;  # atNs of the newest heartbeat received
  }
  echoHeldNs @4 :Int64;  # how long it lay here
}

struct OwnershipNotice {
  # NODE -> NODE, from the one that runs the INSTANCE to all: who owns its SIMULATOR now. Of two, the higher term is right, so order and
  # repetition do not matter. Loss: comes again after the next NodeHello.
  instance @0 :UInt32;
  term @1 :UInt64;
  owner @2 :Text;  # node
}

struct ControlRequest {
  # Command line -> NODE, after a NodeHello with the role "control". Answered by one ControlReply with the same id.
  id @0 :UInt64;
  verb @1 :Text;
  arguments @2 :List(Text);
}

struct ControlReply {
  # NODE -> command line.
  id @0 :UInt64;
  ok @1 :Bool;
  text @2 :Text;  # JSON when ok, else what was wrong
}

struct Frame {
  # The root of every frame. The codec (schema/codec.h) is the only code that reads or writes it.
  union {
    stream @0 :Stream.StreamMessage;
    resyncRequest @1 :Stream.ResyncRequest;
    schedule @2 :Decision.Schedule;
    decision @3 :Decision.Decision;
    predict @4 :Decision.Predict;
    predictReply @5 :Decision.PredictReply;
    predictBatch @6 :Decision.PredictBatch;
    predictionBatch @7 :Decision.PredictionBatch;
    enqueueRequest @8 :Decision.EnqueueRequest;
    enqueueReply @9 :Decision.EnqueueReply;
    cancel @10 :Decision.Cancel;
    dispatch @11 :Decision.Dispatch;
    tokenEvent @12 :Decision.TokenEvent;
    requestOutcome @13 :Decision.RequestOutcome;
    nodeHello @14 :NodeHello;
    nodeHeartbeat @15 :NodeHeartbeat;
    ownershipNotice @16 :OwnershipNotice;
    controlRequest @17 :ControlRequest;
    controlReply @18 :ControlReply;
  }
}
