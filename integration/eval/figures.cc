#include "integration/eval/figures.h"

#include <algorithm>
#include <iterator>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

constexpr Figure kFigures[] = {
    {"ttft_mean", "TTFT mean", "ms", 1e3, 1, Better::kLower, true},
    {"ttft_p50", "TTFT p50", "ms", 1e3, 1, Better::kLower, false},
    {"ttft_p95", "TTFT p95", "ms", 1e3, 1, Better::kLower, false},
    {"ttft_p99", "TTFT p99", "ms", 1e3, 0, Better::kLower, true},
    {"tpot_mean", "TPOT mean", "ms", 1e3, 2, Better::kLower, true},
    {"tpot_p99", "TPOT p99", "ms", 1e3, 1, Better::kLower, false},
    {"e2e_mean", "E2E mean", "s", 1, 3, Better::kLower, true},
    {"e2e_p50", "E2E p50", "s", 1, 3, Better::kLower, false},
    {"e2e_p95", "E2E p95", "s", 1, 2, Better::kLower, false},
    {"e2e_p99", "E2E p99", "s", 1, 2, Better::kLower, true},
    {"slo_attainment", "SLO met", "%", 100, 1, Better::kHigher, true},
    {"goodput_rps", "Goodput", "requests/s", 1, 1, Better::kHigher, false},
    {"prediction_ttft_ape_p50", "TTFT prediction error p50", "%", 100, 1, Better::kLower, false},
    {"prediction_ttft_ape_p95", "TTFT prediction error p95", "%", 100, 1, Better::kLower, false},
    {"prediction_e2e_ape_p50", "E2E prediction error p50", "%", 100, 1, Better::kLower, true},
    {"prediction_e2e_ape_p95", "E2E prediction error p95", "%", 100, 1, Better::kLower, true},
    {"prediction_e2e_bias", "E2E prediction bias", "%", 100, 1, Better::kNeither, false},
    {"prediction_spearman", "Rank correlation of E2E", "", 1, 3, Better::kHigher, false},
    {"prediction_agree_at_1", "Choices that were truly best", "%", 100, 1, Better::kHigher, false},
    {"prediction_regret_mean", "True regret per choice", "ms", 1e3, 0, Better::kLower, false},
    {"prediction_stale_share", "Predictions from stale state", "%", 100, 1, Better::kNeither, false},
    {"truth_ttft_mean_error", "TTFT: error of the mean", "%", 100, 2, Better::kNeither, true},
    {"truth_ttft_mape", "TTFT: mean absolute error", "%", 100, 2, Better::kLower, true},
    {"truth_tpot_mean_error", "TPOT: error of the mean", "%", 100, 2, Better::kNeither, true},
    {"truth_tpot_mape", "TPOT: mean absolute error", "%", 100, 2, Better::kLower, true},
    {"truth_e2e_mean_error", "E2E: error of the mean", "%", 100, 2, Better::kNeither, true},
    {"truth_e2e_mape", "E2E: mean absolute error", "%", 100, 2, Better::kLower, true},
    {"truth_factor", "Step times times", "", 1, 3, Better::kNeither, true},
    {"drift_running_abs_mean", "Drift: running requests", "requests", 1, 2, Better::kLower, true},
    {"drift_waiting_abs_mean", "Drift: waiting requests", "requests", 1, 2, Better::kLower, false},
    {"drift_step_ape_mean", "Drift: step time", "%", 100, 2, Better::kLower, false},
    {"mirrors_wrong_mean", "Requests that mirrors misplace", "requests", 1, 2, Better::kLower, true},
    {"recovery_seconds", "Time to recover", "s", 1, 1, Better::kLower, true},
    {"sync_resync", "Resyncs", "", 1, 0, Better::kNeither, false},
    {"sync_held_max", "Messages held at most", "", 1, 0, Better::kNeither, false},
    {"sync_bytes", "Sync traffic", "MB", 1e-6, 1, Better::kNeither, false},
    {"sync_snapshot_bytes", "Snapshots of it", "MB", 1e-6, 2, Better::kNeither, false},
    {"scheduler_repicks", "Re-picks", "", 1, 0, Better::kNeither, false},
    {"repick_share", "Re-picks", "%", 100, 2, Better::kNeither, true},
    {"decision_p99", "Decision time p99", "ms", 1e3, 2, Better::kLower, true},
    {"hot_spot_mean", "Hot spot: most loaded over mean", "", 1, 2, Better::kLower, true},
    {"hot_spot_p99", "Hot spot p99", "", 1, 2, Better::kLower, false},
    {"retried", "Retried", "", 1, 0, Better::kNeither, false},
    {"failed", "Failed", "", 1, 0, Better::kLower, false},
    {"rejected", "Rejected", "", 1, 0, Better::kLower, false},
    {"lost", "Lost", "", 1, 0, Better::kLower, true},
    {"duplicated", "Ended twice", "", 1, 0, Better::kLower, false},
};

}  // namespace

std::span<const Figure> Figures() { return kFigures; }

const Figure& FigureOf(std::string_view key) {
  const auto* found = std::find_if(std::begin(kFigures), std::end(kFigures), [&](const Figure& f) { return f.key == key; });
  FT_CHECK(found != std::end(kFigures));
  return *found;
}

}  // namespace foretoken
