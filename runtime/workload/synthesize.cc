// Draws a trace from a profile. Each concern has a stream of random numbers of its own, so that turning one on (sharing,
// sessions) leaves the numbers of the others as they were.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "runtime/workload/arrival_process.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {
namespace {

constexpr uint64_t kSharedContent = uint64_t{1} << 63;  // apart from OutputContent and PrivateContent

struct Lengths {
  int64_t prompt = 1;
  int64_t output = 1;
};

int64_t Clamp(double tokens, int64_t least, int64_t most) {
  if (!(tokens > static_cast<double>(least))) return least;
  return tokens < static_cast<double>(most) ? std::llround(tokens) : most;
}

Lengths DrawLengths(const LengthProfile& p, Prng& prng) {
  Lengths out;
  if (!p.prompt.empty()) {
    const double u = prng.Unit(), v = prng.Unit();
    const auto stratum = static_cast<size_t>(u * static_cast<double>(p.output_by_prompt.size()));
    out.prompt = Clamp(p.prompt.At(u), p.prompt_min, p.prompt_max);
    out.output = Clamp(p.output_by_prompt[stratum].At(v), p.output_min, p.output_max);
    return out;
  }
  // The Gaussian copula of two lognormals is their logarithms' bivariate normal; 2 sin(pi r / 6) is its correlation for rank
  // correlation r (Pearson 1907).
  const double rho = 2 * std::sin(M_PI * p.rank_correlation / 6);
  const double a = prng.Normal(), b = prng.Normal();
  out.prompt = Clamp(p.prompt_median * std::exp(p.prompt_sigma * a), p.prompt_min, p.prompt_max);
  out.output = Clamp(p.output_median * std::exp(p.output_sigma * (rho * a + std::sqrt(std::max(0.0, 1 - rho * rho)) * b)),
                     p.output_min, p.output_max);
  return out;
}

// One request before ids are given; a later turn names the one before it.
struct Draft {
  Instant at;
  Lengths lengths;             // prompt: of the new message only, in a later turn
  size_t previous = SIZE_MAX;  // index of the draft of the turn before
  uint64_t session = 0;
  size_t order = 0;
  size_t group = SIZE_MAX;  // of the common prefix
  int64_t context = 0;      // prompt tokens in all
};

class Synthesis {
 public:
  Synthesis(const SynthProfile& profile, Prng& prng)
      : p_(profile),
        arrivals_rng_(prng.Next()),
        lengths_rng_(prng.Next()),
        sharing_rng_(prng.Next()),
        sessions_rng_(prng.Next()),
        content_(prng.Next()) {
    double sum = 0;
    for (size_t k = 0; k < p_.sharing.groups; ++k)
      popularity_.push_back(sum += std::pow(static_cast<double>(k + 1), -p_.sharing.zipf));
  }

  Trace Run() {
    // A session that goes on brings turns_mean requests for one arrival.
    const double per_arrival = 1 + p_.sessions.share * (p_.sessions.turns_mean - 1);
    ArrivalProfile opening = p_.arrivals;
    opening.rate_rps /= per_arrival;
    ArrivalProcess process(opening);
    // Later turns come in between, so openings are drawn until those in time order are enough.
    while (drafts_.size() < p_.requests || Before(next_opening_) < p_.requests) {
      next_opening_ = process.Next(arrivals_rng_);
      Open(next_opening_);
      if (per_arrival == 1 && drafts_.size() >= p_.requests) break;
    }
    std::vector<size_t> order(drafts_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [this](size_t a, size_t b) { return drafts_[a].at < drafts_[b].at; });
    order.resize(p_.requests);
    for (size_t i = 0; i < order.size(); ++i) drafts_[order[i]].order = i;
    Trace trace;
    trace.name = p_.name;
    trace.requests.reserve(order.size());
    for (const size_t d : order) Emit(drafts_[d], trace);
    return trace;
  }

 private:
  // Drafts that arrive up to `at`; counted only now and then, as it is not cheap.
  size_t Before(Instant at) {
    if (drafts_.size() < next_count_) return 0;
    next_count_ = drafts_.size() + std::max<size_t>(64, p_.requests / 16);
    return static_cast<size_t>(std::count_if(drafts_.begin(), drafts_.end(), [at](const Draft& d) { return d.at <= at; }));
  }

  void Open(Instant at) {
    Draft first;
    first.at = at;
    first.lengths = DrawLengths(p_.lengths, lengths_rng_);
    first.context = first.lengths.prompt;
    if (p_.sharing.share > 0 && sharing_rng_.Chance(p_.sharing.share)) first.group = DrawGroup();
    const bool goes_on = p_.sessions.share > 0 && sessions_rng_.Chance(p_.sessions.share);
    if (goes_on) first.session = ++sessions_;
    drafts_.push_back(first);
    if (goes_on) Continue();
  }

