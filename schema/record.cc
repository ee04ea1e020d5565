#include "schema/record.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <cstring>
#include <iterator>
#include <utility>

#include "schema/convert.h"
#include "schema/record.capnp.h"

namespace foretoken {
namespace codec {
namespace {

// The constants of the simple rules, in the order in which they travel.
constexpr double PolicyWeights::*kRules[] = {&PolicyWeights::prefix_queue,    &PolicyWeights::prefix_kv,
                                             &PolicyWeights::prefix_missing,  &PolicyWeights::kv_router_prefill,
                                             &PolicyWeights::lmetricw_output, &PolicyWeights::lwl_output,
                                             &PolicyWeights::v0_steps,        &PolicyWeights::affinity_bound,
                                             &PolicyWeights::cache_gap,       &PolicyWeights::cache_ratio};

struct BodyWriter {
  wire::Record::Builder out;

  void operator()(const SessionRecord& s) {
    auto b = out.initSession();
    b.setTopologyFile(s.topology_file);
    b.setTopologyText(s.topology_text);
    b.setFolder(s.folder);
    auto overrides = b.initOverrides(static_cast<uint32_t>(s.overrides.size()));
    for (uint32_t i = 0; i < s.overrides.size(); ++i) overrides.set(i, s.overrides[i]);
    b.setNode(s.node);
    b.setSchedulers(s.schedulers);
    b.setSole(s.sole);
    b.setZeroNs(s.zero_ns);
  }
  void operator()(const Message& m) { WriteFrame(m, out.initMessage()); }
  void operator()(const DeadlineRecord& d) { out.setDeadline(d.decision.value()); }
  void operator()(const CandidateRecord& c) {
    auto b = out.initCandidate();
    b.setInstance(c.instance.value());
    b.setUsable(c.usable);
  }
  void operator()(const RejectionRecord& r) {
    auto b = out.initRejection();
    b.setRequest(r.request.value());
    b.setReason(ToWire<wire::OutcomeReason>(r.reason));
  }
  void operator()(const FullRecord&) { out.setFull(); }
  void operator()(const HostingRecord& h) {
    auto b = out.initHosting();
    b.setInstance(h.instance.value());
    b.setTerm(h.term);
    b.setHere(h.here);
  }
  void operator()(const JoinRecord& j) {
    auto b = out.initJoin();
    b.setInstance(j.instance.value());
    b.setKind(j.kind.value());
    b.setName(j.name);
    b.setFresh(j.fresh);
  }
  void operator()(const LeftRecord& l) { out.setLeft(l.instance.value()); }
  void operator()(const TimerRecord& t) { out.setTimer(t.instance.value()); }
  void operator()(const PolicyRecord& p) {
    auto b = out.initPolicy();
    b.setPolicy(p.policy);
    b.setSloLatency(p.weights.slo_latency_weight);
    b.setSloTtftGuardNs(p.weights.slo_ttft_guard.nanos());
    b.setAutoTail(p.weights.auto_tail);
    b.setHybridLoad(p.weights.hybrid_load_weight);
    b.setHybridPrefill(p.weights.hybrid_prefill_weight);
    auto rules = b.initRules(std::size(kRules));
    for (uint32_t k = 0; k < std::size(kRules); ++k) rules.set(k, p.weights.*kRules[k]);
  }
};

SessionRecord ReadSession(wire::Session::Reader in) {
  SessionRecord s{in.getTopologyFile().cStr(), in.getTopologyText().cStr(), in.getFolder().cStr(), {},
                  in.getNode().cStr(),         in.getSchedulers(),          in.getSole(),          in.getZeroNs()};
  for (const auto o : in.getOverrides()) s.overrides.emplace_back(o.begin(), o.end());
  return s;
}

PolicyRecord ReadPolicy(wire::NewPolicy::Reader in) {
  PolicyRecord p{in.getPolicy().cStr(), {}};
  p.weights.slo_latency_weight = Number(in.getSloLatency(), "policy weight: a number");
  p.weights.slo_ttft_guard = NotNegativeDuration(in.getSloTtftGuardNs(), "policy slo_ttft_guard: >= 0");
  p.weights.auto_tail = Number(in.getAutoTail(), "policy weight: a number");
  p.weights.hybrid_load_weight = Number(in.getHybridLoad(), "policy weight: a number");
  p.weights.hybrid_prefill_weight = Number(in.getHybridPrefill(), "policy weight: a number");
  const auto rules = in.getRules();
  Require(rules.size() == std::size(kRules), "policy rules: one value each");
  for (uint32_t k = 0; k < std::size(kRules); ++k) p.weights.*kRules[k] = Number(rules[k], "policy rule: a number");
  return p;
}

LogRecord ReadRecord(wire::Record::Reader in, const DecodeLimits& limits) {
  LogRecord out{Instant::FromNanos(in.getAtNs()), in.getScheduler(), FullRecord{}};
  switch (in.which()) {
    case wire::Record::SESSION: out.body = ReadSession(in.getSession()); return out;
    case wire::Record::MESSAGE: out.body = ReadFrame(in.getMessage(), limits); return out;
    case wire::Record::DEADLINE: out.body = DeadlineRecord{DecisionId(in.getDeadline())}; return out;
    case wire::Record::CANDIDATE:
      out.body = CandidateRecord{InstanceOf(in.getCandidate().getInstance(), limits), in.getCandidate().getUsable()};
      return out;
    case wire::Record::REJECTION:
      out.body = RejectionRecord{RequestId(in.getRejection().getRequest()), ReadReason(in.getRejection().getReason())};
      return out;
    case wire::Record::POLICY: out.body = ReadPolicy(in.getPolicy()); return out;
    case wire::Record::HOSTING:
      out.body = HostingRecord{InstanceOf(in.getHosting().getInstance(), limits), in.getHosting().getTerm(),
                               in.getHosting().getHere()};
      return out;
    case wire::Record::TIMER: out.body = TimerRecord{InstanceOf(in.getTimer(), limits)}; return out;
    case wire::Record::JOIN:
      out.body = JoinRecord{InstanceOf(in.getJoin().getInstance(), limits), InstanceOf(in.getJoin().getKind(), limits),
                            in.getJoin().getName().cStr(), in.getJoin().getFresh()};
      return out;
    case wire::Record::LEFT: out.body = LeftRecord{InstanceOf(in.getLeft(), limits)}; return out;
    case wire::Record::FULL: return out;
  }
  throw Malformed{"record: a known kind (of a newer release?)"};
}

}  // namespace
}  // namespace codec

Result<Frame> EncodeRecord(const LogRecord& record) {
  try {
    capnp::word scratch[256];
    std::memset(scratch, 0, sizeof scratch);  // a builder's first segment must be zero
    capnp::MallocMessageBuilder builder(kj::arrayPtr(scratch, sizeof scratch / sizeof scratch[0]));
    auto root = builder.initRoot<wire::Record>();
    root.setAtNs(record.at.nanos());
    root.setScheduler(record.scheduler);
    std::visit(codec::BodyWriter{root}, record.body);
    const size_t bytes = capnp::computeSerializedSizeInWords(builder) * sizeof(capnp::word);
    if (bytes > kFrameBytesMax) return Error{"a record of " + std::to_string(bytes) + " bytes: at most 1 MiB"};
    Frame frame(bytes);
    kj::ArrayOutputStream out(kj::arrayPtr(reinterpret_cast<kj::byte*>(frame.data()), frame.size()));
    capnp::writeMessage(out, builder);
    return frame;
  } catch (const kj::Exception& e) {
    return Error{std::string("a record that cannot be encoded: ") + e.getDescription().cStr()};
  }
}

Result<LogRecord> DecodeRecord(std::span<const std::byte> frame, const DecodeLimits& limits) {
  if (frame.empty() || frame.size() % sizeof(capnp::word) != 0 || frame.size() > kFrameBytesMax)
    return Error{"a record of " + std::to_string(frame.size()) + " bytes: must be a positive multiple of 8, at most 1 MiB"};
  std::vector<uint64_t> aligned(frame.size() / sizeof(capnp::word));
  std::memcpy(aligned.data(), frame.data(), frame.size());
  try {
    capnp::ReaderOptions options;
    options.traversalLimitInWords = 2 * aligned.size() + 64;  // as for frames
    options.nestingLimit = 20;
    capnp::FlatArrayMessageReader reader(kj::arrayPtr(reinterpret_cast<const capnp::word*>(aligned.data()), aligned.size()),
                                         options);
    return codec::ReadRecord(reader.getRoot<wire::Record>(), limits);
  } catch (const codec::Malformed& m) {
    return Error{"record refused: " + m.rule};
  } catch (const kj::Exception& e) {
    return Error{std::string("unreadable record: ") + e.getDescription().cStr()};
  }
}

}  // namespace foretoken
