#include "integration/cli/engine_run.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>

namespace foretoken {
namespace {

// Python's max(a, b): the first of equals, with its type.
PythonNumber Later(PythonNumber a, PythonNumber b) { return b.value > a.value ? b : a; }
PythonNumber Float(double x) { return {x, false}; }

struct RequestLine {
  const EngineTraceRow* row = nullptr;  // null: not arrived yet
  std::optional<int64_t> cached;
  std::optional<PythonNumber> first_sched, first_token, finish;
  int64_t preemptions = 0;
  int64_t out_tokens = 0;
};

struct BatchInFlight {
  std::string line;  // printed so far: up to "end"
  bool empty = true;
  double end = 0;
};

class EngineRun {
 public:
  EngineRun(EngineCore& core, const TokenNames& names, const EngineRunOptions& options, const LineSink& sink)
      : core_(core), names_(names), options_(options), sink_(sink), requests_(names.size() + 1) {
    depth_ = core.config().async_scheduling ? 2 : 1;
    core.SetRecordBlocks(options.print_blocks);
  }

  Result<EngineRunEnd> Run(const std::vector<EngineTraceRow>& rows) {
    for (const EngineTraceRow& row : rows) to_come_.push_back(&row);
    std::stable_sort(to_come_.begin(), to_come_.end(), [](auto* a, auto* b) { return a->arrival.value < b->arrival.value; });
    auto end = Loop();
    if (end.ok() && end.value() != EngineRunEnd::kMaxIterations)
      for (const RequestId id : arrived_) sink_(LineOf(requests_[id.value()]));
    return end;
  }

 private:
  Result<EngineRunEnd> Loop() {
    for (int64_t iteration = 0, idle = 0;;) {
      if (++iteration > options_.max_iterations) return EngineRunEnd::kMaxIterations;
      if (!core_.HasRequests() && in_flight_.empty()) {
        if (to_come_.empty()) return EngineRunEnd::kDone;
        now_ = Later(now_, to_come_.front()->arrival);
      }
      if (const Status added = TakeArrivals(); !added.ok()) return added.error();
      bool executed = false;
      if (core_.HasRequests()) {
        executed = Schedule();
        if (depth_ > 1 && in_flight_.size() < depth_ && (executed || core_.HasRequests())) {  // fill the pipeline first
          if (!executed) now_ = Float(now_.value + options_.idle_sleep_s);
          continue;
        }
      } else if (in_flight_.empty()) {
        continue;
      }
      Update();
      if (!executed && core_.HasRequests()) now_ = Float(now_.value + options_.idle_sleep_s);
      idle = executed || !in_flight_.empty() ? 0 : idle + 1;
      if (idle <= 3) continue;
      if (to_come_.empty()) return EngineRunEnd::kStuck;
      now_ = Later(now_, to_come_.front()->arrival);
      idle = 0;
    }
  }

  Status TakeArrivals() {
    for (; !to_come_.empty() && to_come_.front()->arrival.value <= now_.value; to_come_.pop_front()) {
      const EngineTraceRow& row = *to_come_.front();
      EngineRequest request;
      request.id = *names_.IdOf(row.id);
      request.priority = row.priority;
      request.arrival_key = row.arrival.value;
      request.segments = PromptOf(row, names_, options_.hash_block_tokens);
      request.prompt_tokens = PromptTokens(request.segments);
      request.output_tokens = row.output_len;
      request.max_tokens = core_.config().stop_at_eos ? row.max_tokens.value_or(core_.config().max_model_len) : row.output_len;
      if (Status added = core_.Add(request); !added.ok()) return Error{"request \"" + row.id + "\": " + added.error().message};
      requests_[request.id.value()].row = &row;
      arrived_.push_back(request.id);
    }
    return {};
  }

  // True if the batch has work.
  bool Schedule() {
    const Batch& batch = core_.Schedule();
    for (const BatchTrace::Admission& a : batch.admitted) {
      if (a.resumed) continue;
      requests_[a.request.value()].first_sched = now_;
      requests_[a.request.value()].cached = a.cached;
    }
    for (const RequestId id : batch.preempted) ++requests_[id.value()].preemptions;
    BatchInFlight flight;
    flight.empty = batch.items.empty();
    const double seconds = Print(batch, flight.line);
    now_ = Float(now_.value + options_.cpu_s);
    const double start = flight.empty ? now_.value : std::max(now_.value, accelerator_free_);
    flight.end = start + seconds;
    if (!flight.empty) accelerator_free_ = flight.end;
    flight.line += ",\"start\":";
    AppendPythonFloat(start, flight.line);
    flight.line += ",\"end\":";
    AppendPythonFloat(flight.end, flight.line);
    in_flight_.push_back(std::move(flight));
    return !in_flight_.back().empty;
  }

  void Update() {
    BatchInFlight flight = std::move(in_flight_.front());
    in_flight_.pop_front();
    now_ = Later(now_, Float(flight.end));
    const BatchResult& result = core_.Update();
    std::string& line = flight.line;
    std::vector<RequestId> first;
    for (const RequestId id : result.sampled) {
      RequestLine& request = requests_[id.value()];
      ++request.out_tokens;
      if (request.first_token) continue;
      request.first_token = now_;
      first.push_back(id);
    }
    line += ",\"first_token\":";
    AppendIds(first, line);
    std::vector<RequestId> finished;
    for (const BatchTrace::Finish& f : result.finished) finished.push_back(f.request);
    for (const RequestId id : finished) requests_[id.value()].finish = now_;
    line += ",\"finished\":";
    AppendIds(finished, line);
    line += ",\"free_after_update\":" + std::to_string(result.free_blocks_after) + "}";
    if (!flight.empty || options_.print_empty) sink_("{\"step\":" + std::to_string(steps_++) + line);
  }

