// The actors' interfaces, all in this file: who may send what to whom, a sentence per message (docs/actors.md has the picture).
// These are the forms in which the messages of protocol.md travel inside a process: payloads are shared or moved, never serialised.
// Between processes the same content goes as frames (schema/codec.h). Everything is a plain send: nothing waits for a reply, a reply
// carries the id of what it answers, and one that comes too late is counted by the core, not used.
#pragma once

#include <caf/actor.hpp>
#include <caf/allowed_unsafe_message_type.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/engine/emulated_engine.h"
#include "runtime/model/messages.h"
#include "runtime/model/request.h"
#include "runtime/model/stream_message.h"
#include "runtime/observe/mirror_view.h"
#include "runtime/observe/request_journal.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/predict/simulator_core.h"
#include "runtime/sched/scheduler_core.h"

namespace foretoken {

// A request is written once and shared by all who hold it.
using RequestPtr = std::shared_ptr<const RequestMeta>;

// Sent by an actor to itself (through Alarm) when time has come; never by others.
struct Tick {
  Instant at;
};

// ---- SCHEDULER. It receives:

// From a client (GATEWAY or load), or a NODE for one elsewhere: place this request. Answered by one DecisionNote per assignment, or one RejectNote. The sender
// also gets the request's TokenEvent and RequestOutcome, from the INSTANCE.
struct ScheduleCall {
  RequestPtr request;
  Instant submitted;
};
// From a SIMULATOR host: the answers to one PredictCall.
struct PredictedReply {
  DecisionId decision;
  std::vector<Prediction> predictions;  // of the targets hosted there
  Stamps stamps;
  std::vector<InstanceId> unreachable = {};  // of the targets: no answer can come from these
};
// EnqueueReply, from a SIMULATOR host: a guarded reservation was accepted or overtaken.
// TokenEvent, from an INSTANCE: the first token of a request came out (later ones are the client's alone).
// RequestOutcome, from an INSTANCE: kFinished and kCancelled end it; kFailed is decided again elsewhere or rejected.
// From a client: the request is no longer wanted. Goes on to its INSTANCE and SIMULATOR.
struct WithdrawCall {
  RequestId request;
};
// From membership: whether the instance may be chosen.
struct CandidateCall {
  InstanceId instance;
  bool usable = true;
};
// From the NODE: an instance has joined the cluster, like `kind` of those that the SCHEDULER began with. No candidate before its CandidateCall.
struct JoinCall {
  InstanceId instance;
  InstanceId kind;
  std::string name;
  caf::actor dispatch;  // takes DispatchCalls: the INSTANCE, or the NODE
  bool fresh = true;    // trusted bit by bit (SlowStart); false: others have known it for long
};
// From the NODE: it has left for good. What ran there has ended, or ends as it ends.
struct LeftCall {
  InstanceId instance;
};
// From the operator: another policy or other weights, checked beforehand.
struct PolicyCall {
  std::string policy;
  PolicyWeights weights;
};
// From anyone: answered by a SchedulerStatus.
struct StatusQuery {};
// From whoever watches: answered by a JournalReport, where a journal is kept; else by an error.
struct WatchQuery {};

// Once, from whoever wires the cluster, where links stand between it and the SIMULATOR hosts: by host, the LINK that what it sends
// goes through, and the one that answers come back through. Down messages still come from the hosts themselves.
struct RouteCall {
  std::vector<caf::actor> forth;
  std::vector<caf::actor> back;
};

// ---- SIMULATOR (an actor hosts one, or those of a shard). It receives:

// From an INSTANCE, or the LINK in front of it: one message of a sync stream.
struct StreamCall {
  StreamMessage message;
};
// From a SCHEDULER: predict for those of `targets` that are hosted here. Answered by a PredictedReply. One message serves all hosts.
struct PredictCall {
  DecisionId decision;
  RequestPtr request;  // query.request points into it
  PredictQuery query;
  std::vector<InstanceId> targets;  // ascending
  Instant submitted;
};
// From a SCHEDULER: reserve. Answered by an EnqueueReply when guarded.
struct EnqueueCall {
  RequestPtr request;  // order.query.request points into it
  EnqueueOrder order;
};
// Cancel, from a SCHEDULER: take a reservation back.
// RequestOutcome, from an INSTANCE: a request ended (sync levels whose stream does not tell).
// StatusQuery: answered by a SimulatorStatus. WatchQuery: answered by a MirrorsReport.

// ---- INSTANCE. It receives:

// Once, before all else: where its sync stream and its outcomes go.
struct ConnectCall {
  caf::actor stream;     // the SIMULATOR's host, or a LINK in front of it; may be null: no one mirrors it
  caf::actor simulator;  // the SIMULATOR's host; may be null
};
// From a SCHEDULER: run the request.
struct DispatchCall {
  DecisionId decision;
  InstanceId instance;
  RequestPtr request;
  caf::actor client;  // gets TokenEvent and RequestOutcome too
};
// Cancel, from a SCHEDULER: the client is gone.
// From membership: whether it takes new requests; it refuses them otherwise, and they are placed elsewhere.
struct AdmitCall {
  bool admits = true;
};
// From the NODE: take nothing new, and say LeftCall to it when the last request has ended. Then it holds no engine any more.
struct LeaveCall {};
// From a client's NODE: tell the client of every token of this request, not only of the first.
struct FollowCall {
  RequestId request;
  InstanceId instance;
};
// ResyncRequest, from a SIMULATOR or the LINK in front of this: send a snapshot.
// From a SIMULATOR or the LINK in front of this: a heartbeat of `epoch` was heard at `sent`, on the SIMULATOR's clock.
struct HeartbeatReply {
  InstanceId instance;
  Epoch epoch;
  Instant sent;
};
// From whoever injects faults: the engine dies now and is back after `downtime`.
struct RestartCall {
  Duration downtime;
};
// StatusQuery: answered by an InstanceStatus.

// ---- LINK: any message; it is passed on as the link's fault plan says, its sender kept. StatusQuery: answered by LinkCounters.

// ---- Client (GATEWAY, load). It receives:

// From a SCHEDULER: where its request goes. Another one follows when an engine fails under it.
struct DecisionNote {
  Decision decision;
  bool predicted = false;
  Prediction prediction;  // the chosen one's, when predicted
};
// From a SCHEDULER: the request will not run.
struct RejectNote {
  RequestId request;
  OutcomeReason reason = OutcomeReason::kNone;
};
// TokenEvent, RequestOutcome (never kFailed), from the INSTANCE.

// ---- Answers to a StatusQuery.
struct SchedulerStatus {
  SchedulerCounters counters;
  size_t open_rounds = 0;
  size_t queued = 0;    // events that wait for a round to end
  size_t assigned = 0;  // requests dispatched and not ended
  size_t simulators_down = 0;
};
struct SimulatorStatus {  // summed over those hosted there
  SimulatorCounters counters;
  SequencerCounters sync;
  DriftCounters drift;
};
struct InstanceStatus {
  EmulatedEngine::Counters counters;
  size_t held = 0;  // requests under way
};

// ---- Answers to a WatchQuery.
struct JournalReport {
  std::shared_ptr<const JournalView> view;  // never null
  SchedulerStatus status;
  std::vector<int32_t> outstanding;  // by instance: requests of this SCHEDULER there
};
struct MirrorsReport {
  std::vector<MirrorView> mirrors;  // of those hosted there
};

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::Tick)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::ScheduleCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::PredictedReply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::EnqueueReply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::TokenEvent)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::RequestOutcome)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::WithdrawCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::CandidateCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::JoinCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::LeftCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::AdmitCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::LeaveCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::FollowCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::PolicyCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::StatusQuery)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::StreamCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::PredictCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::EnqueueCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::Cancel)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::ConnectCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::DispatchCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::ResyncRequest)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::RestartCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::HeartbeatReply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::RouteCall)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::DecisionNote)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::RejectNote)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::WatchQuery)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::JournalReport)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::MirrorsReport)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::SchedulerStatus)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::SimulatorStatus)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::InstanceStatus)
