#include "runtime/perf/calibrator.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/base/check.h"

namespace foretoken {
namespace {

constexpr double kLowestFactor = 0.25, kHighestFactor = 4.0;
constexpr double kLeastRatio = 0.2, kMostRatio = 8.0;  // of measured to law
constexpr double kOutlierSpreads = 3.0;                // errors beyond this many mean errors count less
constexpr double kSpreadMemory = 0.95;
constexpr double kLeastSpread = 0.005;

// Position between the knots 2^i and 2^(i+1).
struct Place {
  size_t knot = 0;
  double upper = 0;  // weight of knot + 1
};

Place PlaceOf(int64_t count) {
  const double at = std::log2(static_cast<double>(std::max<int64_t>(1, count)));
  const size_t knot = std::min(static_cast<size_t>(at), Calibrator::kKnots - 2);
  return {knot, std::clamp(at - static_cast<double>(knot), 0.0, 1.0)};
}

size_t KindOf(const StepShape& s) { return s.prefill_tokens > 0 ? 1 : 0; }
Place PlaceOf(const StepShape& s) { return PlaceOf(s.prefill_tokens > 0 ? s.prefill_tokens : s.decode_seqs); }

}  // namespace

class Calibrator::CorrectedLaw final : public StepTimeLaw {
 public:
  CorrectedLaw(std::shared_ptr<const StepTimeLaw> base, const Corrections& corrections)
      : base_(std::move(base)), corrections_(corrections) {}

  double NanosOf(const StepShape& s) const override {
    if (s.prefill_tokens == 0) {
      if (s.decode_seqs == 0) return 0;
      const DecodeSegment segment = DecodeSegmentAt(s.decode_seqs, s.decode_kv_tokens);
      return segment.base_ns + segment.per_kv_token_ns * static_cast<double>(s.decode_kv_tokens);
    }
    const Correction c = At(1, PlaceOf(s.prefill_tokens));
    return base_->NanosOf(s) * c.factor + c.overhead_ns;
  }
  DecodeSegment DecodeSegmentAt(int64_t decode_seqs, int64_t kv) const override {
    const Correction c = At(0, PlaceOf(decode_seqs));
    DecodeSegment s = base_->DecodeSegmentAt(decode_seqs, kv);
    s.base_ns = s.base_ns * c.factor + c.overhead_ns;
    s.per_kv_token_ns *= c.factor;
    return s;
  }

 private:
  Correction At(size_t kind, Place p) const {
    const Correction &a = corrections_[kind][p.knot], &b = corrections_[kind][p.knot + 1];
    return {a.factor + p.upper * (b.factor - a.factor), a.overhead_ns + p.upper * (b.overhead_ns - a.overhead_ns)};
  }

