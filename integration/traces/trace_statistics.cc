#include "integration/traces/trace_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <unordered_map>
#include <unordered_set>

#include "runtime/base/check.h"
#include "runtime/base/prng.h"
#include "runtime/metrics/rank_agreement.h"
#include "runtime/metrics/sample_set.h"

namespace foretoken {
namespace {

LengthStatistics LengthsOf(const SampleSet& set) {
  LengthStatistics out;
  for (const double v : set.values()) out.total += static_cast<int64_t>(v);
  out.mean = *set.Mean();
  for (size_t k = 0; k < out.quantiles.size(); ++k) out.quantiles[k] = *set.Quantile(LengthStatistics::kQuantiles[k]);
  return out;
}

void AddArrivals(const Trace& trace, TraceStatistics& out) {
  const Instant start = trace.requests.front().meta.arrival;
  out.span = trace.requests.back().meta.arrival - start;
  int64_t second = -1, in_second = 0;
  double sum = 0, squares = 0;
  for (size_t i = 0; i < trace.requests.size(); ++i) {
    const Instant at = trace.requests[i].meta.arrival;
    if (const int64_t s = (at - start).nanos() / 1'000'000'000; s != second) {
      second = s;
      in_second = 0;
    }
    out.peak_per_second = std::max(out.peak_per_second, ++in_second);
    if (i == 0) continue;
    const double gap = (at - trace.requests[i - 1].meta.arrival).seconds();
    sum += gap;
    squares += gap * gap;
  }
  const double gaps = static_cast<double>(trace.requests.size()) - 1;
  if (sum <= 0) return;
  out.rate_rps = gaps / sum;
  const double mean = sum / gaps;
  out.gap_cv = std::sqrt(std::max(0.0, squares / gaps - mean * mean)) / mean;
  out.peak_over_mean =
      static_cast<double>(out.peak_per_second) / (static_cast<double>(trace.requests.size()) / std::max(1.0, sum));
}

// The prompts seen so far as a tree of segments: a node is the hash of the path to it.
class PrefixTree {
 public:
  // Tokens at the start of the prompt that an earlier request had too; then remembers the prompt and the output behind it.
  int64_t Visit(const TraceRequest& request) {
    std::vector<PromptSegment> path = request.meta.segments;
    if (path.empty()) path.push_back({PrivateContent(request.meta.id), request.meta.prompt_tokens});
    const size_t prompt_parts = path.size();
    path.push_back({OutputContent(request.meta.id), request.truth.output_tokens});
    uint64_t node = 0;
    int64_t shared = 0;
    bool matching = true;
    for (size_t i = 0; i < path.size(); ++i) {
      const uint64_t branch = Mix64(node, path[i].content);
      int64_t& longest = longest_[branch];
      if (matching && i < prompt_parts) shared += std::min(longest, path[i].length.value());
      longest = std::max(longest, path[i].length.value());
      node = Mix64(branch, static_cast<uint64_t>(path[i].length.value()));
      matching &= !nodes_.insert(node).second;
    }
    return shared;
  }

 private:
  std::unordered_map<uint64_t, int64_t> longest_;  // of the runs of one content that follow one node
  std::unordered_set<uint64_t> nodes_;
};

}  // namespace

TraceStatistics StatisticsOf(const Trace& trace) {
  FT_CHECK(!trace.requests.empty());
  TraceStatistics out;
  out.requests = trace.requests.size();
  AddArrivals(trace, out);
  SampleSet prompts, outputs;
  PrefixTree tree;
  std::unordered_set<uint64_t> sessions;
  size_t sharing = 0;
  int64_t reusable = 0;
  for (const TraceRequest& r : trace.requests) {
    prompts.Add(static_cast<double>(r.meta.prompt_tokens.value()));
    outputs.Add(static_cast<double>(r.truth.output_tokens.value()));
    const int64_t shared = tree.Visit(r);
    if (shared > 0) ++sharing;
    reusable += shared;
    if (r.meta.session != 0) sessions.insert(r.meta.session);
    if (r.meta.max_tokens) ++out.with_max_tokens;
  }
  out.prompt = LengthsOf(prompts);
  out.output = LengthsOf(outputs);
  out.rank_correlation = Spearman(prompts.values(), outputs.values()).value_or(0);
  out.sharing_requests = static_cast<double>(sharing) / static_cast<double>(out.requests);
  out.reusable_tokens = static_cast<double>(reusable) / static_cast<double>(out.prompt.total);
  out.sessions = sessions.size();
  return out;
}

std::vector<std::string> LengthHistogram(const std::vector<int64_t>& lengths, size_t width) {
  std::vector<size_t> counts;  // [2^k, 2^(k+1))
  for (const int64_t n : lengths) {
    const auto k = static_cast<size_t>(std::bit_width(static_cast<uint64_t>(std::max<int64_t>(n, 1)))) - 1;
    if (k >= counts.size()) counts.resize(k + 1);
    ++counts[k];
  }
  std::vector<std::string> lines;
  if (counts.empty()) return lines;
  size_t first = 0;
  while (counts[first] == 0) ++first;
  const size_t most = *std::max_element(counts.begin(), counts.end());
  constexpr size_t kMargin = 34;  // the text before the bar
  const size_t room = width > kMargin + 10 ? width - kMargin : 10;
  for (size_t k = first; k < counts.size(); ++k) {
    char text[80];
    std::snprintf(text, sizeof text, "  %8zu - %-8zu %8zu %5.1f%% ", size_t{1} << k, (size_t{2} << k) - 1, counts[k],
                  100.0 * static_cast<double>(counts[k]) / static_cast<double>(lengths.size()));
    std::string line = text;
    const size_t bar = (counts[k] * room + most - 1) / most;
    for (size_t i = 0; i < bar; ++i) line += "\u2588";
    lines.push_back(line);
  }
  return lines;
}

}  // namespace foretoken
