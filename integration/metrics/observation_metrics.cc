#include "integration/metrics/observation_metrics.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "configs/topology.h"
#include "integration/observe/observation_builder.h"

namespace foretoken {
namespace {

void AddFacts(const Observation& o, MetricSet& out) {
  const SystemFacts& f = o.facts;
  out.Gauge(
      "foretoken:system_info", "How this process runs; always 1.", 1,
      {{"host", f.host}, {"name", f.name}, {"policy", f.policy}, {"predictor", f.predictor}, {"sync_level", f.sync_level}});
  out.Gauge("foretoken:uptime_seconds", "Since the first observation.", o.uptime_s);
  out.Gauge("foretoken:observation_timestamp_seconds", "When these figures were taken, as Unix time.",
            static_cast<double>(o.unix_ms) / 1e3);
  out.Gauge("foretoken:slo_ttft_seconds", "Target for the first token.", f.slo.ttft.seconds());
  out.Gauge("foretoken:slo_tpot_seconds", "Target per token after it.", f.slo.tpot.seconds());
  out.Gauge("foretoken:roles_silent", "SCHEDULERs, SIMULATORs and NODEs that did not answer in time.",
            static_cast<double>(o.incomplete));
}

void AddScheduler(const Observation& o, MetricSet& out) {
  const SchedulerCounters& c = o.scheduler;
  out.Counter("foretoken:decisions_total", "Decisions made; those of retries included.", c.decisions);
  const std::pair<const char*, uint64_t> events[] = {{"repick", c.repicks},
                                                     {"late_reply", c.late_replies},
                                                     {"deadline_passed", c.expired_rounds},
                                                     {"unanswered", c.unanswered},
                                                     {"by_ledger", c.by_ledger},
                                                     {"retried", c.retried},
                                                     {"no_candidate", c.rejected_no_candidate},
                                                     {"retries_spent", c.rejected_retries},
                                                     {"shed", c.shed},
                                                     {"unknown_outcome", c.unknown_outcomes},
                                                     {"unusable_candidate", c.unusable},
                                                     {"prefiltered", c.prefiltered},
                                                     {"self_suspected", c.self_suspected}};
  for (const auto& [reason, count] : events)
    out.Counter("foretoken:decision_events_total", "What happened in decisions, by reason.", count, {{"reason", reason}});
  out.Gauge("foretoken:decisions_open", "Decisions that wait for predictions.", static_cast<double>(o.open_rounds));
  out.Gauge("foretoken:requests_queued", "Requests that wait for a place.", static_cast<double>(o.queued));
}

void AddHeadroom(const Observation& o, MetricSet& out) {
  const SloHeadroom& h = o.headroom;
  if (!h.known) return;
  out.Gauge("foretoken:slo_headroom", "1 - instances needed / instances there; negative: too few for the targets.", h.headroom);
  out.Gauge("foretoken:instances_needed", "Instances that the targets need, by recent predictions and arrivals; a fraction.",
            h.instances_needed);
  out.Gauge("foretoken:slo_predicted_missed",
            "Share of requests that misses a target, as predicted or as it came, whichever is more; refused ones included.",
            h.missed);
  out.Gauge("foretoken:slo_hopeless", "Of these: prompts so long that they would miss it on an idle engine.", h.hopeless);
  out.Gauge("foretoken:fleet_load", "Share of the engines' time that requests take beyond the fixed part of steps.", h.load);
  out.Gauge("foretoken:fleet_load_at_target", "The load up to which the targets are planned for.", h.load_at_target);
}

void AddError(MetricSet& out, const char* of, const Spread& e, double bias, double below_p90) {
  if (e.count == 0) return;
  constexpr auto kName = "foretoken:prediction_error";
  constexpr auto kHelp =
      "Predicted against actual, of requests that ended lately: |predicted / actual - 1|, and bias (signed mean).";
  out.Gauge(kName, kHelp, e.mean, {{"of", of}, {"kind", "mean"}});
  out.Gauge(kName, kHelp, e.p50, {{"of", of}, {"kind", "p50"}});
  out.Gauge(kName, kHelp, e.p95, {{"of", of}, {"kind", "p95"}});
  out.Gauge(kName, kHelp, bias, {{"of", of}, {"kind", "bias"}});
  out.Gauge("foretoken:prediction_coverage", "Share of actual values at or below the predicted p90; 0.9 is calibrated.",
            below_p90, {{"of", of}});
}

void AddWindow(const Observation& o, MetricSet& out) {
  const WindowFigures& w = o.window;
  out.Counter("foretoken:requests_judged_total", "Requests that ended, by any outcome but the client's leaving.",
              o.latencies.with_slo);
  out.Counter("foretoken:requests_slo_met_total", "Of these, those that met both targets.", o.latencies.met_slo);
  out.Gauge("foretoken:arrivals_per_second", "Requests that came, over the last seconds.", w.arrivals_per_second);
  if (w.with_slo > 0)
    out.Gauge("foretoken:slo_attainment", "Share of the requests that ended in the last seconds and met both targets.",
              w.slo_attainment);
  AddError(out, "ttft", w.ttft_error, w.ttft_bias, w.ttft_below_p90);
  AddError(out, "e2e", w.e2e_error, w.e2e_bias, w.e2e_below_p90);
}

void AddErrorOf(MetricSet& out, const std::string& engine, const char* of, const ErrorSummary& e) {
  if (e.count == 0) return;
  constexpr auto kName = "foretoken:engine_prediction_error";
  constexpr auto kHelp = "As foretoken:prediction_error, of one engine, over its last few hundred requests.";
  out.Gauge(kName, kHelp, e.p50, {{"engine", engine}, {"of", of}, {"kind", "p50"}});
  out.Gauge(kName, kHelp, e.p95, {{"engine", engine}, {"of", of}, {"kind", "p95"}});
  out.Gauge(kName, kHelp, e.bias, {{"engine", engine}, {"of", of}, {"kind", "bias"}});
}

void AddMirror(const InstanceSeen& i, MetricSet& out) {
  const MirrorView& m = i.mirror;
  const MetricSet::Labels engine = {{"engine", i.name}};
  out.Gauge("foretoken:mirror_age_seconds", "Age of the state that predictions are made on.", m.age.seconds(), engine);
  if (m.heard)
    out.Gauge("foretoken:mirror_unheard_seconds", "Since anything came from the engine.", m.unheard.seconds(), engine);
  for (const Liveness l : {Liveness::kFresh, Liveness::kStale, Liveness::kHung, Liveness::kUnreachable})
    out.Gauge("foretoken:mirror_liveness", "1: what the mirror believes of the engine.", m.liveness == l ? 1 : 0,
              {{"engine", i.name}, {"state", LivenessName(l)}});
  out.Gauge("foretoken:mirror_demoted", "1: a simpler predictor answers than the configured one.",
            m.answers > m.predictor ? 1 : 0, engine);
  out.Counter("foretoken:mirror_demotions_total", "Times that a simpler predictor took over.", m.demotions, engine);
  out.Gauge("foretoken:mirror_drift_requests", "Mean of |believed - reported| requests per step, over the last seconds.",
            i.drift_running, {{"engine", i.name}, {"of", "running"}});
  out.Gauge("foretoken:mirror_drift_requests", "", i.drift_waiting, {{"engine", i.name}, {"of", "waiting"}});
  out.Gauge("foretoken:mirror_step_error", "Believed / actual duration of a step - 1, over the last seconds.", i.step_bias,
            {{"engine", i.name}, {"kind", "bias"}});
  out.Gauge("foretoken:mirror_step_error", "", i.step_ape, {{"engine", i.name}, {"kind", "mean"}});
  out.Counter("foretoken:predictions_total", "Predictions that the mirror gave.", m.counters.predictions, engine);
  out.Counter("foretoken:predictions_stale_total", "Of these, on a state older than stale_after.", m.counters.stale_predictions,
              engine);
  out.Counter("foretoken:assignments_lost_total", "Reservations that the engine never confirmed, or lost.",
              m.counters.lost_assignments, engine);
  out.Counter("foretoken:requests_foreign_total", "Requests there that were not assigned by us.", m.counters.foreign, engine);
  out.Counter("foretoken:sync_messages_total", "Sync messages applied.", m.sync.applied, engine);
  out.Counter("foretoken:sync_bytes_total", "Bytes of sync messages received.", m.counters.stream_bytes, engine);
  const std::pair<const char*, uint64_t> events[] = {
      {"gap", m.sync.gap},         {"reordered", m.sync.reordered},      {"duplicate", m.sync.duplicate},
      {"resync", m.sync.resync},   {"old_epoch", m.sync.old_epoch},      {"overflow", m.sync.overflow},
      {"skipped", m.sync.skipped}, {"epoch_change", m.sync.epoch_change}};
  for (const auto& [kind, count] : events)
    out.Counter("foretoken:sync_events_total", "What was wrong with the sync stream, by kind.", count,
                {{"engine", i.name}, {"kind", kind}});
  AddErrorOf(out, i.name, "ttft", m.ttft);
  AddErrorOf(out, i.name, "e2e", m.e2e);
}

template <class Visit>
size_t ForEachShown(const Observation& o, Visit visit) {
  size_t shown = 0, left_out = 0;
  for (const InstanceSeen& i : o.instances) {
    if (i.gone) continue;
    if (shown == kEnginesMost) {
      ++left_out;
      continue;
    }
    ++shown;
    visit(i);
  }
  return left_out;
}

void AddEngine(const InstanceSeen& i, MetricSet& out) {
  const MetricSet::Labels engine = {{"engine", i.name}};
  const bool takes = i.state == InstanceState::kServing && i.reachable;
  const bool alive = i.state != InstanceState::kDead && i.reachable && !i.fault_down;
  out.Gauge("foretoken:engine_up", "1: alive, as far as is known here.", alive ? 1 : 0, engine);
  out.Gauge("foretoken:engine_serving", "1: takes new requests.", takes ? 1 : 0, engine);
  out.Gauge("foretoken:engine_outstanding", "Requests that this process has there.", i.outstanding, engine);
  if (!i.mirrored) return;
  const MirrorView& m = i.mirror;
  const MetricSet::Labels vllm = {{"model_name", i.model}, {"engine", i.name}};
  out.Gauge("vllm:num_requests_running", "Requests in the engine's running batch, as its mirror has it.", m.running, vllm);
  out.Gauge("vllm:num_requests_waiting", "Requests that wait in the engine, as its mirror has it.", m.waiting, vllm);
  if (m.total_blocks > 0)
    out.Gauge("vllm:kv_cache_usage_perc", "KV cache in use; 1 is all of it.",
              1 - static_cast<double>(m.free_blocks) / static_cast<double>(m.total_blocks), vllm);
}

}  // namespace

void AddObservation(const Observation& o, MetricSet& out) {
  AddFacts(o, out);
  AddScheduler(o, out);
  AddHeadroom(o, out);
  AddWindow(o, out);
  const size_t left_out = ForEachShown(o, [&](const InstanceSeen& i) {
    if (i.mirrored) AddMirror(i, out);
  });
  out.Gauge("foretoken:metrics_engines_left_out", "Engines beyond the most that metrics tell apart.",
            static_cast<double>(left_out));
}

void AddTotals(const Observation& o, MetricSet& out) {
  const RequestTotals& t = o.totals;
  out.Counter("foretoken:requests_total", "Requests that came.", t.arrived);
  out.Counter("foretoken:requests_finished_total", "Answered in full.", t.finished);
  out.Counter("foretoken:requests_failed_total", "No retry was left, or no engine could take it.", t.failed + t.rejected);
  out.Counter("foretoken:requests_cancelled_total", "The client left first.", t.cancelled);
  out.Counter("foretoken:requests_shed_total", "Refused by admission.", t.shed);
  out.Counter("foretoken:retries_total", "Requests sent again to another engine.", t.retried);
  out.Counter("foretoken:output_tokens_total", "Output tokens.", t.output_tokens);
  out.Gauge("foretoken:requests_open", "Requests under way.", static_cast<double>(t.open));
  const RequestLatencies& l = o.latencies;
  out.Histogram("foretoken:time_to_first_token_seconds", "Submission to first output.", l.ttft);
  out.Histogram("foretoken:time_per_output_token_seconds", "Of a request: (end - first output) / (tokens - 1).", l.tpot);
  out.Histogram("foretoken:e2e_request_latency_seconds", "Submission to end.", l.e2e);
  out.Histogram("foretoken:decision_seconds", "Submission to decision.", l.decision);
  ForEachShown(o, [&](const InstanceSeen& i) { AddEngine(i, out); });
}

}  // namespace foretoken
