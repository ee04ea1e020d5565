// The profile that a trace fits.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/base/check.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {
namespace {

LengthProfile LengthsOf(const Trace& trace, size_t strata) {
  const auto& rows = trace.requests;
  std::vector<size_t> by_prompt(rows.size());
  std::iota(by_prompt.begin(), by_prompt.end(), size_t{0});
  const auto prompt = [&](size_t i) { return rows[i].meta.prompt_tokens.value(); };
  std::stable_sort(by_prompt.begin(), by_prompt.end(), [&](size_t a, size_t b) { return prompt(a) < prompt(b); });
  LengthProfile out;
  std::vector<double> prompts;
  for (const size_t i : by_prompt) prompts.push_back(static_cast<double>(prompt(i)));
  out.prompt = QuantileTable::Of(prompts);
  strata = std::clamp<size_t>(strata, 1, rows.size());
  for (size_t k = 0; k < strata; ++k) {
    std::vector<double> outputs;
    for (size_t i = k * rows.size() / strata; i < (k + 1) * rows.size() / strata; ++i)
      outputs.push_back(static_cast<double>(rows[by_prompt[i]].truth.output_tokens.value()));
    out.output_by_prompt.push_back(QuantileTable::Of(outputs));
  }
  return out;
}

// Rates per piece, and the gaps measured in what the rates let expect (the time change that makes the rate 1).
ArrivalProfile ArrivalsOf(const Trace& trace, Duration piece) {
  const auto& rows = trace.requests;
  const Instant start = rows.front().meta.arrival;
  const double span = (rows.back().meta.arrival - start).seconds(), width = piece.seconds();
  ArrivalProfile out;
  out.kind = ArrivalKind::kEmpirical;
  out.piece = piece;
  out.rate_rps = static_cast<double>(rows.size() - 1) / span;
  out.weights.assign(static_cast<size_t>(span / width) + 1, 0);
  const auto since = [&](size_t i) { return (rows[i].meta.arrival - start).seconds(); };
  // The first arrival opens the first gap and ends none.
  for (size_t i = 1; i < rows.size(); ++i) ++out.weights[static_cast<size_t>(since(i) / width)];
  // The last piece is cut off by the trace's end: its rate is over what there is of it.
  const double last = span - width * static_cast<double>(out.weights.size() - 1);
  std::vector<double> expected;  // arrivals up to the start of each piece
  double sum = 0;
  for (const double w : out.weights) {
    expected.push_back(sum);
    sum += w;
  }
  const auto expected_at = [&](size_t i) {
    const auto k = static_cast<size_t>(since(i) / width);
    const double length = k + 1 == out.weights.size() && last > 0 ? last : width;
    return expected[k] + out.weights[k] * (since(i) - width * static_cast<double>(k)) / length;
  };
  std::vector<double> gaps;
  for (size_t i = 1; i < rows.size(); ++i) gaps.push_back(std::max(0.0, expected_at(i) - expected_at(i - 1)));
  out.gaps = QuantileTable::Of(std::move(gaps));
  if (out.weights.size() > 1 && last < width / 2) {
    out.weights.pop_back();  // too short a piece to tell a rate
  } else if (last > 0) {
    out.weights.back() = std::round(out.weights.back() * width / last);
  }
  // The mean over whole pieces: weights keep the shape, this the level.
  out.rate_rps =
      std::accumulate(out.weights.begin(), out.weights.end(), 0.0) / (static_cast<double>(out.weights.size()) * width);
  if (out.weights.size() == 1) {
    out.rate_rps = static_cast<double>(rows.size() - 1) / span;
    out.weights.clear();
  }
  return out;
}

}  // namespace

SynthProfile ProfileOf(const Trace& trace, const ProfileOptions& options) {
  const auto& rows = trace.requests;
  FT_CHECK(rows.size() >= 2 && rows.back().meta.arrival > rows.front().meta.arrival && options.piece > Duration());
  SynthProfile out;
  out.name = trace.name;
  out.requests = rows.size();
  out.lengths = LengthsOf(trace, options.strata);
  out.arrivals = ArrivalsOf(trace, options.piece);
  std::vector<int64_t> outputs;
  for (const TraceRequest& r : rows) outputs.push_back(r.truth.output_tokens.value());
  std::sort(outputs.begin(), outputs.end());
  constexpr size_t kSteps = 64;
  for (size_t k = 0; k <= kSteps; ++k) out.output_tokens.push_back(outputs[k * (outputs.size() - 1) / kSteps]);
  return out;
}

}  // namespace foretoken