  // The later turns of the session that was just opened. Turns: 1 + geometric of mean turns_mean - 1.
  void Continue() {
    const double more = 1 - 1 / p_.sessions.turns_mean;
    while (sessions_rng_.Chance(more)) {
      const Draft& before = drafts_.back();
      Draft next;
      const Duration answering = p_.sessions.token_time * before.lengths.output;
      next.at = before.at + answering + Duration::FromSeconds(sessions_rng_.Exponential(p_.sessions.think_mean.seconds()));
      next.lengths.output = DrawLengths(p_.lengths, sessions_rng_).output;
      // A lognormal of sigma 1 has its mean at exp(1/2) medians.
      next.lengths.prompt = Clamp(sessions_rng_.LogNormal(std::log(static_cast<double>(p_.sessions.message_tokens)) - 0.5, 1),
                                  1, p_.lengths.prompt_max);
      next.context = before.context + before.lengths.output + next.lengths.prompt;
      if (next.context > p_.lengths.prompt_max) return;  // the conversation is full
      next.previous = drafts_.size() - 1;
      next.session = before.session;
      drafts_.push_back(next);
    }
  }

  size_t DrawGroup() {
    const double u = sharing_rng_.Unit() * popularity_.back();
    return static_cast<size_t>(std::upper_bound(popularity_.begin(), popularity_.end() - 1, u) - popularity_.begin());
  }

  uint64_t GroupContent(size_t group) const { return Mix64(content_, group) | kSharedContent; }

  int64_t PrefixTokens(size_t group) const {
    const double factor = 0.5 + UnitFrom(Mix64(content_ ^ 0x5E6, group));
    return std::max<int64_t>(1, std::llround(static_cast<double>(p_.sharing.prefix_tokens) * factor));
  }

  void Emit(const Draft& d, Trace& trace) {
    TraceRequest r;
    r.meta.id = RequestId(d.order + 1);
    r.meta.arrival = d.at;
    r.meta.prompt_tokens = TokenCount(d.context);
    r.meta.length_class = p_.length_class;
    r.meta.session = d.session;
    r.truth.output_tokens = TokenCount(d.lengths.output);
    int64_t own = d.lengths.prompt;
    if (d.previous != SIZE_MAX) {
      const TraceRequest& before = trace.requests[drafts_[d.previous].order];
      r.meta.segments = before.meta.segments;
      if (r.meta.segments.empty()) r.meta.segments.push_back({PrivateContent(before.meta.id), before.meta.prompt_tokens});
      r.meta.segments.push_back({OutputContent(before.meta.id), before.truth.output_tokens});
    } else if (d.group != SIZE_MAX) {
      // At least one token is the request's own; its drawn length stays as it is.
      const int64_t shared = std::min(PrefixTokens(d.group), own - 1);
      if (shared > 0) r.meta.segments.push_back({GroupContent(d.group), TokenCount(shared)});
      own -= shared;
    }
    if (!r.meta.segments.empty()) r.meta.segments.push_back({PrivateContent(r.meta.id), TokenCount(own)});
    trace.requests.push_back(std::move(r));
  }

  const SynthProfile& p_;
  Prng arrivals_rng_, lengths_rng_, sharing_rng_, sessions_rng_;
  uint64_t content_;
  std::vector<double> popularity_;  // cumulative
  std::vector<Draft> drafts_;
  Instant next_opening_;
  size_t next_count_ = 0;
  uint64_t sessions_ = 0;
};

// Collects every complaint.
class Complaints {
 public:
  void Need(bool ok, const char* field, double value, const char* rule) {
    if (ok) return;
    std::string number = std::to_string(value);
    number.erase(number.find_last_not_of('0') + 1);
    if (number.back() == '.') number.pop_back();
    text_ += (text_.empty() ? "" : "\n") + std::string(field) + " = " + number + ": " + rule;
  }
  Status Take() const { return text_.empty() ? Status() : Status(Error{text_}); }

