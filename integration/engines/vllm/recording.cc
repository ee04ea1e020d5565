#include "integration/engines/vllm/recording.h"

#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

namespace foretoken {
namespace {

// Reads typed fields of one record; the first that is wrong is kept and everything after it yields zeros.
class Fields {
 public:
  explicit Fields(const JsonValue& record) : record_(record) {}

  int64_t Int(const char* key) {
    const JsonValue* value = record_.Find(key);
    const auto n = value == nullptr ? std::nullopt : value->AsInt();
    if (!n) Wrong(key, "a whole number is needed");
    return n.value_or(0);
  }
  int32_t Int32(const char* key) { return Narrow(key, Int(key)); }
  double Double(const char* key) {
    const JsonValue* value = record_.Find(key);
    const auto x = value == nullptr ? std::nullopt : value->AsDouble();
    if (!x) Wrong(key, "a number is needed");
    return x.value_or(0);
  }
  bool Bool(const char* key) {
    const JsonValue* value = record_.Find(key);
    const auto b = value == nullptr ? std::nullopt : value->AsBool();
    if (!b) Wrong(key, "true or false is needed");
    return b.value_or(false);
  }
  std::string String(const char* key) {
    const JsonValue* value = record_.Find(key);
    if (value == nullptr || !value->is_string()) return Wrong(key, "a string is needed"), "";
    return value->text;
  }
  Instant Time(const char* key) { return Instant::FromNanos(Int(key)); }
  // An array of arrays whose first element is an id and which have at least `numbers` whole numbers behind it.
  const std::vector<JsonValue>& Rows(const char* key) {
    static const std::vector<JsonValue> kNone;
    const JsonValue* value = record_.Find(key);
    if (value == nullptr || !value->is_array()) return Wrong(key, "an array is needed"), kNone;
    return value->values;
  }
  int32_t Narrow(const char* key, int64_t n) {
    if (n >= std::numeric_limits<int32_t>::min() && n <= std::numeric_limits<int32_t>::max()) return static_cast<int32_t>(n);
    Wrong(key, "must fit 32 bits");
    return 0;
  }
  void Wrong(const char* key, const char* rule) {
    if (error_.empty()) error_ = std::string(key) + ": " + rule;
  }
  const std::string& error() const { return error_; }

 private:
  const JsonValue& record_;
  std::string error_;
};

class Reader {
 public:
  Reader(std::string path, std::vector<std::string> lines) : path_(std::move(path)), lines_(std::move(lines)) {}

  Result<Recording> Read(const std::vector<EngineTraceRow>& trace) {
    if (Status s = ReadHello(); !s.ok()) return s.error();
    if (Status s = Announce(trace); !s.ok()) return s.error();
    for (at_ = 1; at_ < lines_.size(); ++at_) {
      const auto record = ParseJson(lines_[at_]);
      if (!record.ok()) return Wrong(record.error().message);
      if (const std::string error = Event(record.value()); !error.empty()) return Wrong(error);
    }
    return std::move(out_);
  }

 private:
  Error Wrong(const std::string& what) const { return Error{path_ + ":" + std::to_string(at_ + 1) + ": " + what}; }

  Status ReadHello() {
    if (lines_.empty()) return Wrong("empty; expected a hello record");
    const auto record = ParseJson(lines_[0]);
    if (!record.ok()) return Wrong(record.error().message);
    Fields f(record.value());
    if (f.String("type") != "hello") return Wrong("expected a hello record first");
    out_.version = f.String("version");
    out_.rules_from = ApplyRulesOfServer(out_.version, out_.config);
    EngineConfig& c = out_.config;
    c.num_gpu_blocks = f.Int32("num_gpu_blocks");
    c.block_size = f.Int32("block_size");
    c.max_num_seqs = f.Int32("max_num_seqs");
    c.max_num_active_seqs = f.Int32("max_num_active_seqs");
    c.max_num_batched_tokens = f.Int32("max_num_batched_tokens");
    c.max_model_len = f.Int("max_model_len");
    c.long_prefill_token_threshold = f.Int32("long_prefill_token_threshold");
    c.long_prefill_adaptive = f.Bool("long_prefill_token_threshold_adaptive");
    c.watermark = f.Double("watermark");
    c.reserve_full_isl = f.Bool("reserve_full_isl");
    c.chunked_prefill = f.Bool("chunked_prefill");
    c.prefix_caching = f.Bool("prefix_caching");
    c.async_scheduling = f.Bool("async_scheduling");
    const std::string policy = f.String("policy");
    if (policy != "fcfs" && policy != "priority") f.Wrong("policy", "must be fcfs or priority");
    c.policy = policy == "priority" ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
    if (!f.error().empty()) return Wrong(f.error());
    return {};
  }

