#include "integration/accuracy/measured_run.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <limits>
#include <optional>

#include "integration/tables/csv.h"

namespace foretoken::accuracy {
namespace {

namespace json = boost::json;

// One line of requests.jsonl, seconds.
struct Record {
  MeasuredRequest request;
  double arrival_wall = 0, queued = 0, first = 0, last = 0;
};

std::optional<double> Number(const json::object& o, const char* key) {
  const json::value* v = o.if_contains(key);
  if (v == nullptr || !v->is_number()) return std::nullopt;
  const double x = v->to_number<double>();
  return std::isfinite(x) ? std::optional<double>(x) : std::nullopt;
}

Result<Record> ReadRecord(std::string_view line, const std::string& where) {
  json::error_code ec;
  const json::value value = json::parse(json::string_view(line.data(), line.size()), ec);
  if (ec || !value.is_object()) return Error{where + ":1: not a JSON object"};
  const json::object& o = value.as_object();
  Record r;
  double prompt = 0, output = 0;
  for (const auto& [key, target] : {std::pair<const char*, double*>{"input_toks", &prompt},
                                    {"output_toks", &output},
                                    {"arrival_time", &r.arrival_wall},
                                    {"queued_ts", &r.queued},
                                    {"first_token_ts", &r.first},
                                    {"last_token_ts", &r.last}}) {
    const std::optional<double> x = Number(o, key);
    if (!x) return Error{where + ":1: key '" + key + "' is missing or not a number"};
    *target = *x;
  }
  if (prompt < 1 || output < 1) return Error{where + ":1: input_toks and output_toks must be >= 1"};
  if (r.last < r.first) return Error{where + ":1: last_token_ts before first_token_ts"};
  r.request.prompt_tokens = static_cast<int64_t>(prompt);
  r.request.output_tokens = static_cast<int64_t>(output);
  if (const json::value* id = o.if_contains("request_id"); id != nullptr && id->is_string())
    r.request.id = id->as_string().c_str();
  return r;
}

Result<std::vector<MeasuredRequest>> ReadRequests(const std::string& path) {
  const Result<std::string> text = tables::ReadTextFile(path);
  if (!text.ok()) return text.error();
  std::vector<Record> records;
  size_t line_number = 0;
  for (size_t pos = 0; pos < text->size();) {
    const size_t end = std::min(text->find('\n', pos), text->size());
    const std::string_view line = std::string_view(*text).substr(pos, end - pos);
    pos = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Result<Record> r = ReadRecord(line, path + ":" + std::to_string(line_number));
    if (!r.ok()) return r.error();
    records.push_back(std::move(*r));
  }
  if (records.empty()) return Error{path + ":1:1: no requests"};
  double offset = std::numeric_limits<double>::infinity(), start = std::numeric_limits<double>::infinity();
  for (const Record& r : records) offset = std::min(offset, r.queued - r.arrival_wall);
  for (const Record& r : records) start = std::min(start, r.arrival_wall + offset);
  std::vector<MeasuredRequest> out;
  for (Record& r : records) {
    const double arrival = r.arrival_wall + offset;
    r.request.arrival = Instant() + Duration::FromSeconds(arrival - start);
    r.request.ttft = Duration::FromSeconds(r.first - arrival);
    r.request.e2e = Duration::FromSeconds(r.last - arrival);
    if (r.request.ttft.nanos() <= 0)
      return Error{path + ":1:1: request " + r.request.id + " has its first token before it arrives"};
    out.push_back(std::move(r.request));
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.arrival < b.arrival; });
  return out;
}

// Looks keys up in the sections of meta.json, most resolved first, and notes what is not there.
class Meta {
 public:
  Meta(const json::object& root, std::vector<std::string>& assumptions) : assumptions_(assumptions) {
    Section(root, {"resolved_config", "scheduler_config"});
    Section(root, {"resolved_config", "cache_config"});
    Section(root, {"resolved_config", "model_config"});
    Section(root, {"kv_cache"});
    Section(root, {"engine_kwargs"});
  }

  const json::value* Find(const char* key) const {
    for (const json::object* s : sections_) {
      const json::value* v = s->if_contains(key);
      if (v != nullptr && !v->is_null()) return v;
    }
    return nullptr;
  }

