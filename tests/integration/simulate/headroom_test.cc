// Does a fleet that follows the gauge keep its targets, and what does it waste? A closed loop in virtual time: load that rises to a multiple
// and falls again; engines, mirrors and SCHEDULER as in any run; the observations of a live system (journal, builder) made of it; and
// a Kubernetes autoscaler, as docs/operations.md sets it, that sees nothing but `instances_needed`.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "configs/topology_reader.h"
#include "integration/observe/observation_builder.h"
#include "integration/simulate/compose_run.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/observe/mirror_view.h"
#include "runtime/observe/request_journal.h"
#include "runtime/workload/azure_profiles.h"
#include "runtime/workload/synth_profile.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

constexpr double kShare = 0.9;  // of the requests that shall meet their targets
// A run is 35 minutes with a load that triples within five; of the rarest load, of one to four long prompts a second, the worst of 88 seeds
// met .896.
constexpr double kShareOfARun = 0.87;
constexpr int32_t kInstancesMost = 24;
constexpr Duration kMinute = Duration::Seconds(60);
constexpr int64_t kMinutesLow = 5, kMinutesRise = 5, kMinutesHigh = 10, kMinutesFall = 5, kMinutesLowAgain = 10;

// The horizontal pod autoscaler with an external metric of AverageValue 1, and the behaviour of docs/operations.md.
class Autoscaler {
 public:
  explicit Autoscaler(int32_t there) : there_(there) {}

  // Every 15 s, with the metric or without. Returns how many there shall be.
  int32_t Decide(Instant now, std::optional<double> needed) {
    if (!needed) return there_;  // it does nothing without a metric
    constexpr double kTolerance = 0.1;
    int32_t wanted = there_;
    if (std::abs(*needed / there_ - 1) > kTolerance) wanted = static_cast<int32_t>(std::ceil(*needed - 1e-9));
    wanted = std::clamp(wanted, 1, kInstancesMost);
    wanted_.emplace_back(now, wanted);
    while (now - wanted_.front().first > Duration::Seconds(300))
      wanted_.pop_front();  // stabilizationWindowSeconds of scaleDown
    int32_t least = 0;
    for (const auto& [at, count] : wanted_) least = std::max(least, count);
    if (wanted > there_) {
      Change(now, wanted);
    } else if (least < there_) {
      int32_t before = there_;  // 120 s ago: periodSeconds of the policy
      for (auto c = changes_.rbegin(); c != changes_.rend() && now - c->first <= Duration::Seconds(120); ++c)
        before = c->second;
      const auto lowest = static_cast<int32_t>(before * 0.75);  // Percent 25, as Kubernetes rounds
      Change(now, std::max({least, lowest, 1}));
    }
    return there_;
  }

 private:
  void Change(Instant now, int32_t to) {
    if (to == there_) return;
    changes_.emplace_back(now, there_);
    there_ = to;
  }
  int32_t there_;
  std::deque<std::pair<Instant, int32_t>> wanted_;
  std::vector<std::pair<Instant, int32_t>> changes_;  // when, and how many there were before
};

// Watches a run as a live system is watched, and sizes its fleet.
class Follower final : public RunObserver {
 public:
  Follower(const Trace& trace, const Topology& topology, int32_t at_first)
      : trace_(trace), scaler_(at_first), journal_(JournalOptions(topology)), builder_({Facts(topology)}), there_(at_first) {
    for (int32_t k = 0; k < kInstancesMost; ++k) builder_.AddInstance("i" + std::to_string(k), "");
  }

  void OnDecision(const DecisionRecord& r) override {
    const RequestMeta& request = trace_.requests[r.request.value() - 1].meta;
    journal_.OnSubmitted(request, request.arrival, r.at);
    journal_.OnDecided(r);
  }
  void OnFirstToken(RequestId request, Instant at) override { journal_.OnFirstToken(request, at); }
  void OnFinished(RequestId request, TokenCount output, Instant at) override {
    journal_.OnEnded(request, OutcomeKind::kFinished, output, at);
  }
  void OnProgress(size_t, size_t) override {}

  // Every 5 s: an observation; every third: a scrape, and the autoscaler. What is added starts for a minute.
  int32_t Decide(Instant now, const std::vector<const SimulatorCore*>& mirrors) {
    builder_.Begin();
    builder_.Add(journal_.View(now));
    builder_.Add(SchedulerCounters(), 0, 0);
    for (const SimulatorCore* m : mirrors) {
      builder_.Add(ViewOf(*m, now));
      const bool serves = static_cast<int32_t>(m->instance().value()) < there_;
      builder_.SetPlace(m->instance(), serves ? InstanceState::kServing : InstanceState::kCordoned, true, "", 0);
    }
    const auto seen = builder_.End(now, 0);
    if (++looks_ % 3 == 0) Scrape(now, seen->headroom);
    while (!starting_.empty() && starting_.front() <= now) {
      starting_.pop_front();
      ++there_;
    }
    sizes.emplace_back(now, there_);
    return there_;
  }

