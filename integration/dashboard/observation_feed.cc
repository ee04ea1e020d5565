#include "integration/dashboard/observation_feed.h"

#include <boost/json.hpp>
#include <utility>

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

bool ObservationFeed::Refresh() {
  auto seen = source_.board->Latest();
  if (seen == nullptr || (latest_ != nullptr && latest_->number == seen->number)) return false;
  latest_ = std::move(seen);
  text_ = frame_ = nullptr;
  AddPoint(*latest_);
  return true;
}

std::shared_ptr<const std::string> ObservationFeed::Text(const json::object& watch) {
  if (text_ != nullptr || latest_ == nullptr) return text_;
  json::object o = JsonOf(*latest_);
  o["source"] = source_.name;
  o["watch"] = watch;
  return text_ = std::make_shared<const std::string>(json::serialize(o));
}

std::shared_ptr<const std::string> ObservationFeed::FrameOf(const json::object& watch) {
  if (frame_ != nullptr || latest_ == nullptr) return frame_;
  return frame_ = std::make_shared<const std::string>(Frame("observation", latest_->number, *Text(watch)));
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

std::string ObservationFeed::Opening(const json::object& watch) {
  std::string data = "{\"points\":[";
  for (const std::string& p : points_) {
    if (data.back() != '[') data += ",";
    data += p;
  }
  data += "]}";
  std::string out = "retry: 1000\n\n" + Frame("course", 0, data);
  if (const auto frame = FrameOf(watch)) out += *frame;
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