 private:
  std::string text_;
};

void CheckArrivals(const ArrivalProfile& a, Complaints& c) {
  c.Need(a.rate_rps > 0 && std::isfinite(a.rate_rps), "arrivals.rate_rps", a.rate_rps, "must be above 0");
  c.Need(a.kind != ArrivalKind::kGamma || (a.cv > 0 && a.cv <= 100), "arrivals.cv", a.cv, "must be above 0 and at most 100");
  c.Need(a.kind != ArrivalKind::kOnOff || (a.on_share > 0 && a.on_share <= 1), "arrivals.on_share", a.on_share,
         "must be above 0 and at most 1");
  c.Need(a.kind != ArrivalKind::kOnOff || a.on_mean > Duration(), "arrivals.on_mean", a.on_mean.seconds(), "must be above 0 s");
  c.Need(a.kind != ArrivalKind::kEmpirical || (!a.gaps.empty() && a.gaps.values().front() >= 0 && a.gaps.Mean() > 0),
         "arrivals.gaps", static_cast<double>(a.gaps.values().size()),
         "a table of gaps of at least 0 s with a mean above 0 is needed");
  double sum = 0;
  bool negative = false;
  for (const Duration gap : a.replay) {
    sum += gap.seconds();
    negative |= gap < Duration();
  }
  c.Need(a.kind != ArrivalKind::kReplay || (sum > 0 && !negative), "arrivals.replay", sum,
         "gaps of at least 0 s, not all 0, are needed");
  double weights = 0;
  for (const double w : a.weights) {
    c.Need(w >= 0 && std::isfinite(w), "arrivals.weights", w, "must be at least 0");
    weights += w;
  }
  c.Need(a.weights.empty() || weights > 0, "arrivals.weights", weights, "one of them must be above 0");
  c.Need(a.weights.empty() || a.piece > Duration(), "arrivals.piece", a.piece.seconds(), "must be above 0 s");
}

void CheckLengths(const LengthProfile& l, Complaints& c) {
  c.Need(l.prompt_min >= 1, "lengths.prompt_min", static_cast<double>(l.prompt_min), "must be at least 1");
  c.Need(l.output_min >= 1, "lengths.output_min", static_cast<double>(l.output_min), "must be at least 1");
  c.Need(l.prompt_max >= l.prompt_min, "lengths.prompt_max", static_cast<double>(l.prompt_max),
         "must be at least lengths.prompt_min");
  c.Need(l.output_max >= l.output_min, "lengths.output_max", static_cast<double>(l.output_max),
         "must be at least lengths.output_min");
  c.Need(l.prompt.empty() == l.output_by_prompt.empty(), "lengths.output_by_prompt",
         static_cast<double>(l.output_by_prompt.size()), "is needed with lengths.prompt, and only then");
  if (!l.prompt.empty()) return;
  c.Need(l.prompt_median >= 1, "lengths.prompt_median", l.prompt_median, "must be at least 1");
  c.Need(l.output_median >= 1, "lengths.output_median", l.output_median, "must be at least 1");
  c.Need(l.prompt_sigma >= 0 && l.prompt_sigma <= 10, "lengths.prompt_sigma", l.prompt_sigma, "must be from 0 to 10");
  c.Need(l.output_sigma >= 0 && l.output_sigma <= 10, "lengths.output_sigma", l.output_sigma, "must be from 0 to 10");
  c.Need(l.rank_correlation >= -1 && l.rank_correlation <= 1, "lengths.rank_correlation", l.rank_correlation,
         "must be from -1 to 1");
}

}  // namespace

Status Validate(const SynthProfile& profile) {
  Complaints c;
  CheckArrivals(profile.arrivals, c);
  CheckLengths(profile.lengths, c);
  const SharingProfile& s = profile.sharing;
  c.Need(s.share >= 0 && s.share <= 1, "sharing.share", s.share, "must be from 0 to 1");
  c.Need(s.groups >= 1 && s.groups <= 1'000'000, "sharing.groups", static_cast<double>(s.groups), "must be from 1 to 1000000");
  c.Need(s.zipf >= 0 && s.zipf <= 10, "sharing.zipf", s.zipf, "must be from 0 to 10");
  c.Need(s.prefix_tokens >= 1, "sharing.prefix_tokens", static_cast<double>(s.prefix_tokens), "must be at least 1");
  const SessionProfile& t = profile.sessions;
  c.Need(t.share >= 0 && t.share <= 1, "sessions.share", t.share, "must be from 0 to 1");
  c.Need(t.turns_mean >= 1 && t.turns_mean <= 1000, "sessions.turns_mean", t.turns_mean, "must be from 1 to 1000");
  c.Need(t.message_tokens >= 1, "sessions.message_tokens", static_cast<double>(t.message_tokens), "must be at least 1");
  c.Need(t.think_mean >= Duration(), "sessions.think_mean", t.think_mean.seconds(), "must be at least 0 s");
  c.Need(t.token_time >= Duration(), "sessions.token_time", t.token_time.seconds(), "must be at least 0 s");
  c.Need(profile.requests >= 1, "requests", static_cast<double>(profile.requests), "must be at least 1");
  return c.Take();
}

Trace Synthesize(const SynthProfile& profile, Prng& prng) { return Synthesis(profile, prng).Run(); }

}  // namespace foretoken
