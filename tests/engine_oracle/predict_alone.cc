// Predictors over the messages of one engine, without the rest of the program. Standard input: one JSON object - `config`, `law`
// (nanoseconds: a step, a prefill token, a decode sequence), `predictors` and `events` in the order in which they come, each an
// arrival (predicted, then assigned) or a step. Standard output: per predictor, [TTFT, E2E] in nanoseconds of every arrival.
#include <boost/json.hpp>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/check.h"
#include "runtime/predict/make_predictor.h"

namespace foretoken {
namespace {

namespace json = boost::json;

int64_t Int(const json::object& o, std::string_view key) { return o.at(key).to_number<int64_t>(); }
bool Bool(const json::object& o, std::string_view key) { return o.at(key).as_bool(); }
Instant At(const json::object& o, std::string_view key) { return Instant::FromNanos(Int(o, key)); }

EngineConfig ConfigOf(const json::object& o) {
  EngineConfig c;
  c.max_num_seqs = static_cast<int32_t>(Int(o, "max_num_seqs"));
  c.max_num_batched_tokens = static_cast<int32_t>(Int(o, "max_num_batched_tokens"));
  c.num_gpu_blocks = static_cast<int32_t>(Int(o, "num_gpu_blocks"));
  c.block_size = static_cast<int32_t>(Int(o, "block_size"));
  c.max_model_len = Int(o, "max_model_len");
  c.prefix_caching = Bool(o, "prefix_caching");
  c.async_scheduling = Bool(o, "async_scheduling");
  c.reserve_full_isl = Bool(o, "reserve_full_isl");
  c.policy = Bool(o, "priority") ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
  c.long_prefill_token_threshold = static_cast<int32_t>(Int(o, "long_prefill_token_threshold"));
  c.long_prefill_adaptive = Bool(o, "long_prefill_adaptive");
  c.lone_long_prefill_full = Bool(o, "lone_long_prefill_full");
  c.max_num_active_seqs = static_cast<int32_t>(Int(o, "max_num_active_seqs"));
  c.self_preempt_continues = Bool(o, "self_preempt_continues");
  c.prefill_schedule_interval = static_cast<int32_t>(Int(o, "prefill_schedule_interval"));
  c.watermark = o.at("watermark").to_number<double>();
  c.stop_at_eos = Bool(o, "stop_at_eos");
  return c;
}

std::vector<PromptSegment> SegmentsOf(const json::array& list) {
  std::vector<PromptSegment> out;
  for (const json::value& v : list) {
    const json::array& pair = v.as_array();
    out.push_back({pair[0].to_number<uint64_t>(), TokenCount(pair[1].to_number<int64_t>())});
  }
  return out;
}

BatchTrace StepOf(const json::object& o) {
  BatchTrace t;
  t.step = static_cast<uint64_t>(Int(o, "step"));
  t.scheduled = At(o, "scheduled");
  t.start = At(o, "start");
  t.duration = At(o, "end") - t.start;
  t.prefill_tokens = static_cast<int32_t>(Int(o, "prefill_tokens"));
  t.prefill_seqs = static_cast<int32_t>(Int(o, "prefill_seqs"));
  t.decode_seqs = static_cast<int32_t>(Int(o, "decode_seqs"));
  t.decode_kv_tokens = Int(o, "decode_kv_tokens");
  const auto ids = [&o](std::string_view key, std::vector<RequestId>& out) {
    for (const json::value& v : o.at(key).as_array()) out.emplace_back(v.to_number<uint64_t>());
  };
  for (const json::value& v : o.at("chunks").as_array()) {
    const json::array& c = v.as_array();
    t.chunks.push_back(
        {RequestId(c[0].to_number<uint64_t>()), c[1].to_number<int32_t>(), c[2].to_number<int32_t>(), c[3].as_bool()});
  }
  for (const json::value& v : o.at("admitted").as_array()) {
    const json::array& a = v.as_array();
    t.admitted.push_back({RequestId(a[0].to_number<uint64_t>()), a[1].to_number<int32_t>(), a[2].as_bool()});
  }
  for (const json::value& v : o.at("finished").as_array()) {
    const json::array& f = v.as_array();
    t.finished.push_back({RequestId(f[0].to_number<uint64_t>()), FinishReason::kStop, f[1].to_number<int32_t>()});
  }
  ids("preempted", t.preempted);
  ids("skipped", t.skipped);
  t.running = static_cast<int32_t>(Int(o, "running"));
  t.waiting = static_cast<int32_t>(Int(o, "waiting"));
  t.free_blocks = Int(o, "free_blocks");
  t.total_blocks = Int(o, "total_blocks");
  return t;
}

PredictorKind KindOf(std::string_view name) {
  if (name == "reference") return PredictorKind::kReference;
  if (name == "timeline") return PredictorKind::kTimeline;
  FT_CHECK(name == "pattern");
  return PredictorKind::kPattern;
}

json::array Answer(const json::object& arrival, Predictor& predictor) {
  RequestMeta meta;
  meta.id = RequestId(static_cast<uint64_t>(Int(arrival, "id")));
  meta.arrival = At(arrival, "at");
  meta.priority = static_cast<int32_t>(Int(arrival, "priority"));
  meta.prompt_tokens = TokenCount(Int(arrival, "prompt"));
  meta.segments = SegmentsOf(arrival.at("segments").as_array());
  PredictQuery query;
  query.request = &meta;
  query.expected_output = TokenCount(Int(arrival, "output"));
  const Prediction p = predictor.Predict(query, meta.arrival);
  Reservation r;
  r.request = r.length.request = meta.id;
  r.priority = meta.priority;
  r.arrival = meta.arrival;
  r.prompt_tokens = meta.prompt_tokens.value();
  r.expected_output = query.expected_output.value();
  r.segments = meta.segments;
  predictor.OnEnqueue(r, meta.arrival);
  predictor.OnArrived(meta.id, meta.arrival);
  return {p.ttft.nanos(), p.e2e.nanos()};
}

json::object Run(const json::object& in) {
  InstanceProfile profile;
  profile.limits = ConfigOf(in.at("config").as_object());
  const json::array& law = in.at("law").as_array();
  const auto ns = [&law](size_t i) { return law[i].to_number<double>(); };
  profile.step_time.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{ns(0), ns(1), ns(2), 0});
  json::object out;
  for (const json::value& name : in.at("predictors").as_array()) {
    auto made = MakePredictor(KindOf(name.as_string()), profile, nullptr);
    FT_CHECK(made.ok());
    json::array answers;
    for (const json::value& event : in.at("events").as_array()) {
      const json::object& e = event.as_object();
      if (e.contains("prompt")) {
        answers.push_back(Answer(e, **made));
      } else {
        (*made)->OnStep(StepOf(e));
      }
    }
    out[name.as_string()] = std::move(answers);
  }
  return out;
}

}  // namespace
}  // namespace foretoken

int main() {
  const std::string text((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  std::cout << boost::json::serialize(foretoken::Run(boost::json::parse(text).as_object())) << "\n";
  return 0;
}
