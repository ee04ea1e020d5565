#include "runtime/sched/policies/simple.h"

#include <algorithm>
#include <cmath>

namespace foretoken {
namespace {

using Candidates = std::span<const Candidate>;
using Scores = std::span<double>;

// Seconds per prompt token and of one decode step, from what is known of the instance's speed; 1 when nothing is.
double PrefillTokenSeconds(const Candidate& c) {
  if (c.step_time == nullptr) return 1;
  constexpr int64_t kChunk = 2048;
  return c.step_time->NanosOf({.prefill_tokens = kChunk}) * 1e-9 / kChunk;
}
double DecodeStepSeconds(const Candidate& c, int64_t seqs, int64_t kv) {
  if (c.step_time == nullptr) return 1;
  return c.step_time->NanosOf({.decode_seqs = std::max<int64_t>(seqs, 1), .decode_kv_tokens = std::max<int64_t>(kv, 1)}) * 1e-9;
}
double NewPrefill(const PolicyRequest& r, const Candidate& c) {
  return static_cast<double>(std::max<int64_t>(r.meta->prompt_tokens.value() - c.cached_tokens, 1));
}

class Random final : public Policy {
 public:
  std::string_view name() const override { return "random"; }
  PolicyNeeds needs() const override { return PolicyNeeds::kNothing; }
  void Score(const PolicyRequest&, Candidates candidates, Prng& prng, Scores scores) override {
    for (size_t i = 0; i < candidates.size(); ++i) scores[i] = prng.Unit();
  }
};

class RoundRobin final : public Policy {
 public:
  std::string_view name() const override { return "round_robin"; }
  PolicyNeeds needs() const override { return PolicyNeeds::kNothing; }
  void Score(const PolicyRequest&, Candidates candidates, Prng& prng, Scores scores) override {
    if (!started_) {
      next_ = static_cast<uint32_t>(prng.Below(candidates.size()));
      started_ = true;
    }
    // The first candidate at or after the cursor, by instance: the set may change between decisions.
    size_t best = 0;
    bool found = false;
    for (size_t i = 0; i < candidates.size(); ++i) {
      const bool ahead = candidates[i].instance.value() >= next_;
      if (!found && ahead) best = i, found = true;
      scores[i] = 1;
    }
    scores[best] = 0;
    next_ = candidates[best].instance.value() + 1;
  }

 private:
  bool started_ = false;
  uint32_t next_ = 0;
};

class PowerOfTwo final : public Policy {
 public:
  std::string_view name() const override { return "p2c"; }
  PolicyNeeds needs() const override { return PolicyNeeds::kLoads; }
  void Score(const PolicyRequest&, Candidates candidates, Prng& prng, Scores scores) override {
    std::fill(scores.begin(), scores.end(), kExcluded);
    const size_t a = prng.Below(candidates.size());
    size_t b = a;
    if (candidates.size() > 1) b = (a + 1 + prng.Below(candidates.size() - 1)) % candidates.size();
    scores[a] = candidates[a].load.requests;
    scores[b] = candidates[b].load.requests;
  }
};

// A rule that is a formula over one candidate.
using Formula = double (*)(const PolicyRequest&, const Candidate&, const PolicyWeights&);

class ByFormula final : public Policy {
 public:
  ByFormula(std::string_view name, Formula formula, const PolicyWeights& weights)
      : name_(name), formula_(formula), weights_(weights) {}
  std::string_view name() const override { return name_; }
  PolicyNeeds needs() const override { return PolicyNeeds::kLoads; }
  void Score(const PolicyRequest& r, Candidates candidates, Prng&, Scores scores) override {
    for (size_t i = 0; i < candidates.size(); ++i) scores[i] = formula_(r, candidates[i], weights_);
  }