  template <class T>
  void Whole(const char* key, T& target) {
    const json::value* v = Find(key);
    if (v != nullptr && v->is_int64() && v->as_int64() >= 0) {
      target = static_cast<T>(v->as_int64());
    } else {
      assumptions_.push_back(std::string(key) + " = " + std::to_string(target));
    }
  }
  void Flag(const char* key, bool& target) {
    const json::value* v = Find(key);
    if (v != nullptr && v->is_bool()) {
      target = v->as_bool();
    } else {
      assumptions_.push_back(std::string(key) + " = " + (target ? "true" : "false"));
    }
  }

 private:
  void Section(const json::object& root, std::initializer_list<const char*> path) {
    const json::object* at = &root;
    for (const char* key : path) {
      const json::value* v = at->if_contains(key);
      if (v == nullptr || !v->is_object()) return;
      at = &v->as_object();
    }
    sections_.push_back(at);
  }
  std::vector<const json::object*> sections_;
  std::vector<std::string>& assumptions_;
};

// "0.19.0" is known as "0.19".
void SetVersion(const json::object& root, MeasuredRun& run) {
  std::string version = "0.19";
  const json::value* v = root.if_contains("vllm_version");
  if (v != nullptr && v->is_string()) {
    const std::string given = v->as_string().c_str();
    const std::string minor = given.substr(0, given.find('.', given.find('.') == std::string::npos ? 0 : given.find('.') + 1));
    if (ApplyVllmVersion(minor, run.config).ok()) return;
    run.assumptions.push_back("vllm_version " + given + " is not known: the rules of " + version);
  } else {
    run.assumptions.push_back("vllm_version = " + version);
  }
  (void)ApplyVllmVersion(version, run.config);
}

Status ReadConfig(const std::string& path, int64_t kv_blocks, MeasuredRun& run) {
  const Result<std::string> text = tables::ReadTextFile(path);
  if (!text.ok()) return text.error();
  json::error_code ec;
  const json::value value = json::parse(*text, ec);
  if (ec || !value.is_object()) return Error{path + ":1:1: not a JSON object (" + ec.message() + ")"};
  SetVersion(value.as_object(), run);
  Meta meta(value.as_object(), run.assumptions);
  EngineConfig& c = run.config;
  c.block_size = 16;
  c.prefix_caching = c.chunked_prefill = c.async_scheduling = c.reserve_full_isl = true;
  c.max_num_seqs = 256;  // `vllm serve` on anything but an H100-class card
  c.max_num_batched_tokens = 2048;
  c.max_model_len = 131072;
  meta.Whole("block_size", c.block_size);
  meta.Whole("max_num_seqs", c.max_num_seqs);
  meta.Whole("max_num_batched_tokens", c.max_num_batched_tokens);
  meta.Whole("max_model_len", c.max_model_len);
  meta.Flag("enable_prefix_caching", c.prefix_caching);
  meta.Flag("enable_chunked_prefill", c.chunked_prefill);
  meta.Flag("async_scheduling", c.async_scheduling);
  meta.Flag("scheduler_reserve_full_isl", c.reserve_full_isl);
  if (c.block_size < 1) return Error{path + ":1:1: block_size must be >= 1"};
  int64_t all = 1;  // the null block
  for (const MeasuredRequest& r : run.requests)
    all += BlocksFor(TokenCount(r.prompt_tokens + r.output_tokens), TokenCount(c.block_size)).value();
  c.num_gpu_blocks = static_cast<int32_t>(std::min<int64_t>(all, std::numeric_limits<int32_t>::max()));
  if (kv_blocks > 0) {
    c.num_gpu_blocks = static_cast<int32_t>(kv_blocks);
  } else if (const json::value* v = meta.Find("num_gpu_blocks"); v != nullptr && v->is_int64() && v->as_int64() > 0) {
    c.num_gpu_blocks = static_cast<int32_t>(v->as_int64());
  } else {
    run.assumptions.push_back("num_gpu_blocks = " + std::to_string(all) +
                              ": ample, all requests fit at once (--kv-blocks sets it)");
  }
  run.assumptions.push_back("prompts share no prefix: the run does not say what they contain");
  return {};
}

}  // namespace

Result<MeasuredRun> ReadMeasuredRun(const std::string& directory, int64_t kv_blocks) {
  MeasuredRun run;
  Result<std::vector<MeasuredRequest>> requests = ReadRequests(directory + "/requests.jsonl");
  if (!requests.ok()) return requests.error();
  run.requests = std::move(*requests);
  if (Status s = ReadConfig(directory + "/meta.json", kv_blocks, run); !s.ok()) return s.error();
  return run;
}

}  // namespace foretoken::accuracy
