#include "integration/eval/run_cell.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "configs/faults.h"
#include "configs/topology_reader.h"
#include "integration/eval/run_detail.h"
#include "integration/eval/saturation.h"
#include "integration/simulate/compose_run.h"
#include "integration/simulate/decision_log.h"
#include "integration/simulate/load_workload.h"
#include "integration/simulate/run_report.h"
#include "runtime/metrics/recovery.h"

namespace foretoken {
namespace {

namespace json = boost::json;

class DigestObserver final : public RunObserver {
 public:
  explicit DigestObserver(DecisionLog& log) : log_(log) {}
  void OnDecision(const DecisionRecord& record) override { log_.Add(record); }
  void OnProgress(size_t, size_t) override {}

 private:
  DecisionLog& log_;
};

// Of this machine or of the cell, not of the run.
bool IsFigure(std::string_view key) {
  constexpr std::string_view kNot[] = {"wall_seconds",          "peak_rss_mb", "requests_per_wall_second",
                                       "steps_per_wall_second", "seed",        "by_predictor"};
  return std::find(std::begin(kNot), std::end(kNot), key) == std::end(kNot);
}

void Flatten(const std::string& prefix, const json::object& from, json::object& to) {
  for (const auto& [name, value] : from) {
    if (!IsFigure(name)) continue;
    const std::string key = prefix + std::string(name);
    if (value.is_object()) Flatten(key + "_", value.as_object(), to);
    if (value.is_number()) to[key] = value.to_number<double>();
    if (value.is_null() && name != "ttft" && name != "tpot" && name != "e2e") to[key] = nullptr;
  }
  // A latency that no request has is null as a whole: its columns stay.
  for (const char* latency : {"ttft", "tpot", "e2e"})
    if (const json::value* v = from.if_contains(latency); v != nullptr && v->is_null())
      for (const char* q : {"mean", "p50", "p95", "p99"}) to[prefix + latency + "_" + q] = nullptr;
}

// The requests [from, to) of a run, as a run of their own.
struct Counted {
  Trace trace;
  RunResult result;
};

Counted Cut(const Trace& trace, const RunResult& result, size_t from, size_t to) {
  const auto at = [](auto& v, size_t k) { return v.begin() + static_cast<std::ptrdiff_t>(k); };
  Counted out;
  out.trace.name = trace.name;
  out.trace.requests.assign(at(trace.requests, from), at(trace.requests, to));
  out.result.requests.assign(at(result.requests, from), at(result.requests, to));
  out.result.end = to < result.requests.size() ? result.requests[to].arrival : result.end;  // for rates
  out.result.agree_at_one = result.agree_at_one;
  out.result.regret_questions = result.regret_questions;
  out.result.regret_seconds = result.regret_seconds;
  return out;
}

// Mean, and the value that a share of the samples do not exceed; null without samples.
void AddSpread(const std::string& key, std::vector<double> values, double share, const char* share_name, json::object& to) {
  to[key + "_mean"] = to[key + share_name] = nullptr;
  if (values.empty()) return;
  double sum = 0;
  for (const double v : values) sum += v;
  to[key + "_mean"] = sum / static_cast<double>(values.size());
  const auto at = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  to[key + share_name] = values[at];
}

void AddSampleFigures(const RunResult& result, json::object& figures) {
  std::vector<double> wrong, hot_spot, decision;
  for (const MirrorSample& s : result.samples) {
    wrong.push_back(s.wrong);
    hot_spot.push_back(s.hot_spot);
  }
  for (const RunRequest& r : result.requests)
    if (r.assignments == 1) decision.push_back((r.decided - r.arrival).seconds());
  AddSpread("mirrors_wrong", std::move(wrong), 0.99, "_p99", figures);
  AddSpread("hot_spot", std::move(hot_spot), 0.99, "_p99", figures);
  AddSpread("decision", std::move(decision), 0.99, "_p99", figures);
  const double decisions = static_cast<double>(result.scheduler.decisions);
  figures["repick_share"] = decisions > 0 ? json::value(static_cast<double>(result.scheduler.repicks) / decisions) : nullptr;
}

std::vector<ErrorSample> ErrorsOf(const RunResult& result) {
  std::vector<ErrorSample> out;
  for (const MirrorSample& s : result.samples) out.push_back({s.at, static_cast<double>(s.wrong)});
  return out;
}

// Runs the cell once more without its faults; null where these never end or end when the run does.
Result<json::value> RecoveryOf(const RunOptions& options, const Trace& trace, const RunResult& result) {
  const std::optional<Instant> end = options.faults.End();
  if (!end || *end == Instant() || result.samples.empty() || *end >= result.samples.back().at) return json::value(nullptr);
  RunOptions clean = options;
  clean.faults = {};
  const Result<RunResult> other = RunVirtual(clean, trace, nullptr);
  if (!other.ok()) return other.error();
  const auto back = RecoveryTime(ErrorsOf(result), ErrorsOf(*other), *end);
  // Not within the run: at least so long.
  return json::value(back.value_or(result.samples.back().at - *end).seconds());
}

// Means of the counted requests in blocks of equal numbers, in order of arrival: [TTFT, E2E, share that met its targets]. What a block
// bootstrap over time resamples: neighbours in time share their burst, blocks hardly do.
json::array BlocksOf(const Topology& topology, const Trace& trace, const RunResult& result, size_t from, size_t to) {
  constexpr size_t kBlocks = 20;
  json::array blocks;
  for (size_t b = 0; b < kBlocks; ++b) {
    const size_t first = from + b * (to - from) / kBlocks, last = from + (b + 1) * (to - from) / kBlocks;
    double ttft = 0, e2e = 0, finished = 0, met = 0;
    for (size_t k = first; k < last; ++k) {
      const RunRequest& r = result.requests[k];
      if (r.outcome != OutcomeKind::kFinished) continue;
      const Slo slo = trace.requests[k].meta.slo.value_or(topology.slo);
      const Duration first_token = r.first_token - r.arrival, whole = r.finish - r.arrival;
      const int64_t gaps = std::max(1, r.output_tokens - 1);
      ++finished;
      ttft += first_token.seconds();
      e2e += whole.seconds();
      met += first_token <= slo.ttft && (whole - first_token).nanos() <= slo.tpot.nanos() * gaps;
    }
    if (finished == 0) return {};  // a run too small for blocks
    blocks.emplace_back(json::array{ttft / finished, e2e / finished, met / static_cast<double>(last - first)});
  }
  return blocks;
}

}  // namespace

Result<Topology> TopologyOf(const GridCell& cell) {
  auto loaded = LoadTopology(cell.topology, cell.set);
  if (!loaded.ok()) return Error{loaded.errors().ToString()};
  Topology topology = std::move(loaded).value();
  if (cell.faults.empty()) return topology;
  auto faults = LoadFaultPlan(cell.faults);
  if (!faults.ok()) return Error{faults.errors().ToString()};
  topology.faults = std::move(faults).value();
  const std::vector<std::string> unmatched = UnmatchedPatterns(topology.faults, topology.InstanceNames());
  if (!unmatched.empty()) return Error{cell.faults + ": " + unmatched.front()};
  return topology;
}

json::object FiguresOf(const Topology& topology, const Trace& trace, const RunResult& result, double warmup_share,
                       double drain_share) {
  const size_t n = result.requests.size();
  const auto from = static_cast<size_t>(static_cast<double>(n) * warmup_share);
  const size_t to = std::max(from, n - static_cast<size_t>(static_cast<double>(n) * drain_share));
  json::object report = ReportRun({&topology, &trace, 0, ""}, result);
  if (from > 0 || to < n) {
    const Counted counted = Cut(trace, result, from, to);
    const json::object inner = ReportRun({&topology, &counted.trace, 0, ""}, counted.result);
    for (const char* key : {"ttft", "tpot", "e2e", "slo_attainment", "goodput_rps", "prediction"}) report[key] = inner.at(key);
  }
  json::object figures;
  figures["counted"] = to - from;
  Flatten("", report, figures);
  return figures;
}

Result<json::object> RunCell(const Grid& grid, const GridCell& cell, double rate_scale) {
  const Result<Topology> topology = TopologyOf(cell);
  if (!topology.ok()) return topology.error();
  return RunCellOn(*topology, grid, cell, rate_scale);
}

Result<json::object> RunCellOn(const Topology& topology, const Grid& grid, const GridCell& cell, double rate_scale) {
  const Result<Trace> trace = LoadWorkload("", cell.workload, {grid.limit, rate_scale, cell.seed, grid.stand_in});
  if (!trace.ok()) return trace.error();
  Result<RunOptions> composed = ComposeRun(topology, *trace);
  if (!composed.ok()) return composed.error();
  RunOptions options = std::move(composed).value();
  options.sample_mirrors = true;
  options.truth_sample = grid.truth_sample;
  auto log = DecisionLog::Open("", topology.InstanceNames());
  if (!log.ok()) return log.error();
  DigestObserver observer(**log);
  const auto start = std::chrono::steady_clock::now();
  const Result<RunResult> result = RunVirtual(options, *trace, &observer);
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  if (!result.ok()) return result.error();
  const auto digest = (*log)->Close();
  if (!digest.ok()) return digest.error();

  json::object figures = FiguresOf(topology, *trace, *result, grid.warmup_share, grid.drain_share);
  AddSampleFigures(*result, figures);
  const Result<json::value> recovery = RecoveryOf(options, *trace, *result);
  if (!recovery.ok()) return recovery.error();
  figures["recovery_seconds"] = *recovery;
  figures["offered_rate_scale"] = rate_scale;
  figures["offered_rps"] = MeanRate(*trace);
  json::object detail = DetailOf(*result, grid.warmup_share, grid.drain_share);
  const size_t n = result->requests.size();
  const auto from = static_cast<size_t>(static_cast<double>(n) * grid.warmup_share);
  const size_t to = std::max(from, n - static_cast<size_t>(static_cast<double>(n) * grid.drain_share));
  detail["blocks"] = BlocksOf(topology, *trace, *result, from, to);
  return json::object{{"key", grid.KeyOf(cell)},
                      {"figures", std::move(figures)},
                      {"digest", *digest},
                      {"wall_seconds", wall.count()},
                      {"detail", std::move(detail)}};
}

}  // namespace foretoken