 private:
  std::string_view name_;
  Formula formula_;
  PolicyWeights weights_;
};

double LeastRequests(const PolicyRequest&, const Candidate& c, const PolicyWeights&) { return c.load.requests; }

double LeastTokens(const PolicyRequest&, const Candidate& c, const PolicyWeights&) {
  return static_cast<double>(c.load.context_tokens + c.load.expected_output_left);
}

// (used + waiting demand) / capacity, as Llumnix's dispatch.
double KvLoad(const PolicyRequest& r, const Candidate& c, const PolicyWeights&) {
  const double demand = static_cast<double>(c.load.context_tokens) + NewPrefill(r, c);
  return demand / static_cast<double>(std::max<int64_t>(c.kv_tokens, 1));
}

// Weighted sum of queue depth, KV use and missing prefix, each scaled to 0..1 in its usual range, as llm-d's default scorers.
double PrefixWeighted(const PolicyRequest& r, const Candidate& c, const PolicyWeights& w) {
  const double queue = std::min(1.0, c.load.prefilling / 128.0);
  const double kv =
      std::min(1.0, static_cast<double>(c.load.context_tokens) / static_cast<double>(std::max<int64_t>(c.kv_tokens, 1)));
  const double missing = NewPrefill(r, c) / static_cast<double>(std::max<int64_t>(r.meta->prompt_tokens.value(), 1));
  return w.prefix_queue * queue + w.prefix_kv * kv + w.prefix_missing * missing;
}

// Uncached prefill blocks + active decode blocks, as Dynamo's KV router.
double KvRouterCost(const PolicyRequest& r, const Candidate& c, const PolicyWeights& w) {
  constexpr double kBlock = 16;
  return w.kv_router_prefill * (static_cast<double>(c.load.prefill_tokens) + NewPrefill(r, c)) / kBlock +
         static_cast<double>(c.load.context_tokens) / kBlock;
}

double LMetric(const PolicyRequest& r, const Candidate& c, const PolicyWeights&) {
  return (static_cast<double>(c.load.prefill_tokens) + NewPrefill(r, c)) * (c.load.requests + 1);
}

// (uncomputed + new prefill) x t_prefill_token x (batch + 1) + estimated output x step(batch, kv).
double LMetricW(const PolicyRequest& r, const Candidate& c, const PolicyWeights& w) {
  const double prefill = static_cast<double>(c.load.prefill_tokens) + NewPrefill(r, c);
  return prefill * PrefillTokenSeconds(c) * (c.load.requests + 1) +
         w.lmetricw_output * static_cast<double>(r.expected_output.value()) *
             DecodeStepSeconds(c, c.load.requests + 1, c.load.context_tokens);
}

// For TTFT: half a step in flight + one decode step + the prefill work ahead.
double V0(const PolicyRequest& r, const Candidate& c, const PolicyWeights& w) {
  const double step = DecodeStepSeconds(c, c.load.requests, c.load.context_tokens);
  return w.v0_steps * step + (static_cast<double>(c.load.prefill_tokens) + NewPrefill(r, c)) * PrefillTokenSeconds(c);
}

// Seconds of work outstanding: prefill left, and the output left shared by the batch.
double LeastWorkLeft(const PolicyRequest& r, const Candidate& c, const PolicyWeights& w) {
  const double prefill = (static_cast<double>(c.load.prefill_tokens) + NewPrefill(r, c)) * PrefillTokenSeconds(c);
  const double output = static_cast<double>(c.load.expected_output_left + r.expected_output.value());
  return prefill +
         w.lwl_output * output / (c.load.requests + 1) * DecodeStepSeconds(c, c.load.requests + 1, c.load.context_tokens);
}

// Longest-processing-time view: prefill work ahead weighted by this request's own size.
double Lpt(const PolicyRequest& r, const Candidate& c, const PolicyWeights&) {
  return (static_cast<double>(c.load.prefill_tokens) + NewPrefill(r, c)) * PrefillTokenSeconds(c);
}

// Consistent hashing with bounded load: the first of the session's hash order whose load is below 1.25 x the mean.
class SessionAffinity final : public Policy {
 public:
  explicit SessionAffinity(const PolicyWeights& w) : bound_(w.affinity_bound) {}
  std::string_view name() const override { return "session_affinity"; }
  PolicyNeeds needs() const override { return PolicyNeeds::kLoads; }
  void Score(const PolicyRequest& r, Candidates candidates, Prng&, Scores scores) override {
    double total = 1;
    for (const Candidate& c : candidates) total += c.load.requests;
    const double bound = std::ceil(bound_ * total / static_cast<double>(candidates.size()));
    // Without a session every request is a session of its own: spread, never all to one.
    const uint64_t key = r.meta->session != 0 ? r.meta->session : Mix64(r.meta->id.value(), 0x5E55);
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double rank = UnitFrom(Mix64(key, candidates[i].instance.value()));  // rendezvous hashing
      scores[i] = candidates[i].load.requests < bound ? rank : 1 + candidates[i].load.requests;
    }
  }

 private:
  double bound_;
};

// The longest cached prefix while loads are balanced; the least loaded otherwise (as cache-aware routers do).
class CacheAware final : public Policy {
 public:
  explicit CacheAware(const PolicyWeights& w) : gap_(w.cache_gap), ratio_(w.cache_ratio) {}
  std::string_view name() const override { return "cache_aware"; }
  PolicyNeeds needs() const override { return PolicyNeeds::kLoads; }
  void Score(const PolicyRequest& r, Candidates candidates, Prng&, Scores scores) override {
    int32_t lo = candidates[0].load.requests, hi = lo;
    int64_t best = 0;
    for (const Candidate& c : candidates) {
      lo = std::min(lo, c.load.requests);
      hi = std::max(hi, c.load.requests);
      best = std::max(best, c.cached_tokens);
    }
    const bool unbalanced = hi - lo > gap_ && hi > ratio_ * lo;
    const bool match = best * 2 > r.meta->prompt_tokens.value();
    for (size_t i = 0; i < candidates.size(); ++i)
      scores[i] = !unbalanced && match ? -static_cast<double>(candidates[i].cached_tokens) : candidates[i].load.requests;
  }

 private:
  double gap_, ratio_;
};

struct NamedFormula {
  std::string_view name;
  Formula formula;
};
constexpr NamedFormula kFormulas[] = {{"least_requests", LeastRequests},
                                      {"least_tokens", LeastTokens},
                                      {"kv_load", KvLoad},
                                      {"prefix_weighted", PrefixWeighted},
                                      {"kv_router_cost", KvRouterCost},
                                      {"lmetric", LMetric},
                                      {"lmetricw", LMetricW},
                                      {"v0", V0},
                                      {"lwl", LeastWorkLeft},
                                      {"lpt", Lpt}};

}  // namespace

std::unique_ptr<Policy> MakeSimplePolicy(std::string_view name, const PolicyWeights& weights) {
  if (name == "random") return std::make_unique<Random>();
  if (name == "round_robin") return std::make_unique<RoundRobin>();
  if (name == "p2c") return std::make_unique<PowerOfTwo>();
  if (name == "session_affinity") return std::make_unique<SessionAffinity>(weights);
  if (name == "cache_aware") return std::make_unique<CacheAware>(weights);
  for (const NamedFormula& f : kFormulas)
    if (f.name == name) return std::make_unique<ByFormula>(f.name, f.formula, weights);
  return nullptr;
}

}  // namespace foretoken
