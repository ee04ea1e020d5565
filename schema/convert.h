// The halves of the codec: Write(domain, builder) and Read(reader, limits) for every struct, split over convert_*.cc as the schema is.
// Private to //schema. Read throws Malformed, as Cap'n Proto throws kj::Exception; Decode turns both into Errors.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "schema/codec.h"
#include "schema/frame.capnp.h"
#include "schema/model.capnp.h"

namespace foretoken::codec {

struct Malformed {
  std::string rule;
};

inline void Require(bool holds, const char* rule) {
  if (!holds) throw Malformed{rule};
}

template <class Int>
Int NotNegative(Int n, const char* rule) {
  Require(n >= 0, rule);
  return n;
}
inline Duration NotNegativeDuration(int64_t ns, const char* rule) { return Duration::Nanos(NotNegative(ns, rule)); }
inline double Number(double x, const char* rule) {
  Require(!std::isnan(x), rule);
  return x;
}

// Wire enums list the same values in the same order as the domain's; `Last` is the greatest of them.
template <class Domain, Domain Last, class WireEnum>
Domain FromWire(WireEnum e, const char* rule) {
  Require(static_cast<uint32_t>(e) <= static_cast<uint32_t>(Last), rule);
  return static_cast<Domain>(e);
}
template <class WireEnum, class Domain>
WireEnum ToWire(Domain d) {
  return static_cast<WireEnum>(d);
}

inline InstanceId InstanceOf(uint32_t id, const DecodeLimits& limits) {
  Require(id < limits.instances, "instance: known by the topology");
  return InstanceId(id);
}

// Lists of ids and of plain integers. A list's size has been checked against the frame by Cap'n Proto before it is known here.
template <class T, class Out>
void WriteIds(const std::vector<T>& ids, Out out) {
  for (uint32_t i = 0; i < ids.size(); ++i) out.set(i, ids[i].value());
}
template <class T, class In>
std::vector<T> ReadIds(In in) {
  std::vector<T> ids;
  ids.reserve(in.size());
  for (auto v : in) ids.push_back(T(v));
  return ids;
}
template <class T, class Out>
void WriteInts(const std::vector<T>& values, Out out) {
  for (uint32_t i = 0; i < values.size(); ++i) out.set(i, values[i]);
}
template <class T, class In>
std::vector<T> ReadInts(In in) {
  std::vector<T> values;
  values.reserve(in.size());
  for (const T v : in) values.push_back(v);
  return values;
}

// model.capnp
void Write(const Slo& in, wire::Slo::Builder out);
void Write(const RequestMeta& in, wire::RequestMeta::Builder out);
void Write(const Versions& in, wire::Versions::Builder out);
void Write(const Prediction& in, wire::Prediction::Builder out);
void Write(const Stamps& in, wire::Stamps::Builder out);
Slo Read(wire::Slo::Reader in);
RequestMeta Read(wire::RequestMeta::Reader in);
Versions Read(wire::Versions::Reader in);
Prediction Read(wire::Prediction::Reader in, const DecodeLimits& limits);
Stamps Read(wire::Stamps::Reader in);
OutcomeReason ReadReason(wire::OutcomeReason in);

// stream.capnp
void Write(const StreamMessage& in, wire::StreamMessage::Builder out);
void Write(const ResyncRequest& in, wire::ResyncRequest::Builder out);
StreamMessage Read(wire::StreamMessage::Reader in, const DecodeLimits& limits);
ResyncRequest Read(wire::ResyncRequest::Reader in, const DecodeLimits& limits);

// decision.capnp
void Write(const Schedule& in, wire::Schedule::Builder out);
void Write(const Decision& in, wire::Decision::Builder out);
void Write(const Predict& in, wire::Predict::Builder out);
void Write(const PredictReply& in, wire::PredictReply::Builder out);
void Write(const PredictBatch& in, wire::PredictBatch::Builder out);
void Write(const PredictionBatch& in, wire::PredictionBatch::Builder out);
void Write(const EnqueueRequest& in, wire::EnqueueRequest::Builder out);
void Write(const EnqueueReply& in, wire::EnqueueReply::Builder out);
void Write(const Cancel& in, wire::Cancel::Builder out);
void Write(const Dispatch& in, wire::Dispatch::Builder out);
void Write(const TokenEvent& in, wire::TokenEvent::Builder out);
void Write(const RequestOutcome& in, wire::RequestOutcome::Builder out);
Schedule Read(wire::Schedule::Reader in, const DecodeLimits& limits);
Decision Read(wire::Decision::Reader in, const DecodeLimits& limits);
Predict Read(wire::Predict::Reader in, const DecodeLimits& limits);
PredictReply Read(wire::PredictReply::Reader in, const DecodeLimits& limits);
PredictBatch Read(wire::PredictBatch::Reader in, const DecodeLimits& limits);
PredictionBatch Read(wire::PredictionBatch::Reader in, const DecodeLimits& limits);
EnqueueRequest Read(wire::EnqueueRequest::Reader in, const DecodeLimits& limits);
EnqueueReply Read(wire::EnqueueReply::Reader in, const DecodeLimits& limits);
Cancel Read(wire::Cancel::Reader in, const DecodeLimits& limits);
Dispatch Read(wire::Dispatch::Reader in, const DecodeLimits& limits);
TokenEvent Read(wire::TokenEvent::Reader in, const DecodeLimits& limits);
RequestOutcome Read(wire::RequestOutcome::Reader in, const DecodeLimits& limits);

// frame.capnp
void WriteFrame(const Message& in, wire::Frame::Builder out);
Message ReadFrame(wire::Frame::Reader in, const DecodeLimits& limits);
void Write(const NodeHello& in, wire::NodeHello::Builder out);
void Write(const NodeHeartbeat& in, wire::NodeHeartbeat::Builder out);
void Write(const OwnershipNotice& in, wire::OwnershipNotice::Builder out);
void Write(const ControlRequest& in, wire::ControlRequest::Builder out);
void Write(const ControlReply& in, wire::ControlReply::Builder out);
OwnershipNotice Read(wire::OwnershipNotice::Reader in, const DecodeLimits& limits);
ControlRequest Read(wire::ControlRequest::Reader in, const DecodeLimits& limits);
ControlReply Read(wire::ControlReply::Reader in, const DecodeLimits& limits);
NodeHello Read(wire::NodeHello::Reader in, const DecodeLimits& limits);
NodeHeartbeat Read(wire::NodeHeartbeat::Reader in, const DecodeLimits& limits);

}  // namespace foretoken::codec
