#include "integration/accuracy/prediction_run.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>

#include "runtime/engine/emulated_engine.h"

namespace foretoken::accuracy {
namespace {

constexpr Instant kStart = Instant::FromNanos(1'000'000'000);  // of the mirror's clock

class RecordingReader {
 public:
  explicit RecordingReader(const Recording& recording) : recording_(recording), known_(recording.names.size() + 1) {
    run_.limits = recording.config;
    run_.came.resize(known_.size());
  }

  PredictionRun Read() {
    for (const RecordedEvent& event : recording_.events) {
      if (const auto* add = std::get_if<EngineRequest>(&event.what)) {
        Added(*add, Mapped(event.at));
      } else if (const auto* step = std::get_if<RecordedEvent::Step>(&event.what)) {
        Stepped(**step);
      } else {
        for (const RequestId id : std::get<RecordedEvent::Aborted>(event.what)) Aborted(id, Mapped(event.at));
      }
    }
    return std::move(run_);
  }

 private:
  enum class Phase : uint8_t { kUnseen, kWaiting, kPrefill, kDecode, kEnded };
  struct Known {
    Phase phase = Phase::kUnseen;
    Instant added;
    int32_t outputs = 0;
    uint64_t in_step = 0;  // the last step (counted from 1) that computed for it
  };

  Instant Mapped(Instant recorded) const { return kStart + (recorded - recording_.events.front().at); }
  Known& Of(RequestId id) { return known_[id.value()]; }

  // The control point that an add or abort at `at` belongs to.
  Instant ControlPoint(Instant at) {
    if (idle_) {
      controls_.push_back(at);
      idle_ = false;
    }
    return controls_.back();
  }

  void Added(const EngineRequest& request, Instant at) {
    const Instant control = ControlPoint(at);
    PredictionRun::Arrival arrival;
    arrival.meta.id = request.id;
    arrival.meta.arrival = control;
    arrival.meta.prompt_tokens = TokenCount(request.prompt_tokens);
    arrival.meta.max_tokens = TokenCount(request.max_tokens);
    arrival.meta.priority = request.priority;
    arrival.meta.segments = request.segments;
    arrival.since = at - control;
    run_.events.push_back({control, std::move(arrival)});
    ++run_.requests;
    ++waiting_;
    Of(request.id) = {Phase::kWaiting, at, 0, 0};
  }

  void Aborted(RequestId id, Instant at) {
    Known& k = Of(id);
    if (k.phase == Phase::kEnded || k.phase == Phase::kUnseen) return;
    if (k.phase == Phase::kWaiting) --waiting_;
    Leave(id);
    run_.events.push_back({ControlPoint(at), id});
  }

  void Leave(RequestId id) {
    Of(id).phase = Phase::kEnded;
    std::erase(decoding_, id);
  }

  void Stepped(const ReportedStep& step) {
    BatchTrace trace;
    trace.step = static_cast<uint64_t>(run_.steps++);
    const Instant recorded = Mapped(step.scheduled), result = Mapped(step.result);
    trace.scheduled = controls_.empty() ? recorded : controls_.front();
    for (const Instant c : controls_) {
      if (c <= recorded) trace.scheduled = c;
    }
    trace.start = std::max(trace.scheduled, last_result_);
    trace.duration = std::max(Duration::Nanos(1), result - trace.start);
    last_result_ = trace.end();

    Compose(step, trace);
    for (const RequestId id : step.finished) {
      Known& k = Of(id);
      if (k.phase == Phase::kEnded) continue;
      trace.finished.push_back({id, FinishReason::kLength, k.outputs});
      run_.came[id.value()].e2e = trace.end() - k.added;
      Leave(id);
    }
    trace.running = step.running_after;
    trace.waiting = step.after_schedule->waiting;
    trace.free_blocks = step.free_blocks_after;
    trace.total_blocks = recording_.config.num_gpu_blocks - 1;
    controls_.push_back(trace.end());
    if (controls_.size() > kControls) controls_.pop_front();
    idle_ = step.running_after == 0 && step.after_schedule->waiting == 0 && waiting_ == 0;
    run_.events.push_back({trace.end(), std::move(trace)});
  }

  // Who computes what; what is not a decode's one token is a chunk.
  void Compose(const ReportedStep& step, BatchTrace& trace) {
    const uint64_t now = static_cast<uint64_t>(run_.steps);
    for (const RequestId id : step.preempted) {
      if (Of(id).phase == Phase::kEnded) continue;
      trace.preempted.push_back(id);
      std::erase(decoding_, id);
      Of(id).phase = Phase::kPrefill;
    }
    for (const BatchTrace::Admission& a : step.admitted) {
      Known& k = Of(a.request);
      if (k.phase == Phase::kEnded) continue;
      if (k.phase == Phase::kWaiting) --waiting_;
      k.phase = Phase::kPrefill;
      trace.admitted.push_back(a);
    }
    int64_t weighted_ctx = 0;
    std::vector<RequestId> sampled;
    for (const ReportedStep::Item& item : step.items) {
      Known& k = Of(item.request);
      k.in_step = now;
      const bool decodes = k.phase == Phase::kDecode || k.phase == Phase::kEnded;
      if (decodes && item.tokens == 1) {
        ++trace.decode_seqs;
        trace.decode_kv_tokens += item.computed + item.tokens;
      } else {
        trace.prefill_tokens += item.tokens;
        ++trace.prefill_seqs;
        weighted_ctx += int64_t{item.tokens} * item.computed;
        if (k.phase != Phase::kEnded) trace.chunks.push_back({item.request, item.tokens, item.computed, item.samples});
      }
      if (!item.samples || k.phase == Phase::kEnded) continue;
      if (k.outputs++ == 0) run_.came[item.request.value()].ttft = trace.end() - k.added;
      if (k.phase != Phase::kDecode) sampled.push_back(item.request);
    }
    if (trace.prefill_tokens > 0) trace.prefill_ctx_tokens = (weighted_ctx + trace.prefill_tokens / 2) / trace.prefill_tokens;
    for (const RequestId id : decoding_) {
      if (Of(id).in_step != now) trace.skipped.push_back(id);
    }
    for (const RequestId id : sampled) {
      Of(id).phase = Phase::kDecode;
      decoding_.push_back(id);
    }
  }

  static constexpr size_t kControls = 8;  // more than batches can be in flight

  const Recording& recording_;
  PredictionRun run_;
  std::vector<Known> known_;         // by RequestId
  std::vector<RequestId> decoding_;  // in the order in which they began to
  std::deque<Instant> controls_;     // the latest control points
  bool idle_ = true;
  int32_t waiting_ = 0;  // not yet admitted
  Instant last_result_;
};

// Collects what the emulated engine reports.
class StepCollector final : public EngineSink {
 public:
  explicit StepCollector(PredictionRun& run) : run_(run) {}
  void OnStep(const BatchTrace& trace) override {
    run_.events.push_back({trace.end(), trace});
    ++run_.steps;
  }
  void OnFirstToken(RequestId, Instant) override {}
  void OnFinished(RequestId, const BatchTrace::Finish&, Instant) override {}
  void OnRejected(RequestId request, OutcomeReason, Instant) override { rejected = request; }

  std::optional<RequestId> rejected;

 private:
  PredictionRun& run_;
};

}  // namespace

PredictionRun RunOfRecording(const Recording& recording) { return RecordingReader(recording).Read(); }

Result<PredictionRun> RunOfMeasurement(const MeasuredRun& measured, const StepTimeModel& step_time) {
  EmulatedEngine::Options options;
  options.config = measured.config;
  options.step_time = step_time;
  options.traces = true;
  auto engine = EmulatedEngine::Make(std::move(options));
  if (!engine.ok()) return engine.error();
  PredictionRun run;
  run.limits = measured.config;
  run.requests = static_cast<int64_t>(measured.requests.size());
  run.came.resize(measured.requests.size() + 1);
  StepCollector sink(run);
  for (size_t i = 0; i < measured.requests.size(); ++i) {
    const MeasuredRequest& m = measured.requests[i];
    const Instant at = kStart + (m.arrival - Instant());
    (*engine)->RunUntil(at, sink);
    PredictionRun::Arrival arrival;
    arrival.meta.id = RequestId(i + 1);
    arrival.meta.arrival = at;
    arrival.meta.prompt_tokens = TokenCount(m.prompt_tokens);
    run.events.push_back({at, std::move(arrival)});
    run.came[i + 1] = {m.ttft, m.e2e};
    EngineRequest request;
    request.id = RequestId(i + 1);
    request.arrival_key = at.seconds();
    request.prompt_tokens = m.prompt_tokens;
    request.max_tokens = request.output_tokens = m.output_tokens;
    (*engine)->Submit(request, at);
  }
  while ((*engine)->NextEvent() != Instant::Max()) (*engine)->RunUntil((*engine)->NextEvent(), sink);
  if (sink.rejected) {
    return Error{"request " + measured.requests[sink.rejected->value() - 1].id + ": the engine refuses it (--kv-blocks)"};
  }
  return run;
}

}  // namespace foretoken::accuracy
