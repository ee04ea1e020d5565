#include "integration/eval/measured_cell.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "integration/accuracy/measured_run.h"
#include "integration/accuracy/replay.h"
#include "integration/accuracy/step_cost.h"
#include "integration/eval/run_detail.h"
#include "runtime/eval/virtual_host.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Replayed {
  std::vector<accuracy::Served> served;
  double factor = 1;  // on step times
};

Result<Replayed> ReplayOf(const accuracy::MeasuredRun& run, const MeasuredCase& which, int64_t calibrate_on) {
  auto loaded = accuracy::LoadStepCost(which.table, "", -1);
  if (!loaded.ok()) return loaded.error();
  Replayed out;
  if (calibrate_on > 0) {
    const Result<double> factor = accuracy::CalibrateFactor(run, loaded->cost, static_cast<size_t>(calibrate_on));
    if (!factor.ok()) return factor.error();
    loaded->cost.factor = out.factor = *factor;
  }
  Result<std::vector<accuracy::Served>> served = accuracy::Replay(run, loaded->cost);
  if (!served.ok()) return served.error();
  out.served = std::move(served).value();
  return out;
}

std::vector<accuracy::Served> Measured(const accuracy::MeasuredRun& run) {
  std::vector<accuracy::Served> out;
  for (const accuracy::MeasuredRequest& r : run.requests) out.push_back({r.ttft, r.e2e});
  return out;
}

// The counted requests as a run: what came, and what was predicted at arrival.
RunResult RunOf(const accuracy::MeasuredRun& run, const std::vector<accuracy::Served>& came, size_t from,
                const std::vector<accuracy::Served>* predicted) {
  RunResult out;
  for (size_t k = from; k < run.requests.size(); ++k) {
    const accuracy::MeasuredRequest& m = run.requests[k];
    RunRequest r;
    r.arrival = r.decided = m.arrival;
    r.first_token = m.arrival + came[k].ttft;
    r.finish = m.arrival + came[k].e2e;
    r.outcome = OutcomeKind::kFinished;
    r.output_tokens = static_cast<int32_t>(m.output_tokens);
    r.predicted = predicted != nullptr;
    if (predicted != nullptr) r.predicted_e2e = (*predicted)[k].e2e;
    out.requests.push_back(r);
  }
  return out;
}

double At(std::vector<double>& sorted, double share) {
  return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
}

void AddQuantiles(const std::string& name, std::vector<double> values, json::object& figures) {
  if (values.empty()) return;
  std::sort(values.begin(), values.end());
  double sum = 0;
  for (const double v : values) sum += v;
  figures[name + "_mean"] = sum / static_cast<double>(values.size());
  figures[name + "_p50"] = At(values, 0.5);
  figures[name + "_p95"] = At(values, 0.95);
  figures[name + "_p99"] = At(values, 0.99);
}

void AddLatencies(const RunResult& result, json::object& figures) {
  std::vector<double> ttft, tpot, e2e;
  for (const RunRequest& r : result.requests) {
    ttft.push_back((r.first_token - r.arrival).seconds());
    e2e.push_back((r.finish - r.arrival).seconds());
    if (r.output_tokens > 1) tpot.push_back((e2e.back() - ttft.back()) / (r.output_tokens - 1));
  }
  AddQuantiles("ttft", std::move(ttft), figures);
  AddQuantiles("tpot", std::move(tpot), figures);
  AddQuantiles("e2e", std::move(e2e), figures);
}

void AddErrors(const accuracy::MeasuredRun& run, const Replayed& replayed, size_t from, json::object& figures) {
  std::vector<double> ttft, e2e;
  for (size_t k = from; k < run.requests.size(); ++k) {
    ttft.push_back(std::abs(replayed.served[k].ttft.seconds() / run.requests[k].ttft.seconds() - 1));
    e2e.push_back(std::abs(replayed.served[k].e2e.seconds() / run.requests[k].e2e.seconds() - 1));
  }
  for (auto* errors : {&ttft, &e2e}) std::sort(errors->begin(), errors->end());
  const accuracy::Accuracy a = accuracy::Compare(run, replayed.served, from);
  figures["prediction_ttft_ape_p50"] = At(ttft, 0.5);
  figures["prediction_ttft_ape_p95"] = At(ttft, 0.95);
  figures["prediction_e2e_ape_p50"] = At(e2e, 0.5);
  figures["prediction_e2e_ape_p95"] = At(e2e, 0.95);
  figures["truth_ttft_mean_error"] = a.ttft.mean_error;
  figures["truth_ttft_mape"] = a.ttft.mape;
  figures["truth_tpot_mean_error"] = a.tpot.mean_error;
  figures["truth_tpot_mape"] = a.tpot.mape;
  figures["truth_e2e_mean_error"] = a.e2e.mean_error;
  figures["truth_e2e_mape"] = a.e2e.mape;
  figures["truth_factor"] = replayed.factor;
}

// Rows of one grid have the same figures.
constexpr const char* kErrors[] = {"prediction_ttft_ape_p50",
                                   "prediction_ttft_ape_p95",
                                   "prediction_e2e_ape_p50",
                                   "prediction_e2e_ape_p95",
                                   "truth_ttft_mean_error",
                                   "truth_ttft_mape",
                                   "truth_tpot_mean_error",
                                   "truth_tpot_mape",
                                   "truth_e2e_mean_error",
                                   "truth_e2e_mape",
                                   "truth_factor"};

}  // namespace

Result<json::object> RunMeasuredCell(const Grid& grid, const GridCell& cell) {
  const auto start = std::chrono::steady_clock::now();
  Result<accuracy::MeasuredRun> run = accuracy::ReadMeasuredRun(cell.measured->run, 0);
  if (!run.ok()) return run.error();
  if (grid.limit > 0 && run->requests.size() > grid.limit) run->requests.resize(grid.limit);
  const size_t from = grid.uncounted_first, n = run->requests.size();
  if (from >= n)
    return Error{cell.measured->run + ": " + std::to_string(n) + " requests, of which calibration leaves out the first " +
                 std::to_string(from) + "; some must remain"};
  Replayed shown{Measured(*run), 1};
  const std::vector<accuracy::Served> measured = shown.served;
  json::object figures{{"requests", n}, {"counted", n - from}, {"lost", 0}};
  for (const char* key : kErrors) figures[key] = nullptr;
  json::object detail;
  if (cell.replay_calibrated_on) {
    Result<Replayed> replayed = ReplayOf(*run, *cell.measured, *cell.replay_calibrated_on);
    if (!replayed.ok()) return replayed.error();
    shown = std::move(replayed).value();
    AddErrors(*run, shown, from, figures);
    detail = DetailOf(RunOf(*run, measured, from, &shown.served), 0, 0);
  }
  const RunResult result = RunOf(*run, shown.served, from, nullptr);
  AddLatencies(result, figures);
  json::object curves = DetailOf(result, 0, 0);
  if (detail.empty()) detail = curves;
  for (const char* curve : {"ttft", "tpot", "e2e"}) detail[curve] = curves[curve];
  detail["blocks"] = json::array();
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
  return json::object{{"key", grid.KeyOf(cell)},
                      {"figures", std::move(figures)},
                      {"digest", ""},
                      {"wall_seconds", wall.count()},
                      {"detail", std::move(detail)}};
}

}  // namespace foretoken
