#include "integration/cli/top_view.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdarg>
#include <cstdio>

namespace foretoken {
namespace {

namespace json = boost::json;

constexpr size_t kEventsMost = 5;
constexpr size_t kHeadLines = 4;

std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string Format(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

double Number(const json::object& in, const char* key) {
  const json::value* v = in.if_contains(key);
  return v != nullptr && v->is_number() ? v->to_number<double>() : 0;
}
std::string Word(const json::object& in, const char* key) {
  const json::value* v = in.if_contains(key);
  return v != nullptr && v->is_string() ? std::string(v->as_string()) : "";
}
const json::object& Object(const json::object& in, const char* key) {
  static const json::object kNone;
  const json::value* v = in.if_contains(key);
  return v != nullptr && v->is_object() ? v->as_object() : kNone;
}
const json::array& Array(const json::object& in, const char* key) {
  static const json::array kNone;
  const json::value* v = in.if_contains(key);
  return v != nullptr && v->is_array() ? v->as_array() : kNone;
}

std::string Bar(double share) {
  constexpr int kCells = 10;
  const int full = std::clamp(static_cast<int>(share * kCells + 0.5), 0, kCells);
  return "[" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(kCells - full), '.') + "]";
}

void AddHead(const json::object& o, std::vector<TopLine>& out) {
  const json::object& system = Object(o, "system");
  const json::object& w = Object(o, "window");
  const json::object& headroom = Object(o, "headroom");
  out.push_back(
      {Format("%s  policy %s, predictor %s, sync %s, up %.0f s", Word(system, "name").c_str(), Word(system, "policy").c_str(),
              Word(system, "predictor").c_str(), Word(system, "sync_level").c_str(), Number(o, "uptime")),
       TopTone::kTitle});
  std::string line = Format("%.1f requests/s, %.0f tokens/s, %.0f open", Number(w, "arrivals_per_second"),
                            Number(w, "output_tokens_per_second"), Number(Object(o, "totals"), "open"));
  TopTone tone = TopTone::kPlain;
  if (Number(w, "ended") > 0) line += Format(", targets met by %.0f %%", 100 * Number(w, "slo_attainment"));
  if (!headroom.empty()) {
    line += Format(", needs %.1f instances (headroom %.0f %%)", Number(headroom, "instances_needed"),
                   100 * Number(headroom, "headroom"));
    if (Number(headroom, "headroom") < 0) tone = TopTone::kTrouble;
  }
  out.push_back({std::move(line), tone});
  const json::object& ttft = Object(w, "ttft");
  const json::object& e2e = Object(w, "e2e");
  out.push_back({Format("TTFT p50 %.0f p95 %.0f p99 %.0f ms; E2E p50 %.2f p95 %.2f s; decision p99 %.0f us",
                        1e3 * Number(ttft, "p50"), 1e3 * Number(ttft, "p95"), 1e3 * Number(ttft, "p99"), Number(e2e, "p50"),
                        Number(e2e, "p95"), 1e6 * Number(Object(w, "decision"), "p99"))});
  const json::object& te = Object(w, "ttft_error");
  const json::object& ee = Object(w, "e2e_error");
  out.push_back({Format("predicted against actual: TTFT p50 %.0f %% off, bias %+.0f %%; E2E p50 %.0f %% off, bias %+.0f %%",
                        100 * Number(te, "p50"), 100 * Number(te, "bias"), 100 * Number(ee, "p50"), 100 * Number(ee, "bias"))});
}

TopLine EngineLine(const json::object& i) {
  std::string why;
  TopTone tone = TopTone::kPlain;
  const auto tell = [&](const std::string& what, TopTone t) {
    why += why.empty() ? what : ", " + what;
    tone = std::max(tone, t);
  };
  const std::string state = Word(i, "state");
  const std::string liveness = Word(i, "liveness");
  const json::value* reachable = i.if_contains("reachable");
  if (state != "serving") tell(state, state == "dead" ? TopTone::kTrouble : TopTone::kNotice);
  if (reachable != nullptr && reachable->is_bool() && !reachable->as_bool()) tell("not reachable", TopTone::kTrouble);
  if (liveness == "stale") tell(liveness, TopTone::kNotice);
  if (liveness == "hung" || liveness == "unreachable") tell(liveness, TopTone::kTrouble);
  const json::object& drift = Object(i, "drift");
  if (Number(drift, "running") > 1) tell("drifts", TopTone::kTrouble);
  if (Word(i, "answers") != Word(i, "predictor")) tell("by " + Word(i, "answers"), TopTone::kNotice);
  if (i.contains("faults")) tell("faults on", TopTone::kNotice);
  const char* mark = tone == TopTone::kTrouble ? "!!" : tone == TopTone::kNotice ? "! " : "  ";
  std::string line = Format("%s %-20.20s ", mark, Word(i, "instance").c_str());
  if (i.contains("running"))
    line += Format("%5.0f %5.0f %s %3.0f%% %7.0f %6.2f %+6.0f%% %5.0f%%", Number(i, "running"), Number(i, "waiting"),
                   Bar(Number(i, "kv_use")).c_str(), 100 * Number(i, "kv_use"), 1e3 * Number(i, "age"),
                   Number(drift, "running"), 100 * Number(drift, "step_bias"), 100 * Number(Object(i, "ttft_error"), "p50"));
  else
    line += Format("%5.0f outstanding; mirrored elsewhere: %s", Number(i, "outstanding"), Word(i, "simulator_on").c_str());
  return {line + (why.empty() ? "" : "  " + why), tone};
}

void AddEngines(const json::object& o, size_t most, std::vector<TopLine>& out) {
  out.push_back({Format("   %-20s %5s %5s %-12s %4s %7s %6s %7s %6s", "engine", "run", "wait", "KV", "", "age ms", "drift",
                        "step", "TTFT"),
                 TopTone::kTitle});
  std::vector<TopLine> engines;
  for (const json::value& i : Array(o, "instances"))
    if (i.is_object()) engines.push_back(EngineLine(i.as_object()));
  if (engines.size() > most) {
    std::stable_sort(engines.begin(), engines.end(), [](const TopLine& a, const TopLine& b) { return a.tone > b.tone; });
    const size_t left_out = engines.size() - (most - 1);
    engines.resize(most - 1);
    engines.push_back({Format("   and %zu more", left_out)});
  }
  out.insert(out.end(), engines.begin(), engines.end());
}

}  // namespace

std::vector<TopLine> TopOf(const json::object& o, size_t lines_most) {
  std::vector<TopLine> out;
  AddHead(o, out);
  const json::array& events = Array(o, "events");
  const size_t told = std::min(events.size(), kEventsMost);
  const size_t others = kHeadLines + 1 + (told > 0 ? told + 1 : 0);
  AddEngines(o, lines_most > others + 2 ? lines_most - others : 2, out);
  if (told > 0) out.push_back({"   what happened lately", TopTone::kTitle});
  for (size_t k = 0; k < told; ++k) {
    const json::object& e = events[k].as_object();
    const std::string detail = Word(e, "detail");
    out.push_back({Format("   %5.0f s ago  %-20.20s %s%s, %.0f", Number(e, "seconds_ago"), Word(e, "instance").c_str(),
                          Word(e, "kind").c_str(), detail.empty() ? "" : (" " + detail).c_str(), Number(e, "count"))});
  }
  if (out.size() > lines_most) out.resize(lines_most);
  return out;
}

}  // namespace foretoken
