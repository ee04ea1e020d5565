#include "integration/gateway/gateway_metrics.h"

#include <algorithm>

#include "integration/gateway/gateway.h"
#include "integration/metrics/metric_set.h"
#include "integration/metrics/observation_metrics.h"
#include "integration/observe/observation_board.h"

namespace foretoken {
namespace {

void AddCounters(const GatewayReport& r, MetricSet& out) {
  const GatewayCounters& c = r.counters;
  out.Counter("foretoken:requests_total", "Completions that reached routing.", c.requests);
  out.Counter("foretoken:requests_finished_total", "Answered in full.", c.finished);
  out.Counter("foretoken:requests_failed_total", "Failed for want of an engine, or under a dying one.", c.failed);
  out.Counter("foretoken:requests_cancelled_total", "The client left first.", c.cancelled);
  out.Counter("foretoken:requests_refused_total", "Refused by the gateway as wrong or not allowed.", c.refused);
  out.Counter("foretoken:requests_shed_total", "Refused by admission: limits or predicted SLO.", c.shed);
  out.Counter("foretoken:requests_timed_out_total", "Longer than the request timeout.", c.timed_out);
  out.Counter("foretoken:retries_total", "Requests sent again to another engine.", c.retried);
  out.Counter("foretoken:retries_denied_total", "Retries that the budget did not allow.", c.retries_denied);
  out.Counter("foretoken:streams_cut_total", "Streams that ended in an error event.", c.cut_streams);
  out.Counter("foretoken:slow_clients_total", "Connections closed for their slowness.", c.slow_clients);
  out.Counter("foretoken:connections_total", "Client connections accepted.", c.connections);
  out.Counter("foretoken:connections_refused_total", "Client connections over the limit.", c.connections_refused);
  out.Counter("foretoken:output_chunks_total", "Pieces of output relayed in streams.", c.output_chunks);
  out.Counter("foretoken:output_tokens_total", "Output tokens that engines reported.", c.output_tokens);
  out.Counter("foretoken:predictions_judged_total", "Requests whose prediction was compared with what came.", c.judged);
  out.Gauge("foretoken:open_connections", "Client connections open now.", static_cast<double>(r.open_connections));
  out.Histogram("foretoken:time_to_first_token_seconds", "Request read to first output, of streams.", c.ttft);
  out.Histogram("foretoken:inter_token_latency_seconds", "Between two pieces of output of a stream.", c.inter_token);
  out.Histogram("foretoken:e2e_request_latency_seconds", "Request read to the end of its answer.", c.e2e);
  out.Histogram("foretoken:decision_seconds", "Time that a decision took.", c.decision);
}

void AddEngine(const EngineReport& e, MetricSet& out) {
  const MetricSet::Labels engine = {{"engine", e.name}};
  const EngineCounters& c = e.counters;
  out.Gauge("foretoken:engine_up", "1: alive, as far as is known here.", e.up ? 1 : 0, engine);
  out.Gauge("foretoken:engine_serving", "1: takes new requests.", e.up && e.takes_requests ? 1 : 0, engine);
  if (e.window) out.Gauge("foretoken:worker_window", "Requests that a joining worker is trusted with.", *e.window, engine);
  out.Gauge("foretoken:engine_outstanding", "Requests that this process has there.", e.outstanding, engine);
  out.Counter("foretoken:engine_requests_total", "Sent to it, retries included.", c.requests, engine);
  out.Counter("foretoken:engine_finished_total", "Answered in full.", c.finished, engine);
  out.Counter("foretoken:engine_failed_total", "Died under a request, or answered 5xx.", c.failed, engine);
  out.Counter("foretoken:engine_4xx_total", "Answered 4xx.", c.answers_4xx, engine);
  out.Counter("foretoken:engine_out_total", "Times it was put out.", e.times_out, engine);
  out.Counter("foretoken:engine_connections_total", "Connections opened to it.", c.connections, engine);
  out.Counter("foretoken:engine_spare_connections_total", "Those of them dialled before a request needed one.",
              c.spare_connections, engine);
  out.Counter("foretoken:engine_stale_connections_total", "Pooled connections found closed.", c.stale_connections, engine);
  out.Counter("foretoken:mirror_steps_total", "Steps inferred from streams.", e.steps, engine);
  out.Counter("foretoken:mirror_rescaled_total", "Times that the engine's speed was found to be of another kind.", e.rescaled,
              engine);
  out.Gauge("foretoken:mirror_uncertainty_seconds", "How far the mirror may be behind.", e.uncertainty.seconds(), engine);
  out.Gauge("foretoken:mirror_ttft_offset_seconds", "Learnt difference of the first token's time.", e.ttft_offset.seconds(),
            engine);
  out.Gauge("foretoken:mirror_tokens_per_chunk", "Output tokens in one piece of a stream.", e.tokens_per_chunk, engine);
}

void AddSync(const EngineReport& e, MetricSet& out) {
  for (const char* level : {"exact", "following", "inferred"})
    out.Gauge("foretoken:mirror_level", "1: what the mirror may claim of the engine's state.", e.level == level ? 1 : 0,
              {{"engine", e.name}, {"level", level}});
  if (!e.sync) return;
  const MetricSet::Labels engine = {{"engine", e.name}};
  const LiveShadow::Counters& s = e.sync->shadow;
  out.Counter("foretoken:shadow_steps_total", "Steps that the shadow engine decided before they were read.", s.steps, engine);
  out.Counter("foretoken:shadow_disagreements_total", "Of these, decided otherwise than the engine did.", s.disagreements,
              engine);
  out.Counter("foretoken:followed_steps_total", "Steps read without having been decided.", s.followed, engine);
  out.Counter("foretoken:snapshots_compared_total", "Snapshots compared with the shadow, block for block.", s.compared, engine);
  out.Counter("foretoken:snapshots_differed_total", "Of these, unequal.", s.differed, engine);
  out.Counter("foretoken:snapshots_restored_total", "Snapshots that made the shadow exact.", s.restored, engine);
  out.Counter("foretoken:stream_messages_total", "Messages of the engine's stream, in order.", e.sync->stream.applied, engine);
  out.Counter("foretoken:stream_gaps_total", "Gaps in the engine's stream.", e.sync->stream.gap, engine);
  out.Counter("foretoken:stream_resyncs_total", "Snapshots asked for because of them.", e.sync->stream.resync, engine);
  out.Counter("foretoken:engine_restarts_total", "New epochs of the engine's stream.", e.sync->stream.epoch_change, engine);
  out.Counter("foretoken:foreign_requests_total", "Requests of other clients at the engine.", e.sync->live.foreign, engine);
  out.Gauge("foretoken:front_end_in_seconds", "From a request's being sent until the engine has it.",
            e.sync->front_in.seconds(), engine);
  out.Gauge("foretoken:front_end_out_seconds", "From the engine's result until its token is here.", e.sync->front_out.seconds(),
            engine);
}

void AddMembers(const GatewayReport& r, MetricSet& out) {
  out.Gauge("foretoken:workers", "Workers, those that are leaving included.", static_cast<double>(r.workers));
  const Membership::Counters& m = r.members;
  out.Counter("foretoken:workers_joined_total", "Workers that were added, or added again while they left.", m.joined);
  out.Counter("foretoken:workers_left_total", "Workers that were told to leave.", m.left);
  out.Counter("foretoken:workers_gone_total", "Workers that have left, with nothing under way there.", m.gone);
  out.Counter("foretoken:worker_changes_repeated_total", "Changes that had been made already.", m.repeated);
  out.Counter("foretoken:worker_changes_refused_total", "Changes that could not be made.", m.refused);
  const MembershipCounters& c = r.membership;
  out.Counter("foretoken:workers_replaced_total", "Addresses that turned out to have another engine behind them.", c.replaced);
  out.Counter("foretoken:workers_verified_total", "Requests that waited until their engine had said what it serves.",
              c.verified);
  out.Counter("foretoken:unknown_model_answers_total", "Answers 404 for a model that the engine was believed to serve.",
              c.unknown_model);
  out.Counter("foretoken:worker_lists_followed_total", "Files and DNS answers that named other workers than before.",
              c.lists_followed);
  out.Counter("foretoken:worker_lists_refused_total",
              "Files and DNS answers that changed nothing: something was wrong with them.", c.lists_refused);
  const SlowStart::Counters& s = r.slow_starts;
  out.Counter("foretoken:slow_starts_total", "Times that a worker's speed had to be seen.", s.begun);
  out.Counter("foretoken:slow_starts_confirmed_total", "Of these, ended because predictions came true.", s.confirmed);
  out.Counter("foretoken:slow_starts_unconfirmed_total", "Of these, ended because they took too long.", s.unconfirmed);
  out.Counter("foretoken:probing_requests_total", "Requests that went to a worker to learn of it.", s.probes);
  out.Counter("foretoken:held_back_total", "Candidates passed over because they had what they were trusted with.", s.held_back);
}

// As the engine itself would export them, as far as the gateway knows: dashboards made for vLLM show a fleet.
void AddVllm(const EngineReport& e, MetricSet& out) {
  const MetricSet::Labels labels = {{"model_name", e.model}, {"engine", e.name}};
  out.Gauge("vllm:num_requests_running", "Requests in the engine's running batch, as its mirror has it.", e.running, labels);
  out.Gauge("vllm:num_requests_waiting", "Requests that wait in the engine, as its mirror has it.", e.waiting, labels);
  if (e.total_blocks > 0)
    out.Gauge("vllm:kv_cache_usage_perc", "KV cache in use; 1 is all of it.",
              1 - static_cast<double>(e.free_blocks) / static_cast<double>(e.total_blocks), labels);
  out.Counter("vllm:generation_tokens_total", "Output tokens that the engine reported.", e.counters.output_tokens, labels);
  out.Histogram("vllm:time_to_first_token_seconds", "Sent to the engine to first output, of streams.", e.counters.ttft, labels);
  out.Histogram("vllm:inter_token_latency_seconds", "Between two pieces of output of a stream.", e.counters.inter_token,
                labels);
  out.Histogram("vllm:e2e_request_latency_seconds", "Sent to the engine to the end of its answer.", e.counters.e2e, labels);
}

void AddShadow(const ShadowStatistics::Report& r, MetricSet& out) {
  out.Counter("foretoken:shadow_decisions_total", "Decisions compared with the shadow policy's.", r.decisions);
  out.Gauge("foretoken:shadow_differ_share", "Share of them that the shadow policy would have made otherwise.", r.differ_share);
  constexpr auto kName = "foretoken:shadow_gain_seconds";
  constexpr auto kHelp = "Predicted E2E there less that at the shadow's choice: mean and its 95 % interval.";
  out.Gauge(kName, kHelp, r.gain_s, {{"of", "mean"}});
  out.Gauge(kName, kHelp, r.gain_low_s, {{"of", "low"}});
  out.Gauge(kName, kHelp, r.gain_high_s, {{"of", "high"}});
}

}  // namespace

GatewayReport ReportOf(Gateway& g) {
  GatewayReport r;
  r.counters = g.counters();
  r.open_connections = g.open_connections();
  r.workers = g.engines().size();
  r.members = g.members().counters();
  r.membership = g.membership_counters();
  r.slow_starts = g.slow_start().counters();
  for (const Engine* e : g.engines()) {
    if (e->leaving) continue;  // its name may be another's by now
    EngineMirror& m = g.routing().mirror(e->id);
    EngineReport& out = r.engines.emplace_back();
    out.name = e->url.name();
    if (!e->models.empty()) out.model = e->models.front();
    out.up = e->health.serving();
    out.takes_requests = e->state == InstanceState::kServing;
    out.window = g.slow_start().window(e->id);
    out.outstanding = g.routing().outstanding(e->id);
    out.counters = e->counters;
    out.times_out = e->health.times_out();
    out.steps = m.counters().steps;
    out.rescaled = m.counters().rescaled;
    out.level = NameOf(m.level(g.Now()));
    if (m.live() != nullptr)
      out.sync = EngineReport::Sync{m.live()->shadow().counters(), m.live()->sync(), m.live()->counters(), m.live()->front_in(),
                                    m.live()->front_out()};
    out.uncertainty = m.inference().uncertainty();
    out.ttft_offset = m.ttft_offset();
    out.tokens_per_chunk = m.tokens_per_chunk();
    out.running = m.simulator().predictor().running();
    out.waiting = m.simulator().predictor().waiting();
    out.free_blocks = m.simulator().free_blocks();
    out.total_blocks = m.simulator().total_blocks();
  }
  if (g.routing().shadow() != nullptr) r.shadow = g.routing().shadow()->report();
  if (g.config().board != nullptr) r.observation = g.config().board->Latest();
  return r;
}

std::string MetricsText(const GatewayReport& r) {
  MetricSet set;
  AddCounters(r, set);
  AddMembers(r, set);
  const size_t shown = std::min(r.engines.size(), kEnginesMost);
  for (size_t i = 0; i < shown; ++i) AddEngine(r.engines[i], set);
  for (size_t i = 0; i < shown; ++i) AddSync(r.engines[i], set);
  for (size_t i = 0; i < shown; ++i) AddVllm(r.engines[i], set);
  if (r.shadow) AddShadow(*r.shadow, set);
  if (r.observation != nullptr) AddObservation(*r.observation, set);
  return set.Text();
}

}  // namespace foretoken
