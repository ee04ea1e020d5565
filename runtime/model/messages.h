// Messages: what the roles say to each other (protocol.md), as plain values; those of the sync stream are in stream_message.h, the
// reservation in runtime/predict/enqueue_request.h. Each has exactly one wire struct (schema/*.capnp) with the same name, whose comment
// states sender, receiver, ordering and the effect of loss or repetition.
// Owning throughout: a message can be held, reordered, copied or recorded without anything else living on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"

namespace foretoken {

// SIMULATOR -> INSTANCE: send a Snapshot that includes everything up to now; messages from `from_seq` on are missing.
struct ResyncRequest {
  InstanceId instance;
  SourceId source;
  Epoch epoch;
  uint64_t from_seq = 0;
  bool exact = false;  // the level asked for; else light
  bool operator==(const ResyncRequest&) const = default;
};

// ---- A decision: GATEWAY, SCHEDULER, SIMULATOR. Times are on the asking party's clock.

// Where the time of an answer went: submitted -> started is queueing, started -> ended is computing.
struct Stamps {
  Instant submitted;
  Instant started;
  Instant ended;
  bool operator==(const Stamps&) const = default;
};

struct Schedule {
  RequestMeta request;
  Instant submitted;
  bool operator==(const Schedule&) const = default;
};

// Which part of a request an instance does. Prefill and decode may be placed apart.
enum class PlacementRole : uint8_t { kWhole, kPrefill, kDecode };

struct Placement {
  InstanceId instance;
  PlacementRole role = PlacementRole::kWhole;
  bool operator==(const Placement&) const = default;
};

struct Decision {
  DecisionId decision;
  RequestId request;
  std::vector<Placement> placement;                  // empty: rejected
  OutcomeReason reason = OutcomeReason::kNone;       // of the rejection
  PredictorKind predictor = PredictorKind::kLedger;  // who answered for the chosen one
  double score = 0;                                  // in the policy's units
  Stamps stamps;
  bool operator==(const Decision&) const = default;
};

// The question, in the form that travels (PredictQuery points into it).
struct Question {
  RequestMeta request;
  double length_quantile = 0.5;  // (0, 1)
  TokenCount expected_output{1};
  Slo slo;
  bool want_externality = false;
  bool operator==(const Question&) const = default;
};

struct Predict {
  DecisionId decision;
  InstanceId instance;
  Question question;
  Instant submitted;
  bool operator==(const Predict&) const = default;
};

struct PredictReply {
  DecisionId decision;
  Prediction prediction;
  Stamps stamps;
  bool operator==(const PredictReply&) const = default;
};

// One frame per node and decision: the same question about several instances.
struct PredictBatch {
  DecisionId decision;
  std::vector<InstanceId> instances;
  Question question;
  Instant submitted;
  bool operator==(const PredictBatch&) const = default;
};

struct PredictionBatch {
  DecisionId decision;
  std::vector<Prediction> predictions;
  std::vector<InstanceId> unreachable;  // no answer can come from these
  Stamps stamps;
  std::vector<uint64_t> terms = {};  // one per prediction: the ownership that it was made under (OwnershipNotice)
  bool operator==(const PredictionBatch&) const = default;
};

// Takes a reservation or a request back.
struct Cancel {
  RequestId request;
  InstanceId instance;
  OutcomeReason reason = OutcomeReason::kClientGone;
  bool operator==(const Cancel&) const = default;
};

// ---- The request's way through an engine.

struct Dispatch {
  DecisionId decision;
  InstanceId instance;
  RequestMeta request;
  Instant at;
  bool operator==(const Dispatch&) const = default;
};

// Output tokens first .. first + count - 1 (from 0) of a request came out.
struct TokenEvent {
  RequestId request;
  InstanceId instance;
  int32_t first = 0;
  int32_t count = 1;
  Instant at;
  bool operator==(const TokenEvent&) const = default;
};

struct RequestOutcome {
  RequestId request;
  InstanceId instance;
  OutcomeKind kind = OutcomeKind::kFinished;
  OutcomeReason reason = OutcomeReason::kNone;
  TokenCount output_tokens;
  Instant at;
  bool operator==(const RequestOutcome&) const = default;
};

// ---- Between nodes.

// Who owns the SIMULATOR of an instance from now on. Said by the node that runs the INSTANCE, which alone decides it; the higher
// term is right, in whatever order they come.
struct OwnershipNotice {
  InstanceId instance;
  uint64_t term = 0;
  std::string owner;  // node
  bool operator==(const OwnershipNotice&) const = default;
};

// From a command line to any node: show or change something of the running system.
struct ControlRequest {
  uint64_t id = 0;
  std::string verb;  // "status", "cordon", ...
  std::vector<std::string> arguments;
  bool operator==(const ControlRequest&) const = default;
};
struct ControlReply {
  uint64_t id = 0;
  bool ok = true;
  std::string text;  // JSON when ok, else what was wrong
  bool operator==(const ControlReply&) const = default;
};

struct NodeHello {
  struct Hosted {
    InstanceId instance;
    uint64_t config_version = 0;
    uint64_t term = 0;  // of the ownership of its SIMULATOR
    bool operator==(const Hosted&) const = default;
  };
  uint32_t protocol_version = 0;
  std::string node;
  std::vector<std::string> roles;
  std::vector<Hosted> hosted;
  Instant at;
  bool operator==(const NodeHello&) const = default;
};

struct NodeHeartbeat {
  uint64_t count = 0;  // 0, 1, 2, ... per connection
  Instant at;
  std::optional<Instant> echo;  // `at` of the newest heartbeat received, for the round trip
  Duration echo_held;           // how long it lay here before this was sent
  bool operator==(const NodeHeartbeat&) const = default;
};

}  // namespace foretoken
