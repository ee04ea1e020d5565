#include "integration/dashboard/merge_observations.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/value.hpp>
#include <string_view>

namespace foretoken {
namespace {

namespace json = boost::json;

constexpr size_t kDecisionsMost = 64, kEventsMost = 300;  // as of one node
constexpr uint64_t kEventsOfANode = uint64_t{1} << 40;    // numbers

double Number(const json::object& in, std::string_view key) {
  const json::value* v = in.if_contains(key);
  return v != nullptr && v->is_number() ? v->to_number<double>() : 0;
}
const json::object& Object(const json::object& in, std::string_view key) {
  static const json::object kNone;
  const json::value* v = in.if_contains(key);
  return v != nullptr && v->is_object() ? v->as_object() : kNone;
}
const json::array& Array(const json::object& in, std::string_view key) {
  static const json::array kNone;
  const json::value* v = in.if_contains(key);
  return v != nullptr && v->is_array() ? v->as_array() : kNone;
}

// Numbers add up; whole ones stay whole.
void Sum(const json::object& from, json::object& into) {
  for (const auto& [key, value] : from) {
    if (!value.is_number()) continue;
    json::value& sum = into[key];
    if (sum.is_null()) {
      sum = value;
    } else if (sum.is_double() || value.is_double()) {
      sum = sum.to_number<double>() + value.to_number<double>();
    } else {
      sum = sum.to_number<uint64_t>() + value.to_number<uint64_t>();
    }
  }
}

// `weighted` by `by`, the larger of the others.
json::object MergeFigures(const std::vector<const json::object*>& parts, std::string_view by,
                          const std::vector<std::string_view>& weighted) {
  json::object out;
  double all = 0;
  for (const json::object* p : parts) all += Number(*p, by);
  for (const json::object* p : parts)
    for (const auto& [key, value] : *p) {
      if (!value.is_number() || key == by) continue;
      double& sum = out.emplace(key, 0.0).first->value().as_double();
      const double v = value.to_number<double>(), count = Number(*p, by);
      if (count == 0) continue;
      const bool mean = std::find(weighted.begin(), weighted.end(), std::string_view(key.data(), key.size())) != weighted.end();
      sum = mean ? sum + v * count / all : std::max(sum, v);
    }
  out[json::string_view(by.data(), by.size())] = static_cast<uint64_t>(all);
  return out;
}

json::object MergeWindows(const std::vector<const json::object*>& windows) {
  json::object out;
  double ended = 0, met = 0, seconds = 0;
  for (const json::object* w : windows) {
    json::object counted;
    for (const char* rate : {"arrivals_per_second", "decisions_per_second", "finished_per_second", "output_tokens_per_second"})
      counted[rate] = Number(*w, rate);
    Sum(counted, out);
    ended += Number(*w, "ended");
    met += Number(*w, "ended") * Number(*w, "slo_attainment");
    seconds = std::max(seconds, Number(*w, "seconds"));
  }
  out["seconds"] = seconds;
  out["ended"] = static_cast<uint64_t>(ended);
  out["slo_attainment"] = ended > 0 ? met / ended : 0.0;
  for (const char* spread : {"ttft", "e2e", "tpot", "decision", "ttft_error", "e2e_error"}) {
    const json::object none{{"count", 0}, {"mean", 0.0}, {"p50", 0.0},  {"p90", 0.0},
                            {"p95", 0.0}, {"p99", 0.0},  {"bias", 0.0}, {"below_p90", 0.0}};
    std::vector<const json::object*> parts{&none};
    for (const json::object* w : windows) parts.push_back(&Object(*w, spread));
    out[spread] = MergeFigures(parts, "count", {"mean", "bias", "below_p90"});
  }
  return out;
}

// Who answers for it knows it best; of two that say so, the later term.
bool KnowsBetter(const json::object& a, const json::object& b) {
  const json::value* mine = a.if_contains("mirrored");
  const json::value* other = b.if_contains("mirrored");
  const bool mirrored = mine != nullptr && mine->is_bool() && mine->as_bool();
  const bool mirrored_other = other != nullptr && other->is_bool() && other->as_bool();
  if (mirrored != mirrored_other) return mirrored;
  return Number(a, "term") > Number(b, "term");
}

json::array MergeInstances(const std::vector<NodeObserved>& nodes) {
  std::vector<json::object> best;
  std::vector<double> outstanding;
  for (const NodeObserved& n : nodes)
    for (const json::value& v : Array(n.observed, "instances")) {
      if (!v.is_object() || !v.as_object().contains("instance")) continue;
      const json::object& i = v.as_object();
      const auto same = [&i](const json::object& o) { return o.at("instance") == i.at("instance"); };
      const auto at = static_cast<size_t>(std::find_if(best.begin(), best.end(), same) - best.begin());
      if (at == best.size()) {
        best.push_back(i);
        outstanding.push_back(0);
      } else if (KnowsBetter(i, best[at])) {
        best[at] = i;
      }
      outstanding[at] += Number(i, "outstanding");
    }
  json::array out;
  for (size_t k = 0; k < best.size(); ++k) {
    best[k]["outstanding"] = static_cast<int64_t>(outstanding[k]);
    out.push_back(std::move(best[k]));
  }
  return out;
}

// The latest of all nodes' lists. `numbered`: gives an entry of a node a number that no other node's has.
template <class Renumber>
json::array MergeLists(const std::vector<NodeObserved>& nodes, std::string_view key, size_t most, Renumber renumber) {
  std::vector<json::object> all;
  for (size_t n = 0; n < nodes.size(); ++n)
    for (const json::value& v : Array(nodes[n].observed, key)) {
      if (!v.is_object()) continue;
      all.push_back(v.as_object());
      renumber(n, all.back());
    }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto& a, const auto& b) { return Number(a, "seconds_ago") < Number(b, "seconds_ago"); });
  if (all.size() > most) all.resize(most);
  json::array out;
  for (json::object& o : all) out.push_back(std::move(o));
  return out;
}

