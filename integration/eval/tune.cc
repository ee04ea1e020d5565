#include "integration/eval/tune.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <span>
#include <sstream>
#include <utility>

#include "integration/eval/evaluation.h"
#include "integration/eval/run_grid.h"
#include "runtime/sched/policy.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Constant {
  std::string_view policy;
  std::string_view weight;  // in scheduler.weights
  double PolicyWeights::*at;
};

constexpr Constant kConstants[] = {{"slo", "slo_latency", &PolicyWeights::slo_latency_weight},
                                   {"auto", "slo_latency", &PolicyWeights::slo_latency_weight},
                                   {"auto", "auto_tail", &PolicyWeights::auto_tail},
                                   {"hybrid", "hybrid_load", &PolicyWeights::hybrid_load_weight},
                                   {"prefix_weighted", "prefix_kv", &PolicyWeights::prefix_kv},
                                   {"prefix_weighted", "prefix_missing", &PolicyWeights::prefix_missing},
                                   {"kv_router_cost", "kv_router_prefill", &PolicyWeights::kv_router_prefill},
                                   {"lmetricw", "lmetricw_output", &PolicyWeights::lmetricw_output},
                                   {"lwl", "lwl_output", &PolicyWeights::lwl_output},
                                   {"v0", "v0_steps", &PolicyWeights::v0_steps},
                                   {"session_affinity", "affinity_bound", &PolicyWeights::affinity_bound},
                                   {"cache_aware", "cache_gap", &PolicyWeights::cache_gap},
                                   {"cache_aware", "cache_ratio", &PolicyWeights::cache_ratio}};
constexpr double kOne[] = {1, 1.0 / 16, 1.0 / 8, 1.0 / 4, 1.0 / 2, 2, 4, 8, 16};
constexpr double kTwo[] = {1, 1.0 / 3, 3};

std::string Shown(double value) {
  std::ostringstream s;
  s << value;
  return s.str();
}

// The default first, so that a constant that changes nothing stays as it is.
std::vector<ExperimentAxis> AxesOf(const std::string& policy) {
  std::vector<ExperimentAxis> axes;
  const PolicyWeights defaults;
  const auto of = [&policy](const Constant& c) { return c.policy == policy; };
  const bool one = std::count_if(std::begin(kConstants), std::end(kConstants), of) == 1;
  for (const Constant& c : kConstants) {
    if (!of(c)) continue;
    axes.push_back({"scheduler.weights." + std::string(c.weight), {}});
    for (const double factor : one ? std::span<const double>(kOne) : std::span<const double>(kTwo))
      axes.back().values.push_back(Shown(defaults.*c.at * factor));
  }
  return axes;
}

// The combinations of `e` that differ in constants only, best first found.
class Points {
 public:
  Points(const Evaluation& e, const Figure& goal) : e_(e), goal_(goal) {}

  // Of the circumstances of `combination`, which has the defaults.
  json::object Best(size_t combination, const std::string& policy) const {
    std::optional<Spread> best, initial = e_.Over(combination, goal_.key);
    size_t at = combination, tried = 0;
    for (size_t c = 0; c < e_.combinations(); ++c) {
      if (!SameBut(c, combination)) continue;
      ++tried;
      const std::optional<Spread> s = e_.Over(c, goal_.key);
      if (!s || (best && !Better(s->mean, best->mean))) continue;
      best = s;
      at = c;
    }
    json::object weights;
    for (size_t d = kFixed; d + 1 < e_.grid().dimensions.size(); ++d)
      weights[e_.grid().dimensions[d].name] = e_.grid().dimensions[d].values[e_.At(at)[d]];
    const auto value = [](const std::optional<Spread>& s) { return s ? json::value(s->mean) : json::value(nullptr); };
    std::string where;
    for (const size_t d : {0, 1, 3}) where += (where.empty() ? "" : ", ") + e_.grid().dimensions[d].values[e_.At(at)[d]];
    return {{"policy", policy},    {"where", where},     {"default", value(initial)},
            {"best", value(best)}, {"weights", weights}, {"tried", tried}};
  }

  bool IsDefault(size_t combination) const {
    for (size_t d = kFixed; d + 1 < e_.grid().dimensions.size(); ++d)
      if (e_.At(combination)[d] != 0) return false;
    return true;
  }

 private:
  static constexpr size_t kFixed = 4;  // topology, workload, faults and rate come first in a grid

  bool SameBut(size_t a, size_t b) const {
    for (size_t d = 0; d < kFixed; ++d)
      if (e_.At(a)[d] != e_.At(b)[d]) return false;
    return true;
  }
  bool Better(double a, double b) const { return goal_.better == Better::kHigher ? a > b : a < b; }

  const Evaluation& e_;
  const Figure& goal_;
};

}  // namespace

Result<json::array> Tune(const Experiment& experiment, const TuneOptions& options) {
  const auto axis = std::find_if(experiment.axes.begin(), experiment.axes.end(),
                                 [](const ExperimentAxis& a) { return a.path == "scheduler.policy"; });
  if (axis == experiment.axes.end()) return Error{experiment.name + ": tuning needs an axis scheduler.policy"};
  const auto figures = Figures();
  const auto goal = std::find_if(figures.begin(), figures.end(), [&](const Figure& f) { return f.key == options.goal; });
  if (goal == figures.end() || goal->better == Better::kNeither)
    return Error{"--goal " + options.goal + ": must be a figure with a better side, as e2e_mean, ttft_mean or slo_attainment"};

  std::vector<std::pair<std::string, Grid>> grids;
  size_t runs = 0, done = 0;
  for (const std::string& policy : axis->values) {
    Experiment one = experiment;
    one.axes = AxesOf(policy);
    one.set.push_back("scheduler.policy=" + policy);
    grids.emplace_back(policy, ExpandGrid(one, options.smoke));
    runs += grids.back().second.cells.size();
  }
  json::array out;
  for (const auto& [policy, grid] : grids) {
    RunGridOptions run{options.folder + "/tune-" + policy + ".jsonl", options.jobs, options.resume, {}};
    run.show = [&](size_t k, size_t) {
      if (options.show) options.show(done + k, runs);
    };
    auto rows = RunGrid(grid, run);
    if (!rows.ok()) return rows.error();
    done += grid.cells.size();
    const Evaluation evaluation(grid, std::move(rows).value());
    const Points points(evaluation, *goal);
    for (size_t c = 0; c < evaluation.combinations(); ++c)
      if (points.IsDefault(c)) out.push_back(points.Best(c, policy));
  }
  return out;
}

}  // namespace foretoken
