#include "integration/cli/explain_verdict.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

namespace foretoken {
namespace {

namespace json = boost::json;

double Number(const json::object& o, const char* key) { return o.at(key).to_number<double>(); }
std::string Text(const json::object& o, const char* key) { return json::value_to<std::string>(o.at(key)); }
double ScoreOr(const json::object& c) {
  return c.contains("score") ? Number(c, "score") : std::numeric_limits<double>::infinity();
}

// The events that count: those of the last decision.
struct Course {
  const json::object* chosen = nullptr;
  const json::object* decided = nullptr;
  const json::object* first_token = nullptr;
  const json::object* finished = nullptr;
};

Course CourseOf(const std::vector<json::object>& events) {
  Course c;
  for (const json::object& e : events) {
    const std::string event = Text(e, "event");
    if (event == "chosen") c.chosen = &e;
    if (event == "decided") c = {c.chosen, &e, nullptr, nullptr};
    if (event == "first_token" && c.first_token == nullptr) c.first_token = &e;
    if (event == "finished") c.finished = &e;
  }
  return c;
}

json::object OtherOf(const json::object& c, const json::object& chosen, const json::object& actual) {
  json::object other{{"instance", c.at("instance")}};
  if (c.contains("score")) other["score"] = c.at("score");
  for (const char* key : {"ttft_ms", "e2e_ms"}) {
    other[key] = c.at(key);
    other[std::string(key) + "_to_chosen"] = Number(c, key) - Number(chosen, key);
    if (actual.contains(key)) other[std::string(key) + "_to_actual"] = Number(c, key) - Number(actual, key);
  }
  return other;
}

}  // namespace

json::object VerdictOf(const std::vector<json::object>& events) {
  const Course course = CourseOf(events);
  if (course.chosen == nullptr || course.decided == nullptr) return {};
  std::vector<const json::object*> predicted;
  const json::object* chosen = nullptr;
  for (const json::value& v : course.chosen->at("candidates").as_array()) {
    const json::object& c = v.as_object();
    if (!c.at("predicted").as_bool()) continue;
    if (c.at("instance") == course.decided->at("instance")) {
      chosen = &c;
    } else {
      predicted.push_back(&c);
    }
  }
  if (chosen == nullptr) return {};
  std::stable_sort(predicted.begin(), predicted.end(), [](auto* a, auto* b) { return ScoreOr(*a) < ScoreOr(*b); });
  const double from = Number(*course.decided, "at_s");
  json::object actual, error, forecast;
  for (const char* key : {"ttft_ms", "ttft_p90_ms", "e2e_ms", "e2e_p90_ms", "age_ms", "age_uncertainty_ms", "state_version"})
    forecast[key] = chosen->at(key);
  for (const auto& [key, event] : {std::pair("ttft_ms", course.first_token), std::pair("e2e_ms", course.finished)}) {
    if (event == nullptr) continue;
    const double ms = 1e3 * (Number(*event, "at_s") - from);
    actual[key] = ms;
    if (ms > 0) error[key == std::string("ttft_ms") ? "ttft" : "e2e"] = Number(*chosen, key) / ms - 1;
  }
  json::array others;
  for (const json::object* c : predicted) others.push_back(OtherOf(*c, *chosen, actual));
  return {{"instance", course.decided->at("instance")},
          {"predicted", std::move(forecast)},
          {"actual", std::move(actual)},
          {"error", std::move(error)},
          {"others", std::move(others)}};
}

void PrintVerdict(const json::object& v) {
  if (v.empty()) return;
  const json::object& p = v.at("predicted").as_object();
  const json::object& a = v.at("actual").as_object();
  const json::object& e = v.at("error").as_object();
  std::printf("on %s, on a state %.0f ms old (+-%.1f, version %.0f):\n", Text(v, "instance").c_str(), Number(p, "age_ms"),
              Number(p, "age_uncertainty_ms"), Number(p, "state_version"));
  for (const auto& [name, key, p90, share] :
       {std::tuple("TTFT", "ttft_ms", "ttft_p90_ms", "ttft"), std::tuple("E2E", "e2e_ms", "e2e_p90_ms", "e2e")}) {
    std::printf("      %-5s predicted %9.1f ms (p90 %9.1f)", name, Number(p, key), Number(p, p90));
    if (a.contains(key)) std::printf(", was %9.1f ms", Number(a, key));
    if (e.contains(share)) std::printf(": off by %+.1f %%", 100 * Number(e, share));
    std::printf("\n");
  }
  if (v.at("others").as_array().empty()) return;
  std::printf("what the others were predicted to give:\n");
  for (const json::value& value : v.at("others").as_array()) {
    const json::object& o = value.as_object();
    std::printf("      %-16s TTFT %9.1f ms (%+.1f), E2E %9.1f ms (%+.1f)", Text(o, "instance").c_str(), Number(o, "ttft_ms"),
                Number(o, "ttft_ms_to_chosen"), Number(o, "e2e_ms"), Number(o, "e2e_ms_to_chosen"));
    if (o.contains("e2e_ms_to_actual")) std::printf("; against what was: E2E %+.1f ms", Number(o, "e2e_ms_to_actual"));
    std::printf("\n");
  }
}

}  // namespace foretoken
