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

CoursePoint PointOf(const WindowFigures& w) {
  return {w.ttft.p50,
          w.ttft.p95,
          w.e2e.p50,
          w.e2e.p95,
          w.arrivals_per_second,
          w.finished_per_second,
          w.output_tokens_per_second,
          w.ttft_bias,
          w.e2e_bias,
          w.ttft_error.p50,
          w.decision.p99};
}

CoursePoint PointOf(const json::object& w) {
  const auto number = [&w](const char* key) { return w.at(key).to_number<double>(); };
  const auto of = [&w](const char* what, const char* key) {
    const json::value* v = w.at(what).as_object().if_contains(key);  // absent: no node has a SCHEDULER that is watched
    return v == nullptr ? 0.0 : v->to_number<double>();
  };
  return {of("ttft", "p50"),
          of("ttft", "p95"),
          of("e2e", "p50"),
          of("e2e", "p95"),
          number("arrivals_per_second"),
          number("finished_per_second"),
          number("output_tokens_per_second"),
          of("ttft_error", "bias"),
          of("e2e_error", "bias"),
          of("ttft_error", "p50"),
          of("decision", "p99")};
}

}  // namespace

bool ObservationFeed::Refresh() {
  if (source_.remote) {
    auto seen = source_.remote();
    if (seen == nullptr || seen == remote_) return false;
    remote_ = std::move(seen);
    AddPoint(remote_->at("unix_ms").to_number<int64_t>(), PointOf(remote_->at("window").as_object()));
  } else {
    auto seen = source_.board->Latest();
    if (seen == nullptr || (latest_ != nullptr && latest_->number == seen->number)) return false;
    latest_ = std::move(seen);
    AddPoint(latest_->unix_ms, PointOf(latest_->window));
  }
  text_ = frame_ = nullptr;
  return true;
}

std::shared_ptr<const std::string> ObservationFeed::Text(const json::object& watch) {
  if (text_ != nullptr || (latest_ == nullptr && remote_ == nullptr)) return text_;
  json::object o = remote_ != nullptr ? *remote_ : JsonOf(*latest_);
  o["source"] = source_.name;
  o["watch"] = watch;
  return text_ = std::make_shared<const std::string>(json::serialize(o));
}

std::shared_ptr<const std::string> ObservationFeed::FrameOf(const json::object& watch) {
  if (frame_ != nullptr || (latest_ == nullptr && remote_ == nullptr)) return frame_;
  const uint64_t number = remote_ != nullptr ? remote_->at("observation").to_number<uint64_t>() : latest_->number;
  return frame_ = std::make_shared<const std::string>(Frame("observation", number, *Text(watch)));
}

void ObservationFeed::AddPoint(int64_t unix_ms, const CoursePoint& point) {
  if (unix_ms - last_point_ms_ < kPointEveryMs) return;
  last_point_ms_ = unix_ms;
  json::array p{unix_ms};
  for (const double v : point) p.push_back(v);
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
  if (remote_ != nullptr) {
    for (const json::value& d : remote_->at("decisions").as_array())
      if (d.at("number").as_string() == json::string_view(number.data(), number.size())) return json::serialize(d);
    return {};
  }
  if (latest_ == nullptr) return {};
  Observation one = *latest_;
  std::erase_if(one.decisions,
                [&](const DecisionSeen& d) { return std::to_string(d.scheduler) + "-" + std::to_string(d.number) != number; });
  if (one.decisions.empty()) return {};
  const json::object o = JsonOf(one, SIZE_MAX);
  return json::serialize(o.at("decisions").as_array().front());
}

}  // namespace foretoken
