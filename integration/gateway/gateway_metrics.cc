#include "integration/gateway/gateway_metrics.h"

#include <cstdio>

#include "integration/gateway/gateway.h"

namespace foretoken {
namespace {

class Text {
 public:
  void Family(const char* name, const char* type, const char* help) {
    out_ += "# HELP foretoken_";
    out_ += name;
    out_ += " ";
    out_ += help;
    out_ += "\n# TYPE foretoken_";
    out_ += name;
    out_ += " ";
    out_ += type;
    out_ += "\n";
  }
  void Sample(const std::string& name, const std::string& labels, double value) {
    char number[40];
    std::snprintf(number, sizeof number, "%.12g", value);
    out_ += "foretoken_" + name + (labels.empty() ? "" : "{" + labels + "}") + " " + number + "\n";
  }
  void Counter(const char* name, const char* help, uint64_t value) {
    Family(name, "counter", help);
    Sample(name, "", static_cast<double>(value));
  }
  void Histogram(const char* name, const char* help, const LatencyHistogram& h) {
    Family(name, "histogram", help);
    uint64_t below = 0;
    for (size_t i = 0; i < LatencyHistogram::kBounds; ++i) {
      below += h.at(i);
      char bound[40];
      std::snprintf(bound, sizeof bound, "le=\"%.4f\"", LatencyHistogram::Bound(i));
      Sample(std::string(name) + "_bucket", bound, static_cast<double>(below));
    }
    Sample(std::string(name) + "_bucket", "le=\"+Inf\"", static_cast<double>(h.count()));
    Sample(std::string(name) + "_sum", "", h.sum());
    Sample(std::string(name) + "_count", "", static_cast<double>(h.count()));
  }
  std::string Take() { return std::move(out_); }