  // Everything of the line that schedule() knows; returns the step's seconds.
  double Print(const Batch& batch, std::string& line) const {
    int64_t prefill_tokens = 0, decode_seqs = 0, kv_tokens = 0;
    for (const ScheduledItem& item : batch.items) {
      (item.prefill ? prefill_tokens : decode_seqs) += item.prefill ? item.tokens : 1;
      kv_tokens += item.tokens + item.computed;
    }
    line += ",\"type\":\"step\",\"sched_t\":";
    AppendPythonNumber(now_, line);
    line += ",\"prefill_tokens\":" + std::to_string(prefill_tokens) + ",\"decode_seqs\":" + std::to_string(decode_seqs) +
            ",\"kv_tokens\":" + std::to_string(kv_tokens) + ",\"items\":[";
    for (const ScheduledItem& item : batch.items) {
      line += &item == batch.items.data() ? "{\"id\":" : ",{\"id\":";
      AppendId(item.request, line);
      line += ",\"n\":" + std::to_string(item.tokens) + ",\"computed\":" + std::to_string(item.computed);
      line += item.prefill ? ",\"prefill\":true" : ",\"prefill\":false";
      line += item.samples ? ",\"samples\":true}" : ",\"samples\":false}";
    }
    line += "],\"new\":";
    AppendAdmissions(batch, false, line);
    line += ",\"resumed\":";
    AppendAdmissions(batch, true, line);
    line += ",\"preempted\":";
    AppendIds(batch.preempted, line);
    line += ",\"evicted\":" + std::to_string(batch.evicted) +
            ",\"free_after_sched\":" + std::to_string(batch.free_blocks_after) +
            ",\"running\":" + std::to_string(batch.running_after) + ",\"waiting\":" + std::to_string(batch.waiting_after);
    if (options_.print_blocks) AppendBlocks(batch, line);
    if (batch.items.empty()) return 0;
    return options_.step_s + options_.prefill_token_s * static_cast<double>(prefill_tokens) +
           options_.decode_seq_s * static_cast<double>(decode_seqs) + options_.kv_token_s * static_cast<double>(kv_tokens);
  }

  void AppendId(RequestId id, std::string& line) const { AppendPythonString(names_.NameOf(id), line); }

  void AppendIds(const std::vector<RequestId>& ids, std::string& line) const {
    line += '[';
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i > 0) line += ',';
      AppendId(ids[i], line);
    }
    line += ']';
  }

  void AppendAdmissions(const Batch& batch, bool resumed, std::string& line) const {
    line += '[';
    bool first = true;
    for (const BatchTrace::Admission& a : batch.admitted) {
      if (a.resumed != resumed) continue;
      line += first ? "{\"id\":" : ",{\"id\":";
      first = false;
      AppendId(a.request, line);
      line += ",\"cached\":" + std::to_string(a.cached) + "}";
    }
    line += ']';
  }

  void AppendBlocks(const Batch& batch, std::string& line) const {
    line += ",\"new_block_ids\":{";
    bool first = true;
    for (const auto& [id, blocks] : batch.new_blocks) {
      if (blocks.empty()) continue;
      if (!first) line += ',';
      first = false;
      AppendId(id, line);
      line += ":[";
      for (size_t i = 0; i < blocks.size(); ++i) line += (i > 0 ? "," : "") + std::to_string(blocks[i]);
      line += ']';
    }
    line += '}';
  }

  static std::string LineOf(const RequestLine& request) {
    std::string line = "{\"type\":\"request\",\"id\":";
    AppendPythonString(request.row->id, line);
    line += ",\"arrival\":";
    AppendPythonNumber(request.row->arrival, line);
    line += ",\"prompt_len\":" + std::to_string(request.row->prompt_len) +
            ",\"output_len\":" + std::to_string(request.row->output_len) +
            ",\"cached\":" + (request.cached ? std::to_string(*request.cached) : "null");
    const auto add = [&line](const char* key, const std::optional<PythonNumber>& at) {
      line += key;
      if (at) {
        AppendPythonNumber(*at, line);
      } else {
        line += "null";
      }
    };
    add(",\"first_sched\":", request.first_sched);
    add(",\"first_token\":", request.first_token);
    add(",\"finish\":", request.finish);
    line += ",\"preemptions\":" + std::to_string(request.preemptions) +
            ",\"out_tokens\":" + std::to_string(request.out_tokens) + "}";
    return line;
  }

  EngineCore& core_;
  const TokenNames& names_;
  const EngineRunOptions& options_;
  const LineSink& sink_;
  size_t depth_ = 1;                           // batches in flight
  std::deque<const EngineTraceRow*> to_come_;  // by arrival
  std::vector<RequestLine> requests_;          // by RequestId
  std::vector<RequestId> arrived_;             // in order
  std::deque<BatchInFlight> in_flight_;        // oldest first
  PythonNumber now_;
  double accelerator_free_ = 0;
  int64_t steps_ = 0;
};

}  // namespace

Result<EngineRunEnd> RunEngineAlone(EngineCore& core, const std::vector<EngineTraceRow>& rows, const TokenNames& names,
                                    const EngineRunOptions& options, const LineSink& sink) {
  return EngineRun(core, names, options, sink).Run(rows);
}

}  // namespace foretoken
