#include "integration/simulate/run_report.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iomanip>
#include <map>
#include <optional>

#include "runtime/metrics/prediction_error.h"
#include "runtime/metrics/rank_agreement.h"
#include "runtime/metrics/run_metrics.h"

namespace foretoken {
namespace {

namespace json = boost::json;

template <class T>
json::value OrNull(const std::optional<T>& v) {
  return v ? json::value(*v) : json::value(nullptr);
}

json::value SummaryOf(const std::optional<Summary>& s) {
  if (!s) return nullptr;
  return json::object{{"mean", s->mean}, {"p50", s->p50}, {"p95", s->p95}, {"p99", s->p99}};
}

double PeakRssMb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

RunMetrics MetricsOf(const RunContext& context, const RunResult& result) {
  RunMetrics metrics;
  for (size_t k = 0; k < result.requests.size(); ++k) {
    const RunRequest& r = result.requests[k];
    RequestRecord record;
    record.request = context.trace->requests[k].meta.id;
    record.arrival = r.arrival;
    if (r.first_token != Instant::Max()) record.first_token = r.first_token;
    if (r.outcome == OutcomeKind::kFinished) record.last_token = r.finish;
    record.output_tokens = r.output_tokens;
    record.outcome = r.outcome;
    record.slo = context.trace->requests[k].meta.slo.value_or(context.topology->slo);
    metrics.Add(record);
  }
  return metrics;
}

json::object AccountOf(const ErrorSummary& e) {
  return {{"judged", e.count},         {"bias", e.bias},           {"ape_p50", e.p50}, {"ape_p95", e.p95}, {"ape_p99", e.p99},
          {"within_p50", e.below_p50}, {"within_p90", e.below_p90}};
}

// Each SIMULATOR's own account over its latest requests.
json::array AccountsOf(const RunResult& result) {
  json::array out;
  for (const RunResult::Account& a : result.accounts) {
    out.push_back({{"instance", result.instance_names[a.instance.value()]},
                   {"ttft", AccountOf(a.ttft)},
                   {"e2e", AccountOf(a.e2e)},
                   {"level", a.level},
                   {"demotions", a.demotions},
                   {"recoveries", a.recoveries}});
  }
  return out;
}

json::object PredictionOf(const RunResult& result) {
  PredictionError ttft, e2e;
  std::vector<double> predicted, actual;
  std::map<std::string, size_t> by_predictor;
  size_t stale = 0, count = 0, covered_ttft = 0, covered_e2e = 0;
  for (const RunRequest& r : result.requests) {
    if (!r.predicted || r.outcome != OutcomeKind::kFinished) continue;
    const Duration true_ttft = r.first_token - r.decided, true_e2e = r.finish - r.decided;
    ttft.Add(r.predicted_ttft.seconds(), true_ttft.seconds());
    e2e.Add(r.predicted_e2e.seconds(), true_e2e.seconds());
    predicted.push_back(r.predicted_e2e.seconds());
    actual.push_back(true_e2e.seconds());
    covered_ttft += true_ttft <= r.predicted_ttft_p90;
    covered_e2e += true_e2e <= r.predicted_e2e_p90;
    stale += r.stale;
    ++by_predictor[std::string(NameOf(r.predictor))];
    ++count;
  }
  const auto quantiles = [](const PredictionError& e) {
    return json::object{{"p50", OrNull(e.ApeQuantile(0.5))},
                        {"p95", OrNull(e.ApeQuantile(0.95))},
                        {"p99", OrNull(e.ApeQuantile(0.99))},
                        {"mean", OrNull(e.Mape())}};
  };
  const auto share = [&](size_t n) {
    return count == 0 ? json::value(nullptr) : json::value(static_cast<double>(n) / static_cast<double>(count));
  };
  json::object predictors;
  for (const auto& [name, n] : by_predictor) predictors[name] = share(n);
  return {{"count", count},
          {"ttft_ape", quantiles(ttft)},
          {"e2e_ape", quantiles(e2e)},
          {"ttft_bias", OrNull(ttft.Bias())},
          {"e2e_bias", OrNull(e2e.Bias())},
          {"ttft_p90_coverage", share(covered_ttft)},
          {"e2e_p90_coverage", share(covered_e2e)},
          {"spearman", OrNull(Spearman(predicted, actual))},
          {"agree_at_1", OrNull(result.agree_at_one.Share())},
          {"regret_mean", result.regret_questions == 0
                              ? json::value(nullptr)
                              : json::value(result.regret_seconds / static_cast<double>(result.regret_questions))},
          {"stale_share", share(stale)},
          {"by_predictor", predictors},
          {"by_instance", AccountsOf(result)}};
}

json::object SyncOf(const SequencerCounters& s, const SimulatorCounters& m, const LinkCounters& l) {
  return {{"applied", s.applied},     {"reordered", s.reordered},
          {"duplicate", s.duplicate}, {"gap", s.gap},
          {"resync", s.resync},       {"resync_repeated", s.resync_repeated},
          {"lost", s.skipped},        {"epoch_change", s.epoch_change},
          {"old_epoch", s.old_epoch}, {"superseded", s.superseded},
          {"overflow", s.overflow},   {"held_max", s.held_max},
          {"foreign", m.foreign},     {"lost_assignments", m.lost_assignments},
          {"bytes", m.stream_bytes},  {"snapshot_bytes", m.snapshot_bytes},
          {"link_sent", l.sent},      {"link_lost", l.dropped + l.burst_lost + l.partitioned}};
}

json::object DriftOf(const DriftCounters& d) {
  const auto mean = [&](double sum) {
    return d.steps == 0 ? json::value(nullptr) : json::value(sum / static_cast<double>(d.steps));
  };
  return {{"steps", d.steps},
          {"step_ape_mean", mean(d.step_ape)},
          {"step_bias", mean(d.step_bias)},
          {"running_abs_mean", mean(d.running_abs)},
          {"waiting_abs_mean", mean(d.waiting_abs)}};
}

double Number(const json::object& o, std::string_view key) {
  const json::value* v = o.if_contains(key);
  return v != nullptr && v->is_number() ? v->to_number<double>() : 0;
}

}  // namespace

json::object ReportRun(const RunContext& context, const RunResult& result) {
  const Instant start = result.requests.empty() ? Instant() : result.requests.front().arrival;
  const double sim_seconds = std::max(Duration(), result.end - start).seconds();
  const RunReport r = MetricsOf(context, result).Report(result.end - start);
  const double wall = std::max(context.wall_seconds, 1e-9);
  size_t retried = 0;
  for (const RunRequest& q : result.requests) retried += q.assignments > 1;
  const SchedulerCounters& s = result.scheduler;
  return {{"requests", r.requests},
          {"completed", r.completed},
          {"rejected", r.rejected},
          {"cancelled", r.cancelled},
          {"failed", r.failed},
          {"lost", r.lost},
          {"duplicated", result.duplicated},
          {"retried", retried},
          {"steps", result.steps},
          {"preemptions", result.preemptions},
          {"output_tokens", result.output_tokens},
          {"wall_seconds", context.wall_seconds},
          {"peak_rss_mb", PeakRssMb()},
          {"sim_seconds", sim_seconds},
          {"requests_per_wall_second", static_cast<double>(r.requests) / wall},
          {"steps_per_wall_second", static_cast<double>(result.steps) / wall},
          {"ttft", SummaryOf(r.ttft)},
          {"tpot", SummaryOf(r.tpot)},
          {"e2e", SummaryOf(r.e2e)},
          {"slo_attainment", OrNull(r.slo_attainment)},
          {"goodput_rps", r.goodput_rps},
          {"prediction", PredictionOf(result)},
          {"sync", SyncOf(result.sync, result.simulators, result.links)},
          {"drift", DriftOf(result.drift)},
          {"scheduler", json::object{{"decisions", s.decisions},
                                     {"repicks", s.repicks},
                                     {"by_ledger", s.by_ledger},
                                     {"unanswered", s.unanswered},
                                     {"late_replies", s.late_replies},
                                     {"unusable", s.unusable},
                                     {"self_suspected", s.self_suspected},
                                     {"shed", s.shed}}},
          {"decision_digest", context.decision_digest},
          {"policy", context.topology->scheduler.policy},
          {"predictor", NameOf(context.topology->predictor.kind)},
          {"sync_level", NameOf(context.topology->sync.level)},
          {"faults", context.topology->faults.name},
          {"seed", context.topology->seed},
          {"trace", context.trace->name}};
}

void PrintRun(const json::object& o, std::ostream& out) {
  out << std::fixed << std::setprecision(0) << Number(o, "completed") << " of " << Number(o, "requests")
      << " requests completed, " << Number(o, "rejected") << " rejected, " << Number(o, "failed") << " failed, "
      << Number(o, "retried") << " retried; " << Number(o, "steps") << " engine steps in " << std::setprecision(2)
      << Number(o, "wall_seconds") << " s (" << std::setprecision(0) << Number(o, "requests_per_wall_second") << " requests/s, "
      << Number(o, "steps_per_wall_second") << " steps/s)\n\n            mean       p50       p95       p99\n";
  for (const auto& [key, label, scale, unit] :
       {std::tuple{"ttft", "TTFT", 1.0, " s"}, {"tpot", "TPOT", 1e3, " ms"}, {"e2e", "E2E ", 1.0, " s"}}) {
    out << "  " << label << "  ";
    const json::value* v = o.if_contains(key);
    if (v == nullptr || !v->is_object()) {
      out << "  none\n";
      continue;
    }
    for (const char* q : {"mean", "p50", "p95", "p99"})
      out << std::setw(10) << std::setprecision(scale == 1.0 ? 3 : 1) << Number(v->as_object(), q) * scale;
    out << unit << "\n";
  }
  out << std::setprecision(1) << "\n  SLO attainment " << 100 * Number(o, "slo_attainment") << " %, goodput "
      << Number(o, "goodput_rps") << " requests/s\n";
  const json::object& p = o.at("prediction").as_object();
  if (Number(p, "count") > 0)
    out << "  prediction error (" << o.at("predictor").as_string().c_str() << "): TTFT p50 "
        << 100 * Number(p.at("ttft_ape").as_object(), "p50") << " % p95 " << 100 * Number(p.at("ttft_ape").as_object(), "p95")
        << " %, E2E p50 " << 100 * Number(p.at("e2e_ape").as_object(), "p50") << " % p95 "
        << 100 * Number(p.at("e2e_ape").as_object(), "p95") << " %\n";
  const json::object& s = o.at("sync").as_object();
  out << std::setprecision(0) << "  sync (" << o.at("sync_level").as_string().c_str() << "): " << Number(s, "applied")
      << " applied, " << Number(s, "reordered") << " reordered, " << Number(s, "duplicate") << " duplicate, "
      << Number(s, "gap") << " gaps, " << Number(s, "resync") << " resyncs, " << Number(s, "lost") << " lost, "
      << Number(s, "epoch_change") << " restarts\n";
  const json::value* digest = o.if_contains("decision_digest");
  if (digest != nullptr && !digest->as_string().empty()) out << "  decision digest " << digest->as_string().c_str() << "\n";
}

Status WriteRequestsCsv(const std::string& path, const RunContext& context, const RunResult& result) {
  std::ofstream out(path);
  if (!out) return Error{path + ": cannot write: " + std::strerror(errno)};
  constexpr const char* kOutcomes[] = {"finished", "rejected", "cancelled", "failed", "lost"};
  const auto seconds = [&](Instant t) {
    if (t != Instant::Max()) out << std::setprecision(9) << std::fixed << t.seconds();
  };
  out << "request,arrival_s,prompt_tokens,output_tokens,instance,outcome,assignments,first_token_s,finish_s,predicted_ttft_s,"
         "predicted_e2e_s,predictor\n";
  for (size_t k = 0; k < result.requests.size(); ++k) {
    const RunRequest& r = result.requests[k];
    out << context.trace->requests[k].meta.id.value() << ',';
    seconds(r.arrival);
    out << ',' << context.trace->requests[k].meta.prompt_tokens.value() << ',' << r.output_tokens << ','
        << (r.assignments > 0 ? result.instance_names[r.instance.value()] : "") << ','
        << kOutcomes[static_cast<size_t>(r.outcome)] << ',' << r.assignments << ',';
    seconds(r.first_token);
    out << ',';
    seconds(r.finish);
    out << ',';
    if (r.predicted) out << r.predicted_ttft.seconds() << ',' << r.predicted_e2e.seconds() << ',' << NameOf(r.predictor);
    if (!r.predicted) out << ",,";
    out << '\n';
  }
  out.flush();
  if (!out) return Error{path + ": could not be written to its end (is the disk full?)"};
  return Status();
}

}  // namespace foretoken