  // What must be known before the first event: every id (ties are broken by it) and which requests an end-of-sequence token
  // or stop token ended - the model's doing, which no scheduler decides.
  Status Announce(const std::vector<EngineTraceRow>& trace) {
    std::vector<std::string> ids;
    for (at_ = 1; at_ < lines_.size(); ++at_) {
      const std::string& line = lines_[at_];
      const bool step = line.find("\"items\"") != std::string::npos;
      if (step && line.find("FINISHED_STOPPED") == std::string::npos) continue;
      const auto record = ParseJson(line);
      if (!record.ok()) return Wrong(record.error().message);
      Fields f(record.value());
      if (step) {
        for (const JsonValue& ended : f.Rows("ended"))
          if (ended.values.size() > 2 && ended.values[1].text == "FINISHED_STOPPED")
            stopped_at_[ended.values[0].text] = ended.values[2].AsInt().value_or(0);
      } else if (f.String("type") == "add") {
        ids.push_back(f.String("id"));
      }
    }
    out_.config.stop_at_eos = !stopped_at_.empty();
    out_.names = TokenNames(std::move(ids));
    for (const EngineTraceRow& row : trace) prompts_.emplace(row.id, PromptOf(row, out_.names, out_.config.block_size));
    return {};
  }

  std::string Event(const JsonValue& record) {
    Fields f(record);
    const std::string type = f.String("type");
    if (!f.error().empty()) return f.error();
    if (type == "snapshot") return "";
    RecordedEvent event;
    event.bytes = static_cast<int64_t>(lines_[at_].size());
    if (type == "add") {
      event.at = f.Time("t");
      event.what = Added(f);
    } else if (type == "free") {
      event.at = f.Time("t");
      RecordedEvent::Aborted aborted;
      for (const JsonValue& row : f.Rows("ended")) aborted.push_back(IdIn(f, "ended", row));
      event.what = std::move(aborted);
    } else if (type == "step") {
      auto step = std::make_shared<ReportedStep>(Step(f));
      if (last_step_ && (step->step <= last_step_->step || step->result < last_step_->result))
        return "seq and t_result must grow from step to step";
      last_step_ = step;
      event.at = step->updated;
      event.what = RecordedEvent::Step(step);
    } else {
      return "type \"" + type + "\": must be add, step, free or snapshot";
    }
    out_.events.push_back(std::move(event));
    return f.error();
  }

  EngineRequest Added(Fields& f) {
    EngineRequest request;
    const std::string id = f.String("id");
    if (const auto known = out_.names.IdOf(id)) request.id = *known;
    request.priority = f.Int32("prio");
    request.arrival_key = f.Double("arrival");
    request.prompt_tokens = f.Int("prompt");
    request.max_tokens = f.Int("max_tokens");
    const auto stopped = stopped_at_.find(id);
    request.output_tokens = stopped == stopped_at_.end() ? request.max_tokens : stopped->second;
    const auto prompt = prompts_.find(id);
    if (prompt != prompts_.end() && PromptTokens(prompt->second) == request.prompt_tokens) {
      request.segments = prompt->second;
    } else {
      request.segments = {{out_.names.ContentOf("p:" + id), TokenCount(request.prompt_tokens)}};
    }
    return request;
  }

  RequestId IdIn(Fields& f, const char* key, const JsonValue& row) {
    const JsonValue* id = row.is_array() && !row.values.empty() ? &row.values[0] : &row;
    const auto known = id->is_string() ? out_.names.IdOf(id->text) : std::nullopt;
    if (!known) f.Wrong(key, "names a request that no add record announces");
    return known.value_or(RequestId());
  }

  int32_t NumberIn(Fields& f, const char* key, const JsonValue& row, size_t index) {
    const auto n = index < row.values.size() ? row.values[index].AsInt() : std::nullopt;
    if (!n) f.Wrong(key, "whole numbers are needed behind the id");
    return f.Narrow(key, n.value_or(0));
  }

  ReportedStep Step(Fields& f) {
    ReportedStep step;
    step.step = static_cast<uint64_t>(f.Int("seq"));
    step.scheduled = f.Time("t_sched0");
    step.result = f.Time("t_result");
    step.updated = f.Time("t_update1");
    for (const JsonValue& row : f.Rows("items"))
      step.items.push_back({IdIn(f, "items", row), NumberIn(f, "items", row, 1), NumberIn(f, "items", row, 2),
                            NumberIn(f, "items", row, 3) != 0});
    for (const char* const key : {"new", "resumed"})
      for (const JsonValue& row : f.Rows(key))
        step.admitted.push_back({IdIn(f, key, row), NumberIn(f, key, row, 1), std::string_view(key) == "resumed"});
    for (const JsonValue& id : f.Rows("preempted")) step.preempted.push_back(IdIn(f, "preempted", id));
    for (const JsonValue& row : f.Rows("ended")) step.finished.push_back(IdIn(f, "ended", row));
    step.after_schedule = {f.Int32("running"), f.Int32("waiting"), f.Int("free_blocks")};
    step.running_after = f.Int32("running_after");
    step.free_blocks_after = f.Int("free_blocks_after");
    return step;
  }

  std::string path_;
  std::vector<std::string> lines_;
  size_t at_ = 0;  // index of the line being read
  Recording out_;
  std::map<std::string, int64_t> stopped_at_;                  // id -> output tokens
  std::map<std::string, std::vector<PromptSegment>> prompts_;  // by id
  std::shared_ptr<const ReportedStep> last_step_;
};

}  // namespace

Result<Recording> ReadRecording(const std::string& steps_path, const std::string& trace_path) {
  const auto trace = ReadEngineTrace(trace_path);
  if (!trace.ok()) return trace.error();
  auto lines = ReadLines(steps_path);
  if (!lines.ok()) return lines.error();
  return Reader(steps_path, std::move(lines).value()).Read(trace.value());
}

}  // namespace foretoken