// Of the node that decides most: the others have the same topology, and may have no SCHEDULER.
const json::object* Busiest(const std::vector<NodeObserved>& nodes) {
  const json::object* out = nullptr;
  for (const NodeObserved& n : nodes) {
    if (n.observed.empty()) continue;
    if (out == nullptr || Number(Object(n.observed, "totals"), "decided") > Number(Object(*out, "totals"), "decided"))
      out = &n.observed;
  }
  return out;
}

}  // namespace

json::object MergeObservations(const std::string& name, const std::vector<NodeObserved>& nodes, uint64_t number,
                               int64_t unix_ms) {
  json::object out{{"observation", number}, {"unix_ms", unix_ms}};
  json::object scheduler;
  json::object totals{{"arrived", 0u}, {"decided", 0u},   {"finished", 0u}, {"failed", 0u}, {"rejected", 0u},
                      {"shed", 0u},    {"cancelled", 0u}, {"retried", 0u},  {"open", 0u},   {"output_tokens", 0u}};
  std::vector<const json::object*> windows;
  json::array who;
  double uptime = 0;
  uint64_t incomplete = 0;
  for (const NodeObserved& n : nodes) {
    json::object one{{"node", n.node}, {"answers", !n.observed.empty()}};
    if (n.observed.empty()) one["why"] = n.error;
    who.push_back(std::move(one));
    incomplete += n.observed.empty() ? 1 : static_cast<uint64_t>(Number(n.observed, "incomplete"));
    uptime = std::max(uptime, Number(n.observed, "uptime"));
    Sum(Object(n.observed, "totals"), totals);
    Sum(Object(n.observed, "scheduler"), scheduler);
    if (!Object(n.observed, "window").empty()) windows.push_back(&Object(n.observed, "window"));
  }
  const json::object* busiest = Busiest(nodes);
  out["uptime"] = uptime;
  out["system"] = busiest == nullptr ? json::object() : Object(*busiest, "system");
  out["system"].as_object()["host"] = "cluster";
  out["system"].as_object()["name"] = name;
  out["system"].as_object()["faults_switchable"] = false;
  out["nodes"] = std::move(who);
  out["totals"] = std::move(totals);
  out["window"] = MergeWindows(windows);
  out["headroom"] = nullptr;
  if (busiest != nullptr && busiest->contains("headroom")) out["headroom"] = busiest->at("headroom");
  out["scheduler"] = std::move(scheduler);
  out["instances"] = MergeInstances(nodes);
  out["decisions"] = MergeLists(nodes, "decisions", kDecisionsMost, [&nodes](size_t n, json::object& d) {
    const json::value* v = d.if_contains("number");
    if (v != nullptr && v->is_string()) d["number"] = nodes[n].node + "-" + std::string(v->as_string());
  });
  out["events"] = MergeLists(nodes, "events", kEventsMost, [](size_t n, json::object& e) {
    e["number"] = n * kEventsOfANode + static_cast<uint64_t>(Number(e, "number"));
  });
  out["incomplete"] = incomplete;
  return out;
}

}  // namespace foretoken
