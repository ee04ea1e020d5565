#include "integration/accuracy/recorded_predictions.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/metrics/prediction_error.h"
#include "runtime/metrics/rank_agreement.h"
#include "runtime/predict/make_predictor.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken::accuracy {
namespace {

// One metric's predictions beside what came.
class Scored {
 public:
  void Add(Duration p50, Duration p90, Duration actual) {
    predicted_.push_back(p50.seconds());
    actual_.push_back(actual.seconds());
    error_.Add(p50.seconds(), actual.seconds());
    within_p50_ += actual <= p50 ? 1 : 0;
    within_p90_ += actual <= p90 ? 1 : 0;
  }

  MetricScore Score() const {
    MetricScore s;
    s.count = actual_.size();
    if (s.count == 0) return s;
    s.ape_p50 = error_.ApeQuantile(0.5).value_or(0);
    s.ape_p95 = error_.ApeQuantile(0.95).value_or(0);
    s.ape_p99 = error_.ApeQuantile(0.99).value_or(0);
    s.bias = error_.Bias().value_or(0);
    s.spearman = Spearman(predicted_, actual_);
    s.coverage_p50 = static_cast<double>(within_p50_) / static_cast<double>(s.count);
    s.coverage_p90 = static_cast<double>(within_p90_) / static_cast<double>(s.count);
    return s;
  }

 private:
  PredictionError error_;
  std::vector<double> predicted_, actual_;  // seconds
  size_t within_p50_ = 0, within_p90_ = 0;
};

class Mirror {
 public:
  Mirror(const PredictionSetup& setup, std::unique_ptr<LengthEstimator> lengths, std::unique_ptr<Predictor> predictor)
      : setup_(setup), lengths_(std::move(lengths)), predictor_(std::move(predictor)) {}

  Prediction Arrive(const PredictionRun::Arrival& arrival) {
    RequestMeta meta = arrival.meta;
    if (setup_.lengths == LengthKnowledge::kLearned) meta.max_tokens.reset();
    Reservation r;
    r.request = meta.id;
    r.priority = meta.priority;
    r.arrival = meta.arrival;
    r.prompt_tokens = meta.prompt_tokens.value();
    const double quantile = std::clamp(UnitFrom(Mix64(setup_.seed, meta.id.value())), 1e-6, 1.0 - 1e-6);
    r.length = {meta.id, meta.length_class, quantile, meta.max_tokens, std::nullopt};
    r.expected_output = lengths_->Total(r.length, TokenCount(0)).value();
    r.segments = meta.segments;
    PredictQuery query;
    query.request = &meta;
    query.length_quantile = quantile;
    query.expected_output = TokenCount(r.expected_output);
    const Prediction p = predictor_->Predict(query, meta.arrival);
    predictor_->OnEnqueue(r, meta.arrival);
    predictor_->OnArrived(meta.id, meta.arrival);
    return p;
  }
  void Step(const BatchTrace& trace) {
    for (const BatchTrace::Finish& f : trace.finished) lengths_->Learn(0, TokenCount(f.output_tokens));
    predictor_->OnStep(trace);
  }
  void Gone(RequestId request, Instant at) { predictor_->OnGone(request, at); }

 private:
  const PredictionSetup& setup_;
  std::unique_ptr<LengthEstimator> lengths_;
  std::unique_ptr<Predictor> predictor_;
};

}  // namespace

std::string_view LengthKnowledgeName(LengthKnowledge lengths) {
  switch (lengths) {
    case LengthKnowledge::kLearned: return "sampled";
    case LengthKnowledge::kLearnedWithin: return "sampled<=max_tokens";
    case LengthKnowledge::kMaxTokens: return "max_tokens";
  }
  return "unknown";
}

Result<PredictionScore> ScorePredictions(const PredictionRun& run, const PredictionSetup& setup) {
  const LengthEstimatorKind kind =
      setup.lengths == LengthKnowledge::kMaxTokens ? LengthEstimatorKind::kMaxTokens : LengthEstimatorKind::kSampled;
  Result<std::unique_ptr<LengthEstimator>> lengths = MakeLengthEstimator(kind);
  if (!lengths.ok()) return lengths.error();
  InstanceProfile profile;
  profile.limits = run.limits;
  profile.step_time = setup.step_time;
  profile.calibrate = setup.calibrate;
  profile.expected_arrivals = setup.expected_arrivals;
  Result<std::unique_ptr<Predictor>> predictor = MakePredictor(setup.predictor, std::move(profile), lengths->get());
  if (!predictor.ok()) return predictor.error();
  Mirror mirror(setup, std::move(*lengths), std::move(*predictor));
  Scored ttft, e2e;
  for (const PredictionRun::Event& event : run.events) {
    if (const auto* trace = std::get_if<BatchTrace>(&event.what)) {
      mirror.Step(*trace);
    } else if (const auto* gone = std::get_if<PredictionRun::Gone>(&event.what)) {
      mirror.Gone(*gone, event.at);
    } else {
      const auto& arrival = std::get<PredictionRun::Arrival>(event.what);
      const Prediction p = mirror.Arrive(arrival);
      // Both count from the engine's add.
      const PredictionRun::Came& came = run.came[arrival.meta.id.value()];
      if (came.ttft) ttft.Add(p.ttft - arrival.since, p.ttft_p90 - arrival.since, *came.ttft);
      if (came.e2e) e2e.Add(p.e2e - arrival.since, p.e2e_p90 - arrival.since, *came.e2e);
    }
  }
  return PredictionScore{ttft.Score(), e2e.Score()};
}

}  // namespace foretoken::accuracy