  std::vector<std::pair<Instant, int32_t>> sizes;
  std::string way;

 private:
  static RequestJournal::Options JournalOptions(const Topology& topology) {
    RequestJournal::Options o;
    o.slo = topology.slo;
    o.decisions = 1;
    o.details_per_second = 0;
    return o;
  }
  static SystemFacts Facts(const Topology& topology) {
    SystemFacts f;
    f.slo = topology.slo;
    return f;
  }
  void Scrape(Instant now, const SloHeadroom& h) {
    if (h.known) scraped_.emplace_back(now, h.instances_needed);
    while (!scraped_.empty() && now - scraped_.front().first > Duration::Seconds(60)) scraped_.pop_front();
    std::optional<double> most;  // max_over_time(foretoken:instances_needed[1m])
    for (const auto& [at, needed] : scraped_) most = std::max(most.value_or(0), needed);
    const int32_t wanted = scaler_.Decide(now, most);
    while (static_cast<int32_t>(starting_.size()) + there_ > wanted && !starting_.empty()) starting_.pop_back();
    there_ = std::min(there_, wanted);
    while (static_cast<int32_t>(starting_.size()) + there_ < wanted) starting_.push_back(now + Duration::Seconds(60));
    char text[160];
    std::snprintf(text, sizeof text, "%.0f:%d load %.2f/%.2f missed %.2f needs %.2f\n", now.seconds(), there_, h.load,
                  h.load_at_target, h.missed, h.instances_needed);
    way += text;
  }

  const Trace& trace_;
  Autoscaler scaler_;
  RequestJournal journal_;
  ObservationBuilder builder_;
  int32_t there_;
  std::deque<Instant> starting_;
  std::deque<std::pair<Instant, double>> scraped_;
  int looks_ = 0;
};

bool Met(const RunRequest& r, const Slo& slo) {
  if (r.outcome != OutcomeKind::kFinished || r.first_token - r.arrival > slo.ttft) return false;
  return r.output_tokens < 2 || (r.finish - r.first_token).seconds() / (r.output_tokens - 1) <= slo.tpot.seconds();
}

// Of the requests that came so long after the first, or later.
double MetShare(const RunResult& run, const Slo& slo, Duration from) {
  double met = 0, all = 0;
  for (const RunRequest& r : run.requests) {
    if (r.arrival - run.requests.front().arrival < from) continue;
    met += Met(r, slo);
    ++all;
  }
  return met / all;
}

struct Case {
  std::string name;
  double low, high;  // requests a second
  int32_t at_first;  // instances
  double ttft_s;     // target
  bool old_card;     // a slower one: fewer requests make a fleet of several
  SynthProfile profile;
};

SynthProfile Lengths(double prompt, double prompt_sigma, double output, double output_sigma) {
  SynthProfile p;
  p.lengths.prompt_median = prompt;
  p.lengths.prompt_sigma = prompt_sigma;
  p.lengths.output_median = output;
  p.lengths.output_sigma = output_sigma;
  p.lengths.prompt_max = 100'000;
  p.lengths.output_max = 4096;
  return p;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  cases.push_back({"conversations", 8, 24, 3, 1, true, **EmbeddedProfile("azure-conv-2023")});
  cases.push_back({"code completion, bound by prompts", 10, 30, 3, 1, false, **EmbeddedProfile("azure-code-2023")});
  cases.push_back({"documents, long prompts", 1.2, 4, 3, 3, true, Lengths(4000, 1, 150, 0.7)});
  cases.push_back({"bursts", 8, 24, 5, 1, true, Lengths(1000, 1, 200, 0.8)});
  cases.back().profile.arrivals.kind = ArrivalKind::kGamma;
  cases.back().profile.arrivals.cv = 3;
  cases.push_back({"stories, bound by outputs", 2, 6, 2, 1, true, Lengths(300, 0.8, 800, 0.6)});
  return cases;
}

// Low, rising, high, falling, low again, a minute a piece.
Trace TraceOf(const Case& c, uint64_t seed) {
  SynthProfile p = c.profile;
  const auto piece = [&p](int64_t minutes, double from, double to) {
    for (int64_t k = 0; k < minutes; ++k)
      p.arrivals.weights.push_back(from + (to - from) * (static_cast<double>(k) + 0.5) / static_cast<double>(minutes));
  };
  p.arrivals.weights.clear();
  piece(kMinutesLow, c.low, c.low);
  piece(kMinutesRise, c.low, c.high);
  piece(kMinutesHigh, c.high, c.high);
  piece(kMinutesFall, c.high, c.low);
  piece(kMinutesLowAgain, c.low, c.low);
  double sum = 0;
  for (const double w : p.arrivals.weights) sum += w;
  p.arrivals.piece = Duration::Seconds(60);
  p.arrivals.rate_rps = sum / static_cast<double>(p.arrivals.weights.size());
  p.requests = static_cast<size_t>(sum * 60);
  Prng prng(seed);
  return Synthesize(p, prng);
}

