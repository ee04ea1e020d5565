#include "schema/codec.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "schema/convert.h"

namespace foretoken {
namespace codec {

void Write(const NodeHello& in, wire::NodeHello::Builder out) {
  out.setProtocolVersion(in.protocol_version);
  out.setNode(in.node);
  auto roles = out.initRoles(static_cast<uint32_t>(in.roles.size()));
  for (uint32_t i = 0; i < in.roles.size(); ++i) roles.set(i, in.roles[i]);
  auto hosted = out.initHosted(static_cast<uint32_t>(in.hosted.size()));
  for (uint32_t i = 0; i < in.hosted.size(); ++i) {
    hosted[i].setInstance(in.hosted[i].instance.value());
    hosted[i].setConfigVersion(in.hosted[i].config_version);
    hosted[i].setTerm(in.hosted[i].term);
  }
  out.setAtNs(in.at.nanos());
}

NodeHello Read(wire::NodeHello::Reader in, const DecodeLimits& limits) {
  NodeHello out;
  out.protocol_version = in.getProtocolVersion();
  out.node = in.getNode().cStr();
  const auto roles = in.getRoles();
  out.roles.reserve(roles.size());
  for (const auto r : roles) out.roles.emplace_back(r.begin(), r.end());
  const auto hosted = in.getHosted();
  out.hosted.reserve(hosted.size());
  for (const auto h : hosted) out.hosted.push_back({InstanceOf(h.getInstance(), limits), h.getConfigVersion(), h.getTerm()});
  out.at = Instant::FromNanos(in.getAtNs());
  return out;
}

void Write(const NodeHeartbeat& in, wire::NodeHeartbeat::Builder out) {
  out.setCount(in.count);
  out.setAtNs(in.at.nanos());
  if (in.echo) {
    out.getEchoed().setEchoNs(in.echo->nanos());
  } else {
    out.getEchoed().setNothing();
  }
  out.setEchoHeldNs(in.echo_held.nanos());
}

NodeHeartbeat Read(wire::NodeHeartbeat::Reader in, const DecodeLimits&) {
  NodeHeartbeat out;
  out.count = in.getCount();
  out.at = Instant::FromNanos(in.getAtNs());
  const auto echoed = in.getEchoed();
  switch (echoed.which()) {
    case wire::NodeHeartbeat::Echoed::NOTHING: break;
    case wire::NodeHeartbeat::Echoed::ECHO_NS: out.echo = Instant::FromNanos(echoed.getEchoNs()); break;
    default: throw Malformed{"node heartbeat echo: a known kind"};
  }
  out.echo_held = NotNegativeDuration(in.getEchoHeldNs(), "node heartbeat echo_held: >= 0");
  return out;
}

void Write(const OwnershipNotice& in, wire::OwnershipNotice::Builder out) {
  out.setInstance(in.instance.value());
  out.setTerm(in.term);
  out.setOwner(in.owner);
}

OwnershipNotice Read(wire::OwnershipNotice::Reader in, const DecodeLimits& limits) {
  return {InstanceOf(in.getInstance(), limits), in.getTerm(), in.getOwner().cStr()};
}

void Write(const ControlRequest& in, wire::ControlRequest::Builder out) {
  out.setId(in.id);
  out.setVerb(in.verb);
  auto arguments = out.initArguments(static_cast<uint32_t>(in.arguments.size()));
  for (uint32_t i = 0; i < in.arguments.size(); ++i) arguments.set(i, in.arguments[i]);
}

ControlRequest Read(wire::ControlRequest::Reader in, const DecodeLimits&) {
  ControlRequest out;
  out.id = in.getId();
  out.verb = in.getVerb().cStr();
  const auto arguments = in.getArguments();
  out.arguments.reserve(arguments.size());
  for (const auto a : arguments) out.arguments.emplace_back(a.begin(), a.end());
  return out;
}

void Write(const ControlReply& in, wire::ControlReply::Builder out) {
  out.setId(in.id);
  out.setOk(in.ok);
  out.setText(in.text);
}

ControlReply Read(wire::ControlReply::Reader in, const DecodeLimits&) { return {in.getId(), in.getOk(), in.getText().cStr()}; }

namespace {

// In the order of Message's alternatives and of the union in frame.capnp.
wire::StreamMessage::Builder Init(wire::Frame::Builder f, const StreamMessage*) { return f.initStream(); }
wire::ResyncRequest::Builder Init(wire::Frame::Builder f, const ResyncRequest*) { return f.initResyncRequest(); }
wire::Schedule::Builder Init(wire::Frame::Builder f, const Schedule*) { return f.initSchedule(); }
wire::Decision::Builder Init(wire::Frame::Builder f, const Decision*) { return f.initDecision(); }
wire::Predict::Builder Init(wire::Frame::Builder f, const Predict*) { return f.initPredict(); }
wire::PredictReply::Builder Init(wire::Frame::Builder f, const PredictReply*) { return f.initPredictReply(); }
wire::PredictBatch::Builder Init(wire::Frame::Builder f, const PredictBatch*) { return f.initPredictBatch(); }
wire::PredictionBatch::Builder Init(wire::Frame::Builder f, const PredictionBatch*) { return f.initPredictionBatch(); }
wire::EnqueueRequest::Builder Init(wire::Frame::Builder f, const EnqueueRequest*) { return f.initEnqueueRequest(); }
wire::EnqueueReply::Builder Init(wire::Frame::Builder f, const EnqueueReply*) { return f.initEnqueueReply(); }
wire::Cancel::Builder Init(wire::Frame::Builder f, const Cancel*) { return f.initCancel(); }
wire::Dispatch::Builder Init(wire::Frame::Builder f, const Dispatch*) { return f.initDispatch(); }
wire::TokenEvent::Builder Init(wire::Frame::Builder f, const TokenEvent*) { return f.initTokenEvent(); }
wire::RequestOutcome::Builder Init(wire::Frame::Builder f, const RequestOutcome*) { return f.initRequestOutcome(); }
wire::NodeHello::Builder Init(wire::Frame::Builder f, const NodeHello*) { return f.initNodeHello(); }
wire::NodeHeartbeat::Builder Init(wire::Frame::Builder f, const NodeHeartbeat*) { return f.initNodeHeartbeat(); }
wire::OwnershipNotice::Builder Init(wire::Frame::Builder f, const OwnershipNotice*) { return f.initOwnershipNotice(); }
wire::ControlRequest::Builder Init(wire::Frame::Builder f, const ControlRequest*) { return f.initControlRequest(); }
wire::ControlReply::Builder Init(wire::Frame::Builder f, const ControlReply*) { return f.initControlReply(); }

}  // namespace

void WriteFrame(const Message& in, wire::Frame::Builder out) {
  std::visit([out](const auto& m) { Write(m, Init(out, &m)); }, in);
}

Message ReadFrame(wire::Frame::Reader f, const DecodeLimits& limits) {
  switch (f.which()) {
    case wire::Frame::STREAM: return Read(f.getStream(), limits);
    case wire::Frame::RESYNC_REQUEST: return Read(f.getResyncRequest(), limits);
    case wire::Frame::SCHEDULE: return Read(f.getSchedule(), limits);
    case wire::Frame::DECISION: return Read(f.getDecision(), limits);
    case wire::Frame::PREDICT: return Read(f.getPredict(), limits);
    case wire::Frame::PREDICT_REPLY: return Read(f.getPredictReply(), limits);
    case wire::Frame::PREDICT_BATCH: return Read(f.getPredictBatch(), limits);
    case wire::Frame::PREDICTION_BATCH: return Read(f.getPredictionBatch(), limits);
    case wire::Frame::ENQUEUE_REQUEST: return Read(f.getEnqueueRequest(), limits);
    case wire::Frame::ENQUEUE_REPLY: return Read(f.getEnqueueReply(), limits);
    case wire::Frame::CANCEL: return Read(f.getCancel(), limits);
    case wire::Frame::DISPATCH: return Read(f.getDispatch(), limits);
    case wire::Frame::TOKEN_EVENT: return Read(f.getTokenEvent(), limits);
    case wire::Frame::REQUEST_OUTCOME: return Read(f.getRequestOutcome(), limits);
    case wire::Frame::NODE_HELLO: return Read(f.getNodeHello(), limits);
    case wire::Frame::NODE_HEARTBEAT: return Read(f.getNodeHeartbeat(), limits);
    case wire::Frame::OWNERSHIP_NOTICE: return Read(f.getOwnershipNotice(), limits);
    case wire::Frame::CONTROL_REQUEST: return Read(f.getControlRequest(), limits);
    case wire::Frame::CONTROL_REPLY: return Read(f.getControlReply(), limits);
  }
  throw Malformed{"message: a known kind (a newer peer?)"};
}

namespace {

template <class M>
Result<Frame> EncodeOne(const M& message) {
  try {
    capnp::word scratch[256];
    std::memset(scratch, 0, sizeof scratch);  // a builder's first segment must be zero
    capnp::MallocMessageBuilder builder(kj::arrayPtr(scratch, sizeof scratch / sizeof scratch[0]));
    Write(message, Init(builder.initRoot<wire::Frame>(), &message));
    const size_t bytes = capnp::computeSerializedSizeInWords(builder) * sizeof(capnp::word);
    if (bytes > kFrameBytesMax)
      return Error{"a frame of " + std::to_string(bytes) + " bytes: at most " + std::to_string(kFrameBytesMax)};
    Frame frame(bytes);
    kj::ArrayOutputStream out(kj::arrayPtr(reinterpret_cast<kj::byte*>(frame.data()), frame.size()));
    capnp::writeMessage(out, builder);
    return frame;
  } catch (const kj::Exception& e) {
    return Error{std::string("a message that cannot be encoded: ") + e.getDescription().cStr()};
  }
}

Result<Message> DecodeAligned(kj::ArrayPtr<const capnp::word> words, const DecodeLimits& limits) {
  try {
    capnp::ReaderOptions options;
    // Every object of a well-formed frame is read once or, by a getter that is called again, twice; pointers that alias would be more.
    options.traversalLimitInWords = 2 * words.size() + 64;
    options.nestingLimit = 16;  // the schema's deepest path has 7
    capnp::FlatArrayMessageReader reader(words, options);
    return ReadFrame(reader.getRoot<wire::Frame>(), limits);
  } catch (const Malformed& m) {
    return Error{"frame refused: " + m.rule};
  } catch (const kj::Exception& e) {
    return Error{std::string("unreadable frame: ") + e.getDescription().cStr()};
  }
}

}  // namespace
}  // namespace codec

Result<Frame> Encode(const StreamMessage& message) { return codec::EncodeOne(message); }

Result<Frame> Encode(const Message& message) {
  return std::visit([](const auto& m) { return codec::EncodeOne(m); }, message);
}

Result<Message> Decode(std::span<const std::byte> frame, const DecodeLimits& limits) {
  if (frame.empty() || frame.size() % sizeof(capnp::word) != 0)
    return Error{"a frame of " + std::to_string(frame.size()) + " bytes: must be a positive multiple of 8"};
  if (frame.size() > kFrameBytesMax)
    return Error{"a frame of " + std::to_string(frame.size()) + " bytes: at most " + std::to_string(kFrameBytesMax)};
  const size_t words = frame.size() / sizeof(capnp::word);
  if (reinterpret_cast<uintptr_t>(frame.data()) % alignof(capnp::word) == 0)
    return codec::DecodeAligned(kj::arrayPtr(reinterpret_cast<const capnp::word*>(frame.data()), words), limits);
  std::vector<uint64_t> aligned(words);
  std::memcpy(aligned.data(), frame.data(), frame.size());
  return codec::DecodeAligned(kj::arrayPtr(reinterpret_cast<const capnp::word*>(aligned.data()), words), limits);
}

std::string_view NameOf(const Message& message) {
  static constexpr std::string_view kNames[] = {
      "StreamMessage",   "ResyncRequest",  "Schedule",        "Decision",       "Predict",     "PredictReply", "PredictBatch",
      "PredictionBatch", "EnqueueRequest", "EnqueueReply",    "Cancel",         "Dispatch",    "TokenEvent",   "RequestOutcome",
      "NodeHello",       "NodeHeartbeat",  "OwnershipNotice", "ControlRequest", "ControlReply"};
  static_assert(std::size(kNames) == std::variant_size_v<Message>);
  return kNames[message.index()];
}

}  // namespace foretoken