  std::shared_ptr<const StepTimeLaw> base_;
  Corrections corrections_;
};

Calibrator::Calibrator(std::shared_ptr<const StepTimeLaw> base, Options options) : base_(std::move(base)), options_(options) {
  FT_CHECK(base_ != nullptr);
  FT_CHECK(options_.forgetting > 0 && options_.forgetting <= 1);
  published_ = std::make_shared<CorrectedLaw>(base_, current_);
}

void Calibrator::Add(Sums& s, const Sample& x) const {
  if (x.share <= 0) return;
  const double decay = 1 - (1 - options_.forgetting) * x.robust * x.share;
  for (double* sum : {&s.n, &s.tt, &s.t, &s.one, &s.ty, &s.y, &s.mean_t}) *sum *= decay;
  const double t = x.share * x.law_ns / x.unit_ns, one = x.share / x.unit_ns;
  s.n += x.robust * x.share;
  s.tt += x.robust * t * t;
  s.t += x.robust * t * one;
  s.one += x.robust * one * one;
  s.ty += x.robust * t * x.target;
  s.y += x.robust * one * x.target;
  s.mean_t += x.robust * x.share * x.law_ns;
}

Calibrator::Correction Calibrator::Solve(const Sums& s, double prior_factor) const {
  Correction c{prior_factor, 0};
  if (s.n <= 0) return c;
  // The prior: so many observations with the mean's factor at the regime's typical time, and half as many without overhead.
  const double typical = s.mean_t / s.n, w = options_.prior_weight;
  const double tt = s.tt + w / (prior_factor * prior_factor), ty = s.ty + w / prior_factor;
  const double one = s.one + 0.5 * w / (typical * typical);
  const double determinant = tt * one - s.t * s.t;
  if (determinant > 0) {
    c.factor = (ty * one - s.y * s.t) / determinant;
    c.overhead_ns = (s.y * tt - ty * s.t) / determinant;
  }
  if (c.overhead_ns < 0 || determinant <= 0) {
    c.overhead_ns = 0;
    c.factor = ty / tt;
  }
  c.overhead_ns = std::min(c.overhead_ns, typical);
  c.factor = std::clamp(c.factor, kLowestFactor, kHighestFactor);
  return c;
}

void Calibrator::Observe(const StepShape& shape, Duration measured) {
  const double law_ns = base_->NanosOf(shape);
  if (law_ns <= 0 || measured.nanos() <= 0) return;
  ++observed_;
  // Beyond what a correction may do, a measurement says no more than "far off".
  const double measured_ns = std::clamp(static_cast<double>(measured.nanos()), kLeastRatio * law_ns, kMostRatio * law_ns);
  const size_t kind = KindOf(shape);
  const Place place = PlaceOf(shape);
  const size_t knot[2] = {place.knot, place.knot + 1};
  const double share[2] = {1 - place.upper, place.upper};
  double part[2];  // what each knot adds to the present prediction
  for (size_t i = 0; i < 2; ++i) {
    const Correction& c = current_[kind][knot[i]];
    part[i] = share[i] * (c.factor * law_ns + c.overhead_ns);
  }
  // Errors count relative to the prediction. Relative to the measured time they would pull it below the mean (a third too low
  // on steps that vary by half), and an end of many steps is the sum of their means.
  const double predicted_ns = part[0] + part[1];
  const double error = std::abs(measured_ns / predicted_ns - 1);
  const double robust = std::min(1.0, kOutlierSpreads * spread_ / std::max(error, 1e-12));
  // A regime's first steps may be far off for good reason: they widen the spread.
  spread_ = std::max(kLeastSpread, kSpreadMemory * spread_ + (1 - kSpreadMemory) * std::min(error, 2.0));
  Add(all_, {law_ns, predicted_ns, 1, measured_ns / predicted_ns, robust});
  const double mean_factor = std::clamp(all_.ty / all_.tt, kLowestFactor, kHighestFactor);
  for (size_t i = 0; i < 2; ++i) {  // each knot explains what the other leaves
    Add(sums_[kind][knot[i]], {law_ns, predicted_ns, share[i], (measured_ns - part[1 - i]) / predicted_ns, robust});
  }
  for (size_t k = 0; k < 2; ++k) {
    for (size_t i = 0; i < kKnots; ++i) current_[k][i] = Solve(sums_[k][i], mean_factor);
  }
  PublishIfMoved();
}

void Calibrator::PublishIfMoved() {
  double moved = 0;
  for (size_t k = 0; k < 2; ++k) {
    for (size_t i = 0; i < kKnots; ++i) {
      const Correction &now = current_[k][i], &then = last_published_[k][i];
      const double typical = sums_[k][i].n > 0 ? sums_[k][i].mean_t / sums_[k][i].n : 1e9;
      moved =
          std::max(moved, std::abs(now.factor - then.factor + (now.overhead_ns - then.overhead_ns) / typical) / then.factor);
    }
  }
  if (moved <= options_.publish_change) return;
  last_published_ = current_;
  published_ = std::make_shared<CorrectedLaw>(base_, current_);
  ++version_;
}

}  // namespace foretoken
