// OwnErrors: how far a mirror's own predictions were off, from what was answered about a request just before it was assigned and what
// came. The error of an E2E is that of its pace: a request that ends earlier or later than it was expected to is compared with the
// prediction stretched to its real length, because the length has a spread of its own (DecodeOfLongOutput).
// Guarantees: asking changes only what is remembered of the last four questions, never an answer's median.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/predict/error_spread.h"
#include "runtime/workload/length_estimator.h"

namespace foretoken {

// The decode time `decode` of the expected output, at the length's 90th percentile and the same pace.
inline Duration DecodeOfLongOutput(const LengthEstimator* lengths, const PredictQuery& query, Duration decode) {
  const int64_t gaps = query.expected_output.value() - 1;
  if (gaps <= 0 || lengths == nullptr) return decode;
  const RequestMeta& meta = *query.request;
  const LengthKey key{meta.id, meta.length_class, std::max(0.9, query.length_quantile), meta.max_tokens, meta.output_hint};
  const int64_t longer = lengths->Total(key, TokenCount(0)).value() - 1;
  return longer > gaps ? Duration::Nanos(decode.nanos() / gaps * longer) : decode;
}

// What was predicted of one request; kept with it.
struct Forecast {
  int64_t ready_ns = 0;
  float ttft_s = -1;  // negative: nobody asked
  float e2e_s = -1;
  int32_t expected = 1;  // output tokens
  bool first_token_came = false;
};

class OwnErrors {
 public:
  // An answer was given.
  void Answered(RequestId request, const Prediction& p) {
    answers_[next_++ % answers_.size()] = {request, static_cast<float>(p.ttft.seconds()), static_cast<float>(p.e2e.seconds())};
  }
  // The request was assigned.
  Forecast ForecastOf(RequestId request, int64_t expected, Instant now) const {
    Forecast f{now.nanos(), -1, -1, static_cast<int32_t>(expected), false};
    for (const Answer& a : answers_) {
      if (a.ttft_s >= 0 && a.request == request) f.ttft_s = a.ttft_s, f.e2e_s = a.e2e_s;
    }
    return f;
  }
  // Its first token came; `offset` is what the front end adds. Later calls for the same request say nothing.
  void FirstToken(Forecast& f, Instant at, Duration offset) {
    if (f.ttft_s >= 0 && !f.first_token_came) ttft_.Observe(Duration::FromSeconds(f.ttft_s), Since(f, at) + offset);
    f.first_token_came = true;
  }
  // It ended after `output` tokens.
  void Ended(const Forecast& f, int32_t output, Instant at, Duration offset) {
    if (f.ttft_s < 0 || f.expected < 2 || output < 2) return;
    const double decode_s = static_cast<double>(f.e2e_s - f.ttft_s) / (f.expected - 1) * (output - 1);
    e2e_.Observe(Duration::FromSeconds(f.ttft_s + decode_s), Since(f, at) + offset);
  }

  // Fills what follows from ttft, e2e and tpot: their 90th percentiles and P(violation).
  void Fill(const PredictQuery& query, const LengthEstimator* lengths, Prediction& p) const {
    p.ttft_p90 = Duration::FromSeconds(p.ttft.seconds() * ttft_.factor_p90());
    const Duration late = p.ttft + DecodeOfLongOutput(lengths, query, p.e2e - p.ttft);
    p.e2e_p90 = Duration::FromSeconds(late.seconds() * e2e_.factor_p90());
    const double ttft_miss = ttft_.Exceeds(p.ttft.seconds(), query.slo.ttft.seconds());
    const double tpot_miss = p.tpot ? e2e_.Exceeds(p.tpot->seconds(), query.slo.tpot.seconds()) : 0.0;
    p.slo_violation = 1 - (1 - ttft_miss) * (1 - tpot_miss);
  }
  const ErrorSpread& e2e() const { return e2e_; }

 private:
  struct Answer {
    RequestId request;
    float ttft_s = -1;
    float e2e_s = -1;
  };
  static Duration Since(const Forecast& f, Instant at) { return Duration::Nanos(at.nanos() - f.ready_ns); }

  std::array<Answer, 4> answers_{};
  uint32_t next_ = 0;
  ErrorSpread ttft_;
  ErrorSpread e2e_;
};

}  // namespace foretoken
