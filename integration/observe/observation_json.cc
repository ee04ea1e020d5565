#include "integration/observe/observation_json.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <string>

#include "configs/topology.h"
#include "integration/observe/observation_builder.h"

namespace foretoken {
namespace {

namespace json = boost::json;

json::object Describe(const Spread& s) {
  return {{"count", s.count}, {"mean", s.mean}, {"p50", s.p50}, {"p90", s.p90}, {"p95", s.p95}, {"p99", s.p99}};
}

json::object Describe(const WindowFigures& w) {
  json::object ttft_error = Describe(w.ttft_error), e2e_error = Describe(w.e2e_error);
  ttft_error["bias"] = w.ttft_bias;
  ttft_error["below_p90"] = w.ttft_below_p90;
  e2e_error["bias"] = w.e2e_bias;
  e2e_error["below_p90"] = w.e2e_below_p90;
  return {{"seconds", w.window.seconds()},
          {"arrivals_per_second", w.arrivals_per_second},
          {"decisions_per_second", w.decisions_per_second},
          {"finished_per_second", w.finished_per_second},
          {"output_tokens_per_second", w.output_tokens_per_second},
          {"ended", w.with_slo},
          {"slo_attainment", w.slo_attainment},
          {"ttft", Describe(w.ttft)},
          {"e2e", Describe(w.e2e)},
          {"tpot", Describe(w.tpot)},
          {"decision", Describe(w.decision)},
          {"ttft_error", std::move(ttft_error)},
          {"e2e_error", std::move(e2e_error)}};
}

// Null: too little was predicted to say anything.
json::value Describe(const SloHeadroom& h) {
  if (!h.known) return nullptr;
  return json::object{{"load", h.load},         {"load_at_target", h.load_at_target},     {"missed", h.missed},
                      {"hopeless", h.hopeless}, {"instances_needed", h.instances_needed}, {"headroom", h.headroom}};
}

json::object Describe(const RequestTotals& t) {
  return {{"arrived", t.arrived},     {"decided", t.decided},
          {"finished", t.finished},   {"failed", t.failed},
          {"rejected", t.rejected},   {"shed", t.shed},
          {"cancelled", t.cancelled}, {"retried", t.retried},
          {"open", t.open},           {"output_tokens", t.output_tokens}};
}

json::object DescribeScheduler(const Observation& o) {
  const SchedulerCounters& c = o.scheduler;
  return {{"schedulers", o.schedulers},
          {"decisions", c.decisions},
          {"repicks", c.repicks},
          {"late_replies", c.late_replies},
          {"expired_rounds", c.expired_rounds},
          {"unanswered", c.unanswered},
          {"by_ledger", c.by_ledger},
          {"retried", c.retried},
          {"rejected_no_candidate", c.rejected_no_candidate},
          {"rejected_retries", c.rejected_retries},
          {"shed", c.shed},
          {"unknown_outcomes", c.unknown_outcomes},
          {"unusable", c.unusable},
          {"prefiltered", c.prefiltered},
          {"self_suspected", c.self_suspected},
          {"open_rounds", o.open_rounds},
          {"queued", o.queued}};
}

json::object Describe(const ErrorSummary& e) {
  return {{"count", e.count},         {"bias", e.bias},          {"p50", e.p50}, {"p95", e.p95}, {"p99", e.p99},
          {"below_p50", e.below_p50}, {"below_p90", e.below_p90}};
}

json::object Describe(const SequencerCounters& c) {
  return {{"applied", c.applied},
          {"reordered", c.reordered},
          {"duplicate", c.duplicate},
          {"old_epoch", c.old_epoch},
          {"gap", c.gap},
          {"resync", c.resync},
          {"overflow", c.overflow},
          {"superseded", c.superseded},
          {"skipped", c.skipped},
          {"epoch_change", c.epoch_change}};
}

void AddMirror(const InstanceSeen& i, json::object& out) {
  const MirrorView& m = i.mirror;
  out["liveness"] = LivenessName(m.liveness);
  out["epoch"] = m.epoch.value();
  out["state_version"] = m.versions.state;
  out["running"] = m.running;
  out["waiting"] = m.waiting;
  out["unconfirmed"] = m.unconfirmed;
  out["assigned"] = m.assigned;
  out["kv_blocks"] = m.total_blocks;
  out["kv_free_blocks"] = m.free_blocks;
  out["kv_use"] = m.total_blocks > 0 ? 1 - static_cast<double>(m.free_blocks) / static_cast<double>(m.total_blocks) : 0.0;
  out["age"] = m.age.seconds();
  if (m.heard) out["unheard"] = m.unheard.seconds();
  out["predictor"] = NameOf(m.predictor);
  out["answers"] = NameOf(m.answers);
  out["demotions"] = m.demotions;
  out["ttft_error"] = Describe(m.ttft);
  out["e2e_error"] = Describe(m.e2e);
  out["sync"] = Describe(m.sync);
  out["predictions"] = m.counters.predictions;
  out["stale_predictions"] = m.counters.stale_predictions;
  out["overtaken"] = m.counters.overtaken;
  out["foreign"] = m.counters.foreign;
  out["lost_assignments"] = m.counters.lost_assignments;
  out["stream_bytes"] = m.counters.stream_bytes;
  out["steps_per_second"] = i.steps_per_second;
  out["drift"] = json::object{
      {"running", i.drift_running}, {"waiting", i.drift_waiting}, {"step_bias", i.step_bias}, {"step_ape", i.step_ape}};
}

json::object Describe(const InstanceSeen& i) {
  json::object out{{"instance", i.name},       {"kind", i.kind},         {"state", InstanceStateName(i.state)},
                   {"reachable", i.reachable}, {"mirrored", i.mirrored}, {"outstanding", i.outstanding}};
  if (!i.model.empty()) out["model"] = i.model;
  if (!i.owner.empty()) out["simulator_on"] = i.owner;
  if (i.term > 0) out["term"] = i.term;
  if (i.mirrored) AddMirror(i, out);
  if (i.fault_delay > Duration() || i.fault_reorder > 0 || i.fault_drop > 0 || i.fault_down)
    out["faults"] = json::object{
        {"delay", i.fault_delay.seconds()}, {"reorder", i.fault_reorder}, {"drop", i.fault_drop}, {"down", i.fault_down}};
  return out;
}

json::value ScoreOrNull(double score) { return std::isfinite(score) ? json::value(score) : json::value(nullptr); }

json::object Describe(const CandidateSeen& c, const Observation& o) {
  json::object out{
      {"instance", o.instances[c.instance.value()].name}, {"requests", c.requests}, {"score", ScoreOrNull(c.score)}};
  if (!c.predicted) return out;
  out["ttft"] = c.ttft.seconds();
  out["ttft_p90"] = c.ttft_p90.seconds();
  out["e2e"] = c.e2e.seconds();
  out["e2e_p90"] = c.e2e_p90.seconds();
  out["age"] = c.age.seconds();
  out["slo_violation"] = c.slo_violation;
  out["predictor"] = NameOf(c.predictor);
  out["state_version"] = c.state_version;
  if (c.stale) out["stale"] = true;
  return out;
}

std::string_view OutcomeName(OutcomeKind kind) {
  switch (kind) {
    case OutcomeKind::kFinished: return "finished";
    case OutcomeKind::kRejected: return "rejected";
    case OutcomeKind::kCancelled: return "cancelled";
    case OutcomeKind::kFailed: return "failed";
    case OutcomeKind::kLost: return "open";
  }
  return "";
}

// Times of what happened are from the decision on, as predictions are.
json::object Describe(const DecisionSeen& d, const Observation& o, size_t candidates_most) {
  json::object out{{"number", std::to_string(d.scheduler) + "-" + std::to_string(d.number)},
                   {"request", d.request.value()},
                   {"instance", o.instances[d.instance.value()].name},
                   {"seconds_ago", (o.at - d.decided).seconds()},
                   {"decision_us", static_cast<double>((d.decided - d.submitted).nanos()) / 1e3},
                   {"prompt_tokens", d.prompt_tokens},
                   {"attempt", d.attempt},
                   {"repicked", d.repicked},
                   {"score", ScoreOrNull(d.score)},
                   {"outcome", OutcomeName(d.outcome)}};
  if (d.predicted)
    out["predicted"] = json::object{{"ttft", d.prediction.ttft.seconds()}, {"ttft_p90", d.prediction.ttft_p90.seconds()},
                                    {"e2e", d.prediction.e2e.seconds()},   {"e2e_p90", d.prediction.e2e_p90.seconds()},
                                    {"age", d.prediction.age.seconds()},   {"predictor", NameOf(d.prediction.predictor)}};
  json::object actual;
  if (d.first_token != Instant::Max()) actual["ttft"] = (d.first_token - d.decided).seconds();
  if (d.ended != Instant::Max()) {
    actual["e2e"] = (d.ended - d.decided).seconds();
    actual["output_tokens"] = d.output_tokens;
  }
  out["actual"] = std::move(actual);
  out["candidates_total"] = d.candidates->size();
  json::array candidates;
  const size_t shown = std::min(candidates_most, d.candidates->size());
  for (size_t i = 0; i < shown; ++i) candidates.push_back(Describe((*d.candidates)[i], o));
  out["candidates"] = std::move(candidates);
  return out;
}

}  // namespace

json::object JsonOf(const Observation& o, size_t candidates_most) {
  json::array instances, decisions, events;
  for (const InstanceSeen& i : o.instances)
    if (!i.gone) instances.push_back(Describe(i));
  for (const DecisionSeen& d : o.decisions) decisions.push_back(Describe(d, o, candidates_most));
  for (const SyncEvent& e : o.events) {
    json::object event{{"number", e.number},
                       {"seconds_ago", (o.at - e.at).seconds()},
                       {"instance", o.instances[e.instance.value()].name},
                       {"kind", SyncEventName(e.kind)},
                       {"count", e.count}};
    if (!e.detail.empty()) event["detail"] = e.detail;
    events.push_back(std::move(event));
  }
  return {{"observation", o.number},
          {"unix_ms", o.unix_ms},
          {"uptime", o.uptime_s},
          {"system", json::object{{"host", o.facts.host},
                                  {"name", o.facts.name},
                                  {"policy", o.facts.policy},
                                  {"predictor", o.facts.predictor},
                                  {"sync_level", o.facts.sync_level},
                                  {"slo_ttft", o.facts.slo.ttft.seconds()},
                                  {"slo_tpot", o.facts.slo.tpot.seconds()},
                                  {"faults_switchable", o.facts.faults_switchable}}},
          {"totals", Describe(o.totals)},
          {"window", Describe(o.window)},
          {"headroom", Describe(o.headroom)},
          {"scheduler", DescribeScheduler(o)},
          {"instances", std::move(instances)},
          {"decisions", std::move(decisions)},
          {"events", std::move(events)},
          {"incomplete", o.incomplete}};
}

}  // namespace foretoken