ConfigResult<Topology> TopologyOf(const Case& c, int32_t instances, uint64_t seed) {
  const char* law = c.old_card ? "{ step: 12ms, prefill_token: 80us, decode_seq: 55us, kv_token: 170ns }"
                               : "{ step: 5850us, prefill_token: 19.5us, decode_seq: 13.8us, kv_token: 42ns }";
  return LoadTopology("configs/topologies/small.yaml",
                      {"pools[0].instances[0].count=" + std::to_string(instances), "seed=" + std::to_string(seed),
                       "slo.ttft=" + std::to_string(c.ttft_s) + "s", "engines.h100-llama-8b.step_law=" + std::string(law)});
}

struct Followed {
  double met = 0;
  double size_high = 0;  // mean number of instances while the load is high, once it has been for two minutes
  std::string way;       // what was seen at every scrape
};

Followed Follow(const Case& c, uint64_t seed) {
  const Trace trace = TraceOf(c, seed);
  const auto topology = TopologyOf(c, kInstancesMost, seed);
  EXPECT_TRUE(topology.ok());
  auto options = ComposeRun(*topology, trace);
  EXPECT_TRUE(options.ok());
  Follower follower(trace, *topology, c.at_first);
  options->scaling = Scaling{Duration::Seconds(5), c.at_first,
                             [&](Instant now, const std::vector<const SimulatorCore*>& m) { return follower.Decide(now, m); }};
  const auto run = RunVirtual(*options, trace, &follower);
  EXPECT_TRUE(run.ok());
  Followed out;
  out.met = MetShare(*run, topology->slo, Duration());
  const Instant high = trace.requests.front().meta.arrival + kMinute * (kMinutesLow + kMinutesRise + 2);
  const Instant fall = high + kMinute * (kMinutesHigh - 2);
  double looks = 0;
  for (const auto& [at, there] : follower.sizes) {
    if (at < high || at >= fall) continue;
    out.size_high += there;
    ++looks;
  }
  out.size_high /= std::max(looks, 1.0);
  out.way = follower.way;
  return out;
}

// Under the high load, by so many instances all the time.
double MetByFixed(const Case& c, int32_t instances, uint64_t seed) {
  constexpr double kMinutes = 8;
  Case high = c;
  high.low = high.high;
  Trace trace = TraceOf(high, seed);
  trace.requests.resize(std::min(trace.requests.size(), static_cast<size_t>(high.high * 60 * kMinutes)));
  const auto topology = TopologyOf(c, instances, seed);
  EXPECT_TRUE(topology.ok());
  const auto options = ComposeRun(*topology, trace);
  EXPECT_TRUE(options.ok());
  const auto run = RunVirtual(*options, trace, nullptr);
  EXPECT_TRUE(run.ok());
  return MetShare(*run, topology->slo, kMinute);
}

class FollowedHeadroom : public ::testing::TestWithParam<size_t> {};

TEST_P(FollowedHeadroom, KeepsTheTargetsAndTwoFifthsOfWhatItAsksForWouldNot) {
  const Case c = Cases()[GetParam()];
  double met = 0, runs = 0;
  for (const uint64_t seed : testing::Seeds(2)) {
    const Followed f = Follow(c, seed);
    const int32_t fewer = static_cast<int32_t>(0.4 * f.size_high);
    const double by_fewer = fewer == 0 ? 0 : MetByFixed(c, fewer, seed);
    std::printf(
        "[headroom] seed %llu, %s: targets met by %.3f; %.1f instances under the high load, %d of them would meet %.3f\n",
        static_cast<unsigned long long>(seed), c.name.c_str(), f.met, f.size_high, fewer, by_fewer);
    EXPECT_GE(f.met, kShareOfARun) << "seed " << seed << ", " << c.name << "\n" << f.way;
    met += f.met;
    ++runs;
    EXPECT_LT(by_fewer, kShare) << "seed " << seed << ", " << c.name << "\n" << f.way;
  }
  EXPECT_GE(met / runs, kShare) << c.name;
}

INSTANTIATE_TEST_SUITE_P(Workloads, FollowedHeadroom, ::testing::Range(size_t{0}, Cases().size()));

// An eighth of these would miss its target on an idle engine: asking for more and more would cost much and help none.
TEST(HeadroomTest, DoesNotAskForInstancesThatHelpNobody) {
  const Case c{"documents that no engine reads in time", 1.2, 4, 3, 1, true, Lengths(4000, 1, 150, 0.7)};
  for (const uint64_t seed : testing::Seeds(2)) {
    const Followed f = Follow(c, seed);
    std::printf("[headroom] seed %llu, %s: targets met by %.3f; %.1f instances under the high load\n",
                static_cast<unsigned long long>(seed), c.name.c_str(), f.met, f.size_high);
    EXPECT_LT(f.met, kShare) << "seed " << seed << ": it is not what it shall be";
    EXPECT_LT(f.size_high, 15) << "seed " << seed << "\n" << f.way;
  }
}

}  // namespace
}  // namespace foretoken