 private:
  std::string out_;
};

void Counts(const GatewayCounters& c, Text& t) {
  t.Counter("requests_total", "Completions that reached routing.", c.requests);
  t.Counter("requests_finished_total", "Answered in full.", c.finished);
  t.Counter("requests_failed_total", "Failed for want of an engine, or under a dying one.", c.failed);
  t.Counter("requests_cancelled_total", "The client left first.", c.cancelled);
  t.Counter("requests_refused_total", "Refused by the gateway as wrong or not allowed.", c.refused);
  t.Counter("requests_shed_total", "Refused by admission: limits or predicted SLO.", c.shed);
  t.Counter("requests_timed_out_total", "Longer than the request timeout.", c.timed_out);
  t.Counter("retries_total", "Requests sent again to another engine.", c.retried);
  t.Counter("retries_denied_total", "Retries that the budget did not allow.", c.retries_denied);
  t.Counter("streams_cut_total", "Streams that ended in an error event.", c.cut_streams);
  t.Counter("slow_clients_total", "Connections closed for their slowness.", c.slow_clients);
  t.Counter("connections_total", "Client connections accepted.", c.connections);
  t.Counter("connections_refused_total", "Client connections over the limit.", c.connections_refused);
  t.Counter("output_chunks_total", "Pieces of output relayed in streams.", c.output_chunks);
  t.Counter("output_tokens_total", "Output tokens that engines reported.", c.output_tokens);
}

void Engines(Gateway& g, Text& t) {
  const auto each = [&](const char* name, const char* type, const char* help, auto value) {
    t.Family(name, type, help);
    for (const auto& e : g.engines())
      if (!e->removed) t.Sample(name, "engine=\"" + e->url.name() + "\"", static_cast<double>(value(*e)));
  };
  each("engine_up", "gauge", "1: takes requests.", [](const Engine& e) { return e.health.serving() ? 1 : 0; });
  each("engine_outstanding", "gauge", "Requests there now.", [&](const Engine& e) { return g.routing().outstanding(e.id); });
  each("engine_requests_total", "counter", "Sent to it, retries included.",
       [](const Engine& e) { return e.counters.requests; });
  each("engine_finished_total", "counter", "Answered in full.", [](const Engine& e) { return e.counters.finished; });
  each("engine_failed_total", "counter", "Died under a request, or answered 5xx.",
       [](const Engine& e) { return e.counters.failed; });
  each("engine_4xx_total", "counter", "Answered 4xx.", [](const Engine& e) { return e.counters.answers_4xx; });
  each("engine_out_total", "counter", "Times it was put out.", [](const Engine& e) { return e.health.times_out(); });
  each("engine_connections_total", "counter", "Connections opened to it.",
       [](const Engine& e) { return e.counters.connections; });
  each("engine_stale_connections_total", "counter", "Pooled connections found closed.",
       [](const Engine& e) { return e.counters.stale_connections; });
}

void Mirrors(Gateway& g, Text& t) {
  const auto each = [&](const char* name, const char* type, const char* help, auto value) {
    t.Family(name, type, help);
    for (const auto& e : g.engines())
      if (!e->removed) t.Sample(name, "engine=\"" + e->url.name() + "\"", value(g.routing().mirror(e->id)));
  };
  each("mirror_steps_total", "counter", "Steps inferred from streams.",
       [](EngineMirror& m) { return static_cast<double>(m.counters().steps); });
  each("mirror_rescaled_total", "counter", "Times that the engine's speed was found to be of another kind.",
       [](EngineMirror& m) { return static_cast<double>(m.counters().rescaled); });
  each("mirror_uncertainty_seconds", "gauge", "How far the mirror may be behind.",
       [](EngineMirror& m) { return m.inference().uncertainty().seconds(); });
  each("mirror_ttft_offset_seconds", "gauge", "Learnt difference of the first token's time.",
       [](EngineMirror& m) { return m.ttft_offset().seconds(); });
  each("mirror_tokens_per_chunk", "gauge", "Output tokens in one piece of a stream.",
       [](EngineMirror& m) { return m.tokens_per_chunk(); });
  if (g.routing().shadow() == nullptr) return;
  const ShadowStatistics::Report r = g.routing().shadow()->report();
  t.Counter("shadow_decisions_total", "Decisions compared with the shadow policy's.", r.decisions);
  t.Family("shadow_differ_share", "gauge", "Share of them that the shadow policy would have made otherwise.");
  t.Sample("shadow_differ_share", "", r.differ_share);
  t.Family("shadow_gain_seconds", "gauge", "Predicted E2E there less that at the shadow's choice: mean and its 95 % interval.");
  t.Sample("shadow_gain_seconds", "of=\"mean\"", r.gain_s);
  t.Sample("shadow_gain_seconds", "of=\"low\"", r.gain_low_s);
  t.Sample("shadow_gain_seconds", "of=\"high\"", r.gain_high_s);
}

}  // namespace

std::string MetricsText(Gateway& g) {
  Text t;
  const GatewayCounters& c = g.counters();
  Counts(c, t);
  t.Family("open_connections", "gauge", "Client connections open now.");
  t.Sample("open_connections", "", static_cast<double>(g.open_connections()));
  Engines(g, t);
  t.Histogram("ttft_seconds", "Request read to first output, of streams.", c.ttft);
  t.Histogram("inter_token_seconds", "Between two pieces of output of a stream.", c.inter_token);
  t.Histogram("e2e_seconds", "Request read to the end of its answer.", c.e2e);
  t.Histogram("decision_seconds", "Time that a decision took.", c.decision);
  Mirrors(g, t);
  t.Counter("predictions_judged_total", "Requests whose prediction was compared with what came.", c.judged);
  const double n = c.judged == 0 ? 1 : static_cast<double>(c.judged);
  t.Family("prediction_error", "gauge", "Mean of |predicted/actual - 1| (ape) and of predicted/actual - 1 (bias).");
  t.Sample("prediction_error", "of=\"ttft\",kind=\"ape\"", c.ttft_ape / n);
  t.Sample("prediction_error", "of=\"ttft\",kind=\"bias\"", c.ttft_bias / n);
  t.Sample("prediction_error", "of=\"e2e\",kind=\"ape\"", c.e2e_ape / n);
  t.Sample("prediction_error", "of=\"e2e\",kind=\"bias\"", c.e2e_bias / n);
  return t.Take();
}

}  // namespace foretoken
