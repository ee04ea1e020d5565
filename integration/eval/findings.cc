#include "integration/eval/findings.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <iterator>
#include <optional>
#include <sstream>

namespace foretoken {
namespace {

constexpr const char* kCompared[] = {"ttft_mean", "ttft_p99",       "e2e_mean",
                                     "e2e_p99",   "slo_attainment", "prediction_e2e_ape_p50"};
constexpr const char* kVerdicts[] = {"better", "worse", "tie", "one seed: no verdict"};
constexpr const char* kPolicy = "scheduler.policy";

std::string Shown(const Figure& figure, const Comparison& c, const std::optional<Interval>& over_time,
                  const std::string& against) {
  const bool share = figure.key == "slo_attainment";
  std::ostringstream s;
  s << figure.label << " " << std::showpos << std::fixed << std::setprecision(1) << 100 * c.change << (share ? " points" : " %")
    << std::noshowpos;
  if (c.verdict != Verdict::kUnknown) s << " ± " << 100 * c.half_width;
  if (over_time) s << std::showpos << " [" << 100 * over_time->low << ", " << 100 * over_time->high << "]" << std::noshowpos;
  s << against << " (" << kVerdicts[static_cast<size_t>(c.verdict)] << ")";
  return s.str();
}

// The combination that is like `combination` but has the best simple policy by this figure's mean; absent if none is simple.
std::optional<size_t> BestSimple(const Evaluation& e, size_t combination, size_t dimension, const Figure& figure) {
  std::optional<size_t> best;
  double best_mean = 0;
  const std::vector<std::string>& policies = e.grid().dimensions[dimension].values;
  for (size_t v = 0; v < policies.size(); ++v) {
    if (IsPredictive(policies[v])) continue;
    const size_t other = e.With(combination, dimension, v);
    const std::optional<Spread> s = e.Over(other, figure.key);
    if (!s) continue;
    const bool wins = !best || (figure.better == Better::kHigher ? s->mean > best_mean : s->mean < best_mean);
    if (!wins) continue;
    best = other;
    best_mean = s->mean;
  }
  return best;
}

class Group {
 public:
  Group(const Evaluation& e, size_t dimension)
      : e_(e), dimension_(dimension), by_policy_(e.grid().dimensions[dimension].name == kPolicy) {}

  FindingGroup Make() {
    const GridDimension& d = e_.grid().dimensions[dimension_];
    FindingGroup out;
    out.title = by_policy_ ? "Prediction against the best simple policy" : d.name + ": each value against " + d.values.front();
    for (size_t c = 0; c < e_.combinations(); ++c) {
      const std::string& value = d.values[e_.At(c)[dimension_]];
      if (by_policy_ ? !IsPredictive(value) : e_.At(c)[dimension_] == 0) continue;
      const std::string sentence = Sentence(c);
      if (sentence.empty()) continue;
      const std::string where = e_.Name(c, {dimension_});
      out.sentences.push_back(value + (where.empty() ? "" : " at " + where) + ": " + sentence + ".");
    }
    out.overview = Overview();
    return out;
  }

 private:
  std::string Sentence(size_t combination) {
    std::string text;
    for (size_t f = 0; f < std::size(kCompared); ++f) {
      const Figure& figure = FigureOf(kCompared[f]);
      if (by_policy_ && figure.key == "prediction_e2e_ape_p50") continue;
      const std::optional<size_t> other =
          by_policy_ ? BestSimple(e_, combination, dimension_, figure) : std::optional(e_.With(combination, dimension_, 0));
      if (!other) continue;
      const std::optional<Comparison> c = e_.Compare(combination, *other, figure);
      if (!c) continue;
      ++counts_[f][static_cast<size_t>(c->verdict)];
      const std::string name =
          by_policy_ ? " against " + e_.grid().dimensions[dimension_].values[e_.At(*other)[dimension_]] : "";
      text += (text.empty() ? "" : "; ") + Shown(figure, *c, e_.Bootstrap(combination, *other, figure), name);
    }
    return text;
  }

  std::string Overview() const {
    std::string text;
    for (size_t f = 0; f < std::size(kCompared); ++f) {
      const auto& n = counts_[f];
      const size_t all = n[0] + n[1] + n[2];
      if (all == 0) continue;
      text += (text.empty() ? "" : "; ") + std::string(FigureOf(kCompared[f]).label) + " better in " + std::to_string(n[0]) +
              ", worse in " + std::to_string(n[1]) + ", tied in " + std::to_string(n[2]) + " of " + std::to_string(all);
    }
    return text.empty() ? "One seed has no spread: differences are shown without a verdict." : text + ".";
  }

  const Evaluation& e_;
  size_t dimension_;
  bool by_policy_;
  std::array<std::array<size_t, 4>, std::size(kCompared)> counts_{};
};

}  // namespace

bool IsPredictive(const std::string& policy) {
  constexpr const char* kPredictive[] = {"auto", "min_ttft", "min_e2e", "externality", "slo", "hybrid"};
  return std::find(std::begin(kPredictive), std::end(kPredictive), policy) != std::end(kPredictive);
}

std::vector<FindingGroup> FindingsOf(const Evaluation& evaluation) {
  std::vector<FindingGroup> out;
  for (const size_t d : evaluation.Varied()) {
    const std::string& name = evaluation.grid().dimensions[d].name;
    if (name == "run" || name == "topology" || name == "workload" || name == "load" || name == "rate_scale") continue;
    FindingGroup group = Group(evaluation, d).Make();
    if (!group.sentences.empty()) out.push_back(std::move(group));
  }
  return out;
}

}  // namespace foretoken
