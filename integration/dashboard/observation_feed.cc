#include "integration/dashboard/observation_feed.h"

#include <boost/json.hpp>

#include "integration/observe/observation_json.h"

namespace foretoken {
namespace {

namespace json = boost::json;

constexpr int64_t kPointEveryMs = 1000;

std::string Frame(std::string_view event, uint64_t id, std::string_view data) {
  std::string out = "event: ";
  out.append(event).append("\nid: ").append(std::to_string(id)).append("\ndata: ").append(data).append("\n\n");
  return out;
}

}  // namespace

bool ObservationFeed::Refresh(const json::object& watch) {
  const auto seen = source_.board->Latest();
  if (seen == nullptr || (latest_ != nullptr && latest_->number == seen->number)) return false;
  latest_ = seen;
  json::object o = JsonOf(*seen);
  o["source"] = source_.name;
  o["watch"] = watch;
  text_ = std::make_shared<const std::string>(json::serialize(o));
  frame_ = std::make_shared<const std::string>(Frame("observation", seen->number, *text_));
  AddPoint(*seen);
  return true;
}

// [unix_ms, ttft p50, p95, e2e p50, p95, arrivals/s, finished/s, output tokens/s, ttft bias, e2e bias, ttft |error| p50, decision p99]
void ObservationFeed::AddPoint(const Observation& o) {
  if (o.unix_ms - last_point_ms_ < kPointEveryMs) return;
  last_point_ms_ = o.unix_ms;
  const WindowFigures& w = o.window;
  json::array p{o.unix_ms};
  for (const double v : {w.ttft.p50, w.ttft.p95, w.e2e.p50, w.e2e.p95, w.arrivals_per_second, w.finished_per_second,
                         w.output_tokens_per_second, w.ttft_bias, w.e2e_bias, w.ttft_error.p50, w.decision.p99})
    p.push_back(v);
  points_.push_back(json::serialize(p));
  if (points_.size() > kPointsMost) points_.pop_front();
}

std::string ObservationFeed::Opening() const {
  std::string data = "{\"points\":[";
  for (const std::string& p : points_) {
    if (data.back() != '[') data += ",";
    data += p;
  }
  data += "]}";
  std::string out = "retry: 1000\n\n" + Frame("course", 0, data);
  if (frame_ != nullptr) out += *frame_;
  return out;
}

std::string ObservationFeed::Decision(std::string_view number) const {
  if (latest_ == nullptr) return {};
  Observation one = *latest_;
  std::erase_if(one.decisions,
                [&](const DecisionSeen& d) { return std::to_string(d.scheduler) + "-" + std::to_string(d.number) != number; });
  if (one.decisions.empty()) return {};
  const json::object o = JsonOf(one, SIZE_MAX);
  return json::serialize(o.at("decisions").as_array().front());
}

}  // namespace foretoken
