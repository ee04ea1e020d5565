#include "runtime/sched/policies/predictive.h"

#include <algorithm>

#include "runtime/model/score.h"

namespace foretoken {
namespace {

using Candidates = std::span<const Candidate>;
using Scores = std::span<double>;

// Without a prediction (late or lost) a candidate is ranked by its ledger, behind every one that answered: named, not dropped.
constexpr double kUnanswered = 1e9;

double Unanswered(const Candidate& c) { return kUnanswered + c.load.requests; }

class ByPrediction final : public Policy {
 public:
  ByPrediction(std::string_view name, PolicyNeeds needs, ScoreKind kind) : name_(name), needs_(needs), rule_{kind} {}
  std::string_view name() const override { return name_; }
  PolicyNeeds needs() const override { return needs_; }
  void Score(const PolicyRequest&, Candidates candidates, Prng&, Scores scores) override {
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = candidates[i].prediction ? ScoreOf(rule_, *candidates[i].prediction) : Unanswered(candidates[i]);
  }
  ScoreRule score_rule() const override { return rule_; }

 private:
  std::string_view name_;
  PolicyNeeds needs_;
  ScoreRule rule_;
};

ScoreRule SloRule(const PolicyWeights& w) { return {ScoreKind::kSlo, w.slo_latency_weight}; }

void SloScores(Candidates candidates, const PolicyWeights& w, Scores scores) {
  double best_ttft = kExcluded;
  for (const Candidate& c : candidates)
    if (c.prediction) best_ttft = std::min(best_ttft, c.prediction->ttft.seconds());
  for (size_t i = 0; i < candidates.size(); ++i) {
    const Prediction* p = candidates[i].prediction;
    if (p == nullptr) {
      scores[i] = Unanswered(candidates[i]);
      continue;
    }
    scores[i] = ScoreOf(SloRule(w), *p);
    if (p->ttft.seconds() > best_ttft + w.slo_ttft_guard.seconds()) scores[i] += kUnanswered / 2;
  }
}

class SloPolicy final : public Policy {
 public:
  explicit SloPolicy(const PolicyWeights& w) : w_(w) {}
  std::string_view name() const override { return "slo"; }
  PolicyNeeds needs() const override { return PolicyNeeds::kExternality; }
  void Score(const PolicyRequest&, Candidates candidates, Prng&, Scores scores) override { SloScores(candidates, w_, scores); }
  ScoreRule score_rule() const override { return SloRule(w_); }

 private:
  PolicyWeights w_;
};

// Under SLO stress: the slo score. Otherwise: own E2E + harm to others. The choice is made anew for every decision from its own
// predictions, so it follows the load without a memory of its own.
class AutoPolicy final : public Policy {
 public:
  explicit AutoPolicy(const PolicyWeights& w) : w_(w) {}
  std::string_view name() const override { return "auto"; }
  PolicyNeeds needs() const override { return PolicyNeeds::kExternality; }
  void Score(const PolicyRequest&, Candidates candidates, Prng&, Scores scores) override {
    double least = 1;
    for (const Candidate& c : candidates)
      if (c.prediction) least = std::min(least, c.prediction->slo_violation + c.prediction->slo_violation_added);
    stressed_ = least >= w_.auto_stress;
    if (stressed_) return SloScores(candidates, w_, scores);
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] =
          candidates[i].prediction ? ScoreOf({ScoreKind::kExternality}, *candidates[i].prediction) : Unanswered(candidates[i]);
  }
  ScoreRule score_rule() const override { return stressed_ ? SloRule(w_) : ScoreRule{ScoreKind::kExternality}; }

 private:
  PolicyWeights w_;
  bool stressed_ = false;  // of the latest decision
};

// Prediction with affinity and load terms.
class Hybrid final : public Policy {
 public:
  explicit Hybrid(const PolicyWeights& w) : w_(w) {}
  std::string_view name() const override { return "hybrid"; }
  PolicyNeeds needs() const override { return PolicyNeeds::kPredictions; }
  void Score(const PolicyRequest& r, Candidates candidates, Prng&, Scores scores) override {
    for (size_t i = 0; i < candidates.size(); ++i) {
      const Candidate& c = candidates[i];
      if (c.prediction == nullptr) {
        scores[i] = Unanswered(c);
        continue;
      }
      const double uncached = static_cast<double>(r.meta->prompt_tokens.value() - c.prediction->cached_tokens.value());
      scores[i] = ScoreOf({ScoreKind::kE2e}, *c.prediction) + w_.hybrid_load_weight * c.load.requests +
                  w_.hybrid_prefill_weight * uncached;
    }
  }
  ScoreRule score_rule() const override { return {ScoreKind::kE2e}; }

 private:
  PolicyWeights w_;
};

}  // namespace

std::unique_ptr<Policy> MakePredictivePolicy(std::string_view name, const PolicyWeights& weights) {
  if (name == "min_ttft") return std::make_unique<ByPrediction>("min_ttft", PolicyNeeds::kPredictions, ScoreKind::kTtft);
  if (name == "min_e2e") return std::make_unique<ByPrediction>("min_e2e", PolicyNeeds::kPredictions, ScoreKind::kE2e);
  if (name == "externality")
    return std::make_unique<ByPrediction>("externality", PolicyNeeds::kExternality, ScoreKind::kExternality);
  if (name == "slo") return std::make_unique<SloPolicy>(weights);
  if (name == "auto") return std::make_unique<AutoPolicy>(weights);
  if (name == "hybrid") return std::make_unique<Hybrid>(weights);
  return nullptr;
}

}  // namespace foretoken
