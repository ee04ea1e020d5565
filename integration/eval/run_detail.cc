#include "integration/eval/run_detail.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace foretoken {
namespace {

namespace json = boost::json;

constexpr size_t kScatterMax = 150;
constexpr size_t kSlicesMax = 60;

// Six significant digits suffice for a drawing and keep the files small.
double Rounded(double v) {
  if (v == 0 || !std::isfinite(v)) return 0;
  const double scale = std::pow(10.0, 5 - std::floor(std::log10(std::abs(v))));
  return std::round(v * scale) / scale;
}

json::array Curve(const std::vector<double>& values) {
  json::array out;
  if (values.empty()) return out;
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  for (int q = 0; q <= 100; ++q) {
    const double position = q / 100.0 * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<size_t>(position);
    const size_t above = std::min(below + 1, sorted.size() - 1);
    out.emplace_back(Rounded(sorted[below] + (sorted[above] - sorted[below]) * (position - static_cast<double>(below))));
  }
  return out;
}

struct Slice {
  size_t arrived = 0, finished = 0, predicted = 0;
  double ttft = 0, e2e = 0;                           // sums over the finished, s
  double predicted_e2e = 0, true_e2e = 0, error = 0;  // sums over those with a prediction, from the decision on
  size_t samples = 0;
  double wrong = 0;  // sum over samples of the requests that mirrors misplaced

  json::array Row() const {
    const auto over = [](double a, double b) { return b > 0 ? json::value(Rounded(a / b)) : json::value(nullptr); };
    const auto n = static_cast<double>(finished);
    json::value bias = nullptr;
    if (true_e2e > 0) bias = Rounded(predicted_e2e / true_e2e - 1);
    return {arrived, over(ttft, n), over(e2e, n), bias, over(error, true_e2e), over(wrong, static_cast<double>(samples))};
  }
};

double SliceSeconds(double seconds) {
  for (double width = 1;; width *= 10)
    for (const double w : {width, 2 * width, 5 * width})
      if (seconds / w <= static_cast<double>(kSlicesMax)) return w;
}

void AddSlices(const RunResult& result, json::object& out) {
  const double length = result.requests.empty() ? 0 : result.requests.back().arrival.seconds();
  const double width = SliceSeconds(length);
  std::vector<Slice> slices(static_cast<size_t>(length / width) + 1);
  for (const RunRequest& r : result.requests) {
    Slice& s = slices[std::min(slices.size() - 1, static_cast<size_t>(r.arrival.seconds() / width))];
    ++s.arrived;
    if (r.outcome != OutcomeKind::kFinished) continue;
    ++s.finished;
    s.ttft += (r.first_token - r.arrival).seconds();
    s.e2e += (r.finish - r.arrival).seconds();
    if (!r.predicted) continue;
    const double truth = (r.finish - r.decided).seconds();
    s.predicted_e2e += r.predicted_e2e.seconds();
    s.true_e2e += truth;
    s.error += std::abs(r.predicted_e2e.seconds() - truth);
  }
  for (const MirrorSample& m : result.samples) {
    Slice& s = slices[std::min(slices.size() - 1, static_cast<size_t>(m.at.seconds() / width))];
    ++s.samples;
    s.wrong += m.wrong;
  }
  json::array rows;
  for (const Slice& s : slices) rows.emplace_back(s.Row());
  out["slice_s"] = width;
  out["slices"] = std::move(rows);
}

}  // namespace

json::object DetailOf(const RunResult& result, double warmup_share, double drain_share) {
  const auto n = static_cast<double>(result.requests.size());
  const auto from = static_cast<size_t>(n * warmup_share);
  const size_t to = std::max(from, result.requests.size() - static_cast<size_t>(n * drain_share));
  std::vector<double> ttft, tpot, e2e;
  json::array scatter;
  const size_t stride = std::max<size_t>(1, (to - from) / kScatterMax);
  for (size_t k = from; k < to; ++k) {
    const RunRequest& r = result.requests[k];
    if (r.outcome != OutcomeKind::kFinished) continue;
    const double first = (r.first_token - r.arrival).seconds(), last = (r.finish - r.arrival).seconds();
    ttft.push_back(first);
    e2e.push_back(last);
    if (r.output_tokens > 1) tpot.push_back((last - first) / (r.output_tokens - 1));
    if (r.predicted && (k - from) % stride == 0)
      scatter.emplace_back(json::array{Rounded(r.predicted_e2e.seconds()), Rounded((r.finish - r.decided).seconds())});
  }
  json::object out{{"ttft", Curve(ttft)}, {"tpot", Curve(tpot)}, {"e2e", Curve(e2e)}, {"scatter", std::move(scatter)}};
  AddSlices(result, out);
  return out;
}

}  // namespace foretoken
