#include <utility>

#include "schema/convert.h"

namespace foretoken::codec {
namespace {

uint32_t Size(size_t n) { return static_cast<uint32_t>(n); }

void Write(const BatchTrace::Chunk& in, wire::BatchTrace::Chunk::Builder out) {
  out.setRequest(in.request.value());
  out.setTokens(in.tokens);
  out.setComputed(in.computed);
  out.setSamples(in.samples);
}

void Write(const BatchTrace::Admission& in, wire::BatchTrace::Admission::Builder out) {
  out.setRequest(in.request.value());
  out.setCached(in.cached);
  out.setResumed(in.resumed);
}

void Write(const BatchTrace::Finish& in, wire::BatchTrace::Finish::Builder out) {
  out.setRequest(in.request.value());
  out.setReason(ToWire<wire::FinishReason>(in.reason));
  out.setOutputTokens(in.output_tokens);
}

void Write(const Snapshot::Request& in, wire::Snapshot::Request::Builder out) {
  out.setRequest(in.request.value());
  out.setPromptTokens(in.prompt_tokens);
  out.setComputedTokens(in.computed_tokens);
  out.setGeneratedTokens(in.generated_tokens);
  out.setCachedTokens(in.cached_tokens);
}

void Write(const Snapshot::RequestBlocks& in, wire::Snapshot::RequestBlocks::Builder out) {
  out.setRequest(in.request.value());
  out.setPriority(in.priority);
  out.setMaxTokens(in.max_tokens);
  out.setArrivalNs(in.arrival.nanos());
  WriteInts(in.blocks, out.initBlocks(Size(in.blocks.size())));
  WriteIds(in.prompt_hashes, out.initPromptHashes(Size(in.prompt_hashes.size())));
  out.setRegisteredBlocks(in.registered_blocks);
  out.setPlaceholders(in.placeholders);
  out.setInFlightTokens(in.in_flight_tokens);
  out.setStaleTokens(in.stale_tokens);
  out.setPreempted(in.preempted);
  out.setPartialPrefill(in.partial_prefill);
  out.setSkipped(in.skipped);
}

void Write(const Snapshot::InFlight& in, wire::Snapshot::InFlight::Builder out) {
  out.setStep(in.step);
  out.setStartNs(in.start.nanos());
  WriteIds(in.requests, out.initRequests(Size(in.requests.size())));
  WriteInts(in.tokens, out.initTokens(Size(in.tokens.size())));
  WriteInts(in.samples, out.initSamples(Size(in.samples.size())));
}

template <class T, class Out>
void WriteList(const std::vector<T>& values, Out out) {
  for (uint32_t i = 0; i < values.size(); ++i) Write(values[i], out[i]);
}

void Write(const Hello& in, wire::Hello::Builder out) {
  out.setMaxNumBatchedTokens(in.max_num_batched_tokens);
  out.setMaxNumSeqs(in.max_num_seqs);
  out.setBlockTokens(in.block_tokens);
  out.setKvBlocks(in.kv_blocks);
  out.setPrefixCaching(in.prefix_caching);
  out.setAsyncScheduling(in.async_scheduling);
  out.setPriorityPolicy(in.priority_policy);
  out.setMaxModelLen(in.max_model_len);
  out.setEngine(in.engine);
  out.setVersion(in.version);
  auto features = out.initFeatures(Size(in.features.size()));
  for (uint32_t i = 0; i < in.features.size(); ++i) features.set(i, in.features[i]);
  out.setChunkedPrefill(in.chunked_prefill);
  out.setReserveFullIsl(in.reserve_full_isl);
  out.setLongPrefillAdaptive(in.long_prefill_adaptive);
  out.setMaxNumActiveSeqs(in.max_num_active_seqs);
  out.setLongPrefillTokenThreshold(in.long_prefill_token_threshold);
  out.setWatermark(in.watermark);
}

Hello Read(wire::Hello::Reader in) {
  Hello out;
  out.max_num_batched_tokens = NotNegative(in.getMaxNumBatchedTokens(), "hello.max_num_batched_tokens: >= 0");
  out.max_num_seqs = NotNegative(in.getMaxNumSeqs(), "hello.max_num_seqs: >= 0");
  out.block_tokens = NotNegative(in.getBlockTokens(), "hello.block_tokens: >= 0");
  out.kv_blocks = NotNegative(in.getKvBlocks(), "hello.kv_blocks: >= 0");
  out.prefix_caching = in.getPrefixCaching();
  out.async_scheduling = in.getAsyncScheduling();
  out.priority_policy = in.getPriorityPolicy();
  out.max_model_len = NotNegative(in.getMaxModelLen(), "hello.max_model_len: >= 0");
  out.engine = in.getEngine().cStr();
  out.version = in.getVersion().cStr();
  const auto features = in.getFeatures();
  out.features.reserve(features.size());
  for (const auto f : features) out.features.emplace_back(f.begin(), f.end());
  out.chunked_prefill = in.getChunkedPrefill();
  out.reserve_full_isl = in.getReserveFullIsl();
  out.long_prefill_adaptive = in.getLongPrefillAdaptive();
  out.max_num_active_seqs = NotNegative(in.getMaxNumActiveSeqs(), "hello.max_num_active_seqs: >= 0");
  out.long_prefill_token_threshold = NotNegative(in.getLongPrefillTokenThreshold(), "hello.long_prefill_token_threshold: >= 0");
  out.watermark = in.getWatermark();
  if (!(out.watermark >= 0 && out.watermark < 1)) throw Malformed{"hello.watermark: in [0, 1)"};
  return out;
}

void Write(const Arrived& in, wire::Arrived::Builder out) {
  out.setRequest(in.request.value());
  out.setAtNs(in.at.nanos());
  out.setPromptTokens(in.prompt_tokens);
  out.setMaxTokens(in.max_tokens);
  out.setPriority(in.priority);
  WriteIds(in.block_hashes, out.initBlockHashes(Size(in.block_hashes.size())));
  out.setOrderNs(in.order_ns);
  out.setStructured(in.structured);
}

Arrived Read(wire::Arrived::Reader in) {
  return {RequestId(in.getRequest()),
          Instant::FromNanos(in.getAtNs()),
          NotNegative(in.getPromptTokens(), "arrived.prompt_tokens: >= 0"),
          NotNegative(in.getMaxTokens(), "arrived.max_tokens: >= 0"),
          in.getPriority(),
          ReadIds<BlockHash>(in.getBlockHashes()),
          in.getOrderNs(),
          in.getStructured()};
}

void Write(const BlocksHashed& in, wire::BlocksHashed::Builder out) {
  out.setRequest(in.request.value());
  out.setAtNs(in.at.nanos());
  WriteIds(in.block_hashes, out.initBlockHashes(Size(in.block_hashes.size())));
}

BlocksHashed Read(wire::BlocksHashed::Reader in) {
  return {RequestId(in.getRequest()), Instant::FromNanos(in.getAtNs()), ReadIds<BlockHash>(in.getBlockHashes())};
}

void Write(const Aborted& in, wire::Aborted::Builder out) {
  out.setRequest(in.request.value());
  out.setAtNs(in.at.nanos());
}

void Write(const BatchTrace& in, wire::BatchTrace::Builder out) {
  out.setStep(in.step);
  out.setKind(ToWire<wire::StepKind>(in.kind));
  out.setScheduledNs(in.scheduled.nanos());
  out.setStartNs(in.start.nanos());
  out.setDurationNs(in.duration.nanos());
  out.setPrefillTokens(in.prefill_tokens);
  out.setPrefillSeqs(in.prefill_seqs);
  out.setPrefillCtxTokens(in.prefill_ctx_tokens);
  out.setDecodeSeqs(in.decode_seqs);
  out.setDecodeKvTokens(in.decode_kv_tokens);
  WriteList(in.chunks, out.initChunks(Size(in.chunks.size())));
  WriteList(in.admitted, out.initAdmitted(Size(in.admitted.size())));
  WriteList(in.finished, out.initFinished(Size(in.finished.size())));
  WriteIds(in.preempted, out.initPreempted(Size(in.preempted.size())));
  WriteIds(in.cancelled, out.initCancelled(Size(in.cancelled.size())));
  WriteIds(in.skipped, out.initSkipped(Size(in.skipped.size())));
  out.setWaiting(in.waiting);
  out.setRunning(in.running);
  out.setFreeBlocks(in.free_blocks);
  out.setTotalBlocks(in.total_blocks);
}

void ReadLists(wire::BatchTrace::Reader in, BatchTrace& out) {
  const auto chunks = in.getChunks();
  out.chunks.reserve(chunks.size());
  for (const auto c : chunks)
    out.chunks.push_back({RequestId(c.getRequest()), NotNegative(c.getTokens(), "step.chunks[].tokens: >= 0"),
                          NotNegative(c.getComputed(), "step.chunks[].computed: >= 0"), c.getSamples()});
  const auto admitted = in.getAdmitted();
  out.admitted.reserve(admitted.size());
  for (const auto a : admitted)
    out.admitted.push_back(
        {RequestId(a.getRequest()), NotNegative(a.getCached(), "step.admitted[].cached: >= 0"), a.getResumed()});
  const auto finished = in.getFinished();
  out.finished.reserve(finished.size());
  for (const auto f : finished)
    out.finished.push_back({RequestId(f.getRequest()),
                            FromWire<FinishReason, FinishReason::kAborted>(f.getReason(), "step.finished[].reason: known"),
                            NotNegative(f.getOutputTokens(), "step.finished[].output_tokens: >= 0")});
  out.preempted = ReadIds<RequestId>(in.getPreempted());
  out.cancelled = ReadIds<RequestId>(in.getCancelled());
  out.skipped = ReadIds<RequestId>(in.getSkipped());
}

BatchTrace Read(wire::BatchTrace::Reader in, const DecodeLimits& limits) {
  static_assert(static_cast<int>(FinishReason::kAborted) == static_cast<int>(wire::FinishReason::ABORTED));
  static_assert(static_cast<int>(StepKind::kEmpty) == static_cast<int>(wire::StepKind::EMPTY));
  BatchTrace out;
  out.step = in.getStep();
  out.kind = FromWire<StepKind, StepKind::kEmpty>(in.getKind(), "step.kind: known");
  out.scheduled = Instant::FromNanos(in.getScheduledNs());
  out.start = Instant::FromNanos(in.getStartNs());
  out.duration = NotNegativeDuration(in.getDurationNs(), "step.duration: >= 0");
  out.prefill_tokens = NotNegative(in.getPrefillTokens(), "step.prefill_tokens: >= 0");
  out.prefill_seqs = NotNegative(in.getPrefillSeqs(), "step.prefill_seqs: >= 0");
  out.prefill_ctx_tokens = NotNegative(in.getPrefillCtxTokens(), "step.prefill_ctx_tokens: >= 0");
  out.decode_seqs = NotNegative(in.getDecodeSeqs(), "step.decode_seqs: >= 0");
  out.decode_kv_tokens = NotNegative(in.getDecodeKvTokens(), "step.decode_kv_tokens: >= 0");
  Require(int64_t{out.prefill_seqs} + out.decode_seqs <= limits.max_num_seqs,
          "step.prefill_seqs + decode_seqs: <= max_num_seqs");
  Require(int64_t{out.prefill_tokens} + out.decode_seqs <= limits.max_num_batched_tokens,
          "step.prefill_tokens + decode_seqs: <= max_num_batched_tokens");
  ReadLists(in, out);
  Require(out.chunks.size() <= static_cast<size_t>(limits.max_num_seqs), "step.chunks: at most max_num_seqs");
  out.waiting = NotNegative(in.getWaiting(), "step.waiting: >= 0");
  out.running = NotNegative(in.getRunning(), "step.running: >= 0");
  Require(out.running <= limits.max_num_seqs, "step.running: <= max_num_seqs");
  out.free_blocks = NotNegative(in.getFreeBlocks(), "step.free_blocks: >= 0");
  out.total_blocks = in.getTotalBlocks();
  Require(out.total_blocks >= out.free_blocks, "step.total_blocks: >= free_blocks");
  return out;
}

void Write(const Snapshot::Exact& in, wire::Snapshot::Exact::Builder out) {
  WriteList(in.requests, out.initRequests(Size(in.requests.size())));
  WriteInts(in.free_list, out.initFreeList(Size(in.free_list.size())));
  auto hashed = out.initHashedBlocks(Size(in.hashed_blocks.size()));
  for (uint32_t i = 0; i < in.hashed_blocks.size(); ++i) {
    hashed[i].setBlock(in.hashed_blocks[i].first);
    hashed[i].setHash(in.hashed_blocks[i].second.value());
  }
  WriteList(in.in_flight, out.initInFlight(Size(in.in_flight.size())));
  out.setFinishPending(in.finish_pending);
  out.setExecutedSteps(in.executed_steps);
  out.setLastPrefillStep(in.last_prefill_step);
  out.setCapacityBound(in.capacity_bound);
}

void Write(const Snapshot& in, wire::Snapshot::Builder out) {
  out.setLastSeq(in.last_seq);
  out.setNextStep(in.next_step);
  out.setAsOfNs(in.as_of.nanos());
  WriteList(in.running, out.initRunning(Size(in.running.size())));
  WriteList(in.waiting, out.initWaiting(Size(in.waiting.size())));
  out.setFreeBlocks(in.free_blocks);
  out.setTotalBlocks(in.total_blocks);
  if (in.exact) Write(*in.exact, out.initExact());
}

std::vector<Snapshot::Request> ReadRequests(capnp::List<wire::Snapshot::Request>::Reader in) {
  std::vector<Snapshot::Request> out;
  out.reserve(in.size());
  for (const auto r : in)
    out.push_back({RequestId(r.getRequest()), NotNegative(r.getPromptTokens(), "snapshot.prompt_tokens: >= 0"),
                   NotNegative(r.getComputedTokens(), "snapshot.computed_tokens: >= 0"),
                   NotNegative(r.getGeneratedTokens(), "snapshot.generated_tokens: >= 0"),
                   NotNegative(r.getCachedTokens(), "snapshot.cached_tokens: >= 0")});
  return out;
}

Snapshot::RequestBlocks Read(wire::Snapshot::RequestBlocks::Reader in) {
  Snapshot::RequestBlocks out;
  out.request = RequestId(in.getRequest());
  out.priority = in.getPriority();
  out.max_tokens = NotNegative(in.getMaxTokens(), "snapshot.max_tokens: >= 0");
  out.arrival = Instant::FromNanos(in.getArrivalNs());
  out.blocks = ReadInts<uint32_t>(in.getBlocks());
  out.prompt_hashes = ReadIds<BlockHash>(in.getPromptHashes());
  out.registered_blocks = NotNegative(in.getRegisteredBlocks(), "snapshot.registered_blocks: >= 0");
  out.placeholders = NotNegative(in.getPlaceholders(), "snapshot.placeholders: >= 0");
  out.in_flight_tokens = NotNegative(in.getInFlightTokens(), "snapshot.in_flight_tokens: >= 0");
  out.stale_tokens = NotNegative(in.getStaleTokens(), "snapshot.stale_tokens: >= 0");
  out.preempted = in.getPreempted();
  out.partial_prefill = in.getPartialPrefill();
  out.skipped = in.getSkipped();
  Require(static_cast<size_t>(out.registered_blocks) <= out.blocks.size(), "snapshot.registered_blocks: at most its blocks");
  return out;
}

Snapshot::InFlight Read(wire::Snapshot::InFlight::Reader in) {
  Snapshot::InFlight out;
  out.step = in.getStep();
  out.start = Instant::FromNanos(in.getStartNs());
  out.requests = ReadIds<RequestId>(in.getRequests());
  out.tokens = ReadInts<int32_t>(in.getTokens());
  out.samples = ReadInts<uint8_t>(in.getSamples());
  Require(out.requests.size() == out.tokens.size() && out.requests.size() == out.samples.size(),
          "snapshot.in_flight: as many tokens and samples as requests");
  for (const int32_t t : out.tokens) Require(t >= 0, "snapshot.in_flight[].tokens: >= 0");
  return out;
}

Snapshot::Exact Read(wire::Snapshot::Exact::Reader in) {
  Snapshot::Exact out;
  const auto requests = in.getRequests();
  out.requests.reserve(requests.size());
  for (const auto r : requests) out.requests.push_back(Read(r));
  out.free_list = ReadInts<uint32_t>(in.getFreeList());
  const auto hashed = in.getHashedBlocks();
  out.hashed_blocks.reserve(hashed.size());
  for (const auto h : hashed) out.hashed_blocks.emplace_back(h.getBlock(), BlockHash(h.getHash()));
  const auto in_flight = in.getInFlight();
  out.in_flight.reserve(in_flight.size());
  for (const auto f : in_flight) out.in_flight.push_back(Read(f));
  out.finish_pending = in.getFinishPending();
  out.executed_steps = NotNegative(in.getExecutedSteps(), "snapshot.executed_steps: >= 0");
  out.last_prefill_step = in.getLastPrefillStep();
  out.capacity_bound = in.getCapacityBound();
  return out;
}

Snapshot Read(wire::Snapshot::Reader in, const DecodeLimits& limits) {
  Snapshot out;
  out.last_seq = in.getLastSeq();
  out.next_step = in.getNextStep();
  out.as_of = Instant::FromNanos(in.getAsOfNs());
  out.running = ReadRequests(in.getRunning());
  Require(out.running.size() <= static_cast<size_t>(limits.max_num_seqs), "snapshot.running: at most max_num_seqs");
  out.waiting = ReadRequests(in.getWaiting());
  out.free_blocks = NotNegative(in.getFreeBlocks(), "snapshot.free_blocks: >= 0");
  out.total_blocks = in.getTotalBlocks();
  Require(out.total_blocks >= out.free_blocks, "snapshot.total_blocks: >= free_blocks");
  if (in.hasExact()) out.exact = Read(in.getExact());
  return out;
}

void Write(const Heartbeat& in, wire::Heartbeat::Builder out) {
  out.setAtNs(in.at.nanos());
  out.setLastSeq(in.last_seq);
  out.setHeld(in.held);
  out.setStepInFlight(in.step_in_flight);
  out.setInFlightSinceNs(in.in_flight_since.nanos());
  if (!in.echo) return;
  auto echo = out.getEchoed().initEcho();
  echo.setSentNs(in.echo->sent.nanos());
  echo.setReceivedNs(in.echo->received.nanos());
}

Heartbeat Read(wire::Heartbeat::Reader in) {
  Heartbeat out{Instant::FromNanos(in.getAtNs()), in.getLastSeq(), NotNegative(in.getHeld(), "heartbeat.held: >= 0"),
                in.getStepInFlight(), Instant::FromNanos(in.getInFlightSinceNs())};
  const auto echoed = in.getEchoed();
  switch (echoed.which()) {
    case wire::Heartbeat::Echoed::NOTHING: return out;
    case wire::Heartbeat::Echoed::ECHO:
      out.echo = {Instant::FromNanos(echoed.getEcho().getSentNs()), Instant::FromNanos(echoed.getEcho().getReceivedNs())};
      return out;
  }
  throw Malformed{"heartbeat echo: a known kind (a newer peer?)"};
}

void Write(const Aggregate& in, wire::Aggregate::Builder out) {
  out.setAtNs(in.at.nanos());
  out.setWaiting(in.waiting);
  out.setRunning(in.running);
  out.setFreeBlocks(in.free_blocks);
  out.setTotalBlocks(in.total_blocks);
}

Aggregate Read(wire::Aggregate::Reader in) {
  return {Instant::FromNanos(in.getAtNs()), NotNegative(in.getWaiting(), "aggregate.waiting: >= 0"),
          NotNegative(in.getRunning(), "aggregate.running: >= 0"),
          NotNegative(in.getFreeBlocks(), "aggregate.free_blocks: >= 0"),
          NotNegative(in.getTotalBlocks(), "aggregate.total_blocks: >= 0")};
}

StreamBody ReadBody(wire::StreamMessage::Body::Reader in, const DecodeLimits& limits) {
  using Body = wire::StreamMessage::Body;
  switch (in.which()) {
    case Body::HELLO: return Read(in.getHello());
    case Body::ARRIVED: return Read(in.getArrived());
    case Body::ABORTED: return Aborted{RequestId(in.getAborted().getRequest()), Instant::FromNanos(in.getAborted().getAtNs())};
    case Body::SYNC_BATCH_RESULT: return Read(in.getSyncBatchResult(), limits);
    case Body::SNAPSHOT: return Read(in.getSnapshot(), limits);
    case Body::HEARTBEAT: return Read(in.getHeartbeat());
    case Body::AGGREGATE: return Read(in.getAggregate());
    case Body::BLOCKS_HASHED: return Read(in.getBlocksHashed());
  }
  throw Malformed{"stream message body: a known kind (a newer peer?)"};
}

void WriteBody(const Hello& in, wire::StreamMessage::Body::Builder out) { Write(in, out.initHello()); }
void WriteBody(const Arrived& in, wire::StreamMessage::Body::Builder out) { Write(in, out.initArrived()); }
void WriteBody(const Aborted& in, wire::StreamMessage::Body::Builder out) { Write(in, out.initAborted()); }
void WriteBody(const BatchTrace& in, wire::StreamMessage::Body::Builder out) { Write(in, out.initSyncBatchResult()); }
void WriteBody(const Snapshot& in, wire::StreamMessage::Body::Builder out) { Write(in, out.initSnapshot()); }
void WriteBody(const Heartbeat& in, wire::StreamMessage::Body::Builder out) { Write(in, out.initHeartbeat()); }
void WriteBody(const Aggregate& in, wire::StreamMessage::Body::Builder out) { Write(in, out.initAggregate()); }
void WriteBody(const BlocksHashed& in, wire::StreamMessage::Body::Builder out) { Write(in, out.initBlocksHashed()); }

}  // namespace

void Write(const StreamMessage& in, wire::StreamMessage::Builder out) {
  out.setInstance(in.instance.value());
  out.setSource(in.source.value());
  out.setEpoch(in.epoch.value());
  out.setSeq(in.seq);
  out.setSentNs(in.sent.nanos());
  auto body_out = out.initBody();
  std::visit([&body_out](const auto& body) { WriteBody(body, body_out); }, in.body);
}

StreamMessage Read(wire::StreamMessage::Reader in, const DecodeLimits& limits) {
  return {InstanceOf(in.getInstance(), limits), SourceId(in.getSource()),          Epoch(in.getEpoch()), in.getSeq(),
          ReadBody(in.getBody(), limits),       Instant::FromNanos(in.getSentNs())};
}

void Write(const ResyncRequest& in, wire::ResyncRequest::Builder out) {
  out.setInstance(in.instance.value());
  out.setSource(in.source.value());
  out.setEpoch(in.epoch.value());
  out.setFromSeq(in.from_seq);
  out.setExact(in.exact);
}

ResyncRequest Read(wire::ResyncRequest::Reader in, const DecodeLimits& limits) {
  return {InstanceOf(in.getInstance(), limits), SourceId(in.getSource()), Epoch(in.getEpoch()), in.getFromSeq(), in.getExact()};
}

}  // namespace foretoken::codec
