#include "tests/scenarios/scenario.h"

#include <algorithm>
#include <utility>

#include "runtime/base/prng.h"
#include "runtime/perf/step_time_law.h"
#include "runtime/sched/policy.h"

namespace foretoken::testing {
namespace {

RunOptions::Instance DrawInstance(uint64_t seed, size_t k, bool slow) {
  Prng prng(Mix64(seed, 1000 + k));
  RunOptions::Instance i;
  i.name = "i" + std::to_string(k);
  const double factor = slow ? 2.3 : 1.0;
  EngineConfig& c = i.engine.config;
  if (prng.Chance(0.15)) c.kind = EngineKind::kSglang;
  // Small pools: a few of the longest requests fill one, and preemptions follow.
  c.num_gpu_blocks = static_cast<int32_t>(prng.Chance(0.5) ? prng.Between(60, 200) : prng.Between(200, 1500));
  if (c.kind == EngineKind::kSglang) {  // its pages are tokens
    c.num_gpu_blocks *= c.block_size;
    c.block_size = 1;
  }
  c.max_num_seqs = static_cast<int32_t>(prng.Between(2, 40));
  c.max_num_batched_tokens = static_cast<int32_t>(128 << prng.Below(5));
  c.max_model_len = 4096;
  c.async_scheduling = c.kind == EngineKind::kVllm && prng.Chance(0.5);
  c.prefix_caching = prng.Chance(0.6);
  c.stop_at_eos = prng.Chance(0.5);
  if (prng.Chance(0.2) && c.kind == EngineKind::kVllm) c.policy = QueuePolicy::kPriority;
  i.engine.step_time.law =
      std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{4e6 * factor, 4e4 * factor, 6e4 * factor, 12 * factor});
  i.engine.step_time.host_overhead = Duration::Micros(prng.Between(0, 800));
  i.engine.noise = {Mix64(seed, k), 0.03};
  i.profile.limits = c;
  i.profile.step_time = i.engine.step_time;
  i.profile.step_time.factor = prng.Chance(0.5) ? 1.0 : 0.8;  // the predictor's table is 20 % too fast
  i.profile.calibrate = prng.Chance(0.5);
  i.facts.kv_tokens = int64_t{c.num_gpu_blocks - 1} * c.block_size;
  return i;
}

Trace DrawTrace(Prng& prng, size_t requests, double rate) {
  Trace trace;
  trace.name = "swarm";
  Instant at = Instant() + Duration::Millis(prng.Between(0, 50));
  for (size_t k = 0; k < requests; ++k) {
    TraceRequest r;
    if (prng.Chance(0.02)) at += Duration::Millis(prng.Between(500, 4000));  // a pause: idle engines stay candidates
    if (!prng.Chance(0.1)) at += Duration::FromSeconds(prng.Exponential(1 / rate));
    r.meta.id = RequestId(k + 1);
    r.meta.arrival = at;
    const int64_t prompt = prng.Chance(0.01) ? 5000 : std::min<int64_t>(3000, static_cast<int64_t>(prng.LogNormal(5.0, 1.0)));
    r.meta.prompt_tokens = TokenCount(1 + prompt);
    r.truth.output_tokens = TokenCount(std::min<int64_t>(400, 1 + static_cast<int64_t>(prng.LogNormal(3.2, 0.9))));
    if (prng.Chance(0.3)) r.meta.max_tokens = TokenCount(prng.Between(1, 500));
    r.meta.length_class = static_cast<uint32_t>(prng.Below(3));
    r.meta.session = prng.Below(4);
    r.meta.priority = static_cast<int32_t>(prng.Below(3));
    if (r.meta.prompt_tokens.value() > 1 && prng.Chance(0.4)) {
      const int64_t shared = std::min<int64_t>(r.meta.prompt_tokens.value() - 1, 64 * prng.Between(1, 6));
      r.meta.segments = {{1'000'000 + 2 * prng.Below(3), TokenCount(shared)},
                         {PrivateContent(r.meta.id), TokenCount(r.meta.prompt_tokens.value() - shared)}};
    }
    trace.requests.push_back(std::move(r));
  }
  return trace;
}

LinkFaults DrawLinkFaults(Prng& prng) {
  LinkFaults f;
  if (prng.Chance(0.7)) {
    f.delay.kind = DelayLaw::Kind::kUniform;
    f.delay.min = Duration::Micros(prng.Between(0, 500));
    f.delay.max = f.delay.min + Duration::Micros(prng.Chance(0.2) ? prng.Between(1, 600'000) : prng.Between(1, 20'000));
  }
  if (prng.Chance(0.5)) {
    f.reorder_probability = 0.02 + 0.2 * prng.Unit();
    f.reorder_delay.value = Duration::Millis(prng.Between(1, 120));
  }
  if (prng.Chance(0.5)) {
    f.duplicate_probability = 0.02 + 0.2 * prng.Unit();
    f.duplicate_delay.value = Duration::Millis(prng.Between(0, 400));
  }
  if (prng.Chance(0.4)) f.drop_probability = 0.005 + 0.1 * prng.Unit();
  if (prng.Chance(0.2)) f.burst_loss = BurstLoss{0.01, 0.1, 0.0, 0.9};
  if (prng.Chance(0.2)) f.bytes_per_second = 2'000'000;
  if (prng.Chance(0.15)) f.in_order = true;
  while (prng.Chance(0.3))
    f.partitions.push_back(
        {Instant() + Duration::Millis(prng.Between(0, 4000)), Duration::Millis(prng.Between(10, 3000)), std::nullopt});
  return f;
}

FaultPlan DrawFaults(Prng& prng, size_t instances) {
  FaultPlan plan;
  if (prng.Chance(0.15)) return plan;
  plan.name = "swarm";
  // One rule for all links, or some instances with their own.
  while (prng.Chance(0.3)) {
    LinkRule own;
    own.from = own.to = std::nullopt;
    own.from_name = own.to_name = "i" + std::to_string(prng.Below(instances));
    own.faults = DrawLinkFaults(prng);
    plan.links.push_back(std::move(own));
  }
  LinkRule all;
  all.from = all.to = std::nullopt;
  all.faults = DrawLinkFaults(prng);
  plan.links.push_back(std::move(all));
  while (prng.Chance(0.45)) {
    RestartRule r{prng.Chance(0.1) ? "*" : "i" + std::to_string(prng.Below(instances)),
                  Instant() + Duration::Millis(prng.Between(1, 4000)), Duration::Millis(prng.Between(0, 600)), std::nullopt};
    if (prng.Chance(0.2)) r.every = r.downtime + Duration::Millis(prng.Between(300, 2500));
    plan.restarts.push_back(std::move(r));
  }
  return plan;
}

template <class T>
const T& Pick(Prng& prng, const std::vector<T>& of) {
  return of[prng.Below(of.size())];
}

void DrawRules(Prng& prng, Scenario& s) {
  RunOptions& o = s.options;
  o.scheduler.policy = std::string(Pick(prng, KnownPolicies()));
  if (prng.Chance(0.5)) o.scheduler.policy = "min_e2e";
  o.scheduler.seed = Mix64(s.seed, 5);
  o.scheduler.repick = Pick(prng, std::vector{RepickRule::kVersioned, RepickRule::kVersioned, RepickRule::kAlwaysAccept,
                                              RepickRule::kRejectOnAnyChange});
  if (prng.Chance(0.1)) o.scheduler.shed_above = 0.9;
  o.scheduler_count = prng.Chance(0.6) ? 1 : static_cast<int32_t>(prng.Between(2, 4));
  o.level = Pick(prng, std::vector{SyncLevel::kFull, SyncLevel::kFull, SyncLevel::kFull, SyncLevel::kAggregate,
                                   SyncLevel::kPoll, SyncLevel::kNone});
  o.exact_snapshots = prng.Chance(0.2);
  o.sequencer.window_messages = static_cast<int32_t>(prng.Chance(0.5) ? 64 : prng.Between(1, 16));
  s.predictor = Pick(prng, std::vector{PredictorKind::kTimeline, PredictorKind::kTimeline, PredictorKind::kPattern,
                                       PredictorKind::kPatternReuse});
  if (prng.Chance(0.05)) s.predictor = PredictorKind::kReference;
  s.shard_size = prng.Chance(0.7) ? 1 : static_cast<size_t>(prng.Between(2, 8));
  s.open_rounds_max = prng.Chance(0.5) ? 1024 : static_cast<size_t>(prng.Between(1, 3));
}

// Apart from all other draws: what a seed draws besides stays.
void DrawControlAndClocks(Scenario& s) {
  Prng prng(Mix64(s.seed, 0xC10C));
  if (prng.Chance(0.25)) {
    std::vector<LinkRule> rules(2);
    rules[0].from = rules[1].to = LinkRole::kScheduler;
    rules[0].to = rules[1].from = LinkRole::kSimulator;
    for (LinkRule& rule : rules) {
      LinkFaults& f = rule.faults;
      f.delay.kind = DelayLaw::Kind::kUniform;
      f.delay.min = Duration::Micros(prng.Between(1, 400));
      f.delay.max = f.delay.min + Duration::Micros(prng.Between(1, 2500));  // some rounds meet their deadline of 5 ms
      if (prng.Chance(0.3)) f.reorder_probability = 0.1, f.reorder_delay.value = Duration::Millis(prng.Between(1, 300));
      if (prng.Chance(0.3)) f.duplicate_probability = 0.2, f.duplicate_delay.value = Duration::Millis(prng.Between(0, 900));
      if (prng.Chance(0.2)) f.in_order = true;
      s.options.faults.links.insert(s.options.faults.links.begin(), rule);
    }
  }
  if (s.options.faults.links.empty() || !prng.Chance(0.2)) return;
  for (LinkRule& rule : s.options.faults.links)
    if (rule.from != LinkRole::kScheduler && rule.to != LinkRole::kScheduler)
      rule.faults.clock = {Duration::Seconds(prng.Between(-36'000, 36'000)), static_cast<double>(prng.Between(-300, 300))};
  s.withdrawals.clear();  // without times a stream's word cannot be told from a SCHEDULER's
}

}  // namespace

size_t Scenario::requests() const { return static_cast<size_t>(std::count(submitted.begin(), submitted.end(), true)); }

Scenario DrawScenario(uint64_t seed) {
  Scenario s;
  s.seed = seed;
  Prng prng = Prng::ForStream(seed, 0x5A4);
  const size_t n = 1 + prng.Below(6);
  for (size_t k = 0; k < n; ++k) s.options.instances.push_back(DrawInstance(seed, k, prng.Chance(0.4)));
  DrawRules(prng, s);
  const size_t requests = static_cast<size_t>(prng.Between(5, 90));
  s.trace = DrawTrace(prng, requests, static_cast<double>(n) * (2 + 18 * prng.Unit()));
  s.submitted.assign(requests, true);
  s.options.faults = DrawFaults(prng, n);
  const Instant end = s.trace.requests.back().meta.arrival;
  s.freeze = Instant::FromNanos(prng.Between(1, end.nanos() + 1'000'000'000));
  const double leaving = prng.Chance(0.5) ? 0.0 : 0.3 * prng.Unit();
  for (size_t k = 0; k < requests; ++k)
    if (prng.Chance(leaving))
      s.withdrawals.push_back({k, s.trace.requests[k].meta.arrival + Duration::Micros(prng.Between(0, 1'500'000))});
  DrawControlAndClocks(s);
  if (prng.Chance(0.06))
    s.deaths.push_back(
        {prng.Below((n + s.shard_size - 1) / s.shard_size), Instant::FromNanos(prng.Between(1, end.nanos() + 1))});
  return s;
}

std::string Scenario::Describe() const {
  std::string text = "seed " + std::to_string(seed) + ": " + std::to_string(requests()) + " requests, policy " +
                     options.scheduler.policy + ", predictor " + std::to_string(static_cast<int>(predictor)) + ", level " +
                     std::to_string(static_cast<int>(options.level)) + ", schedulers " +
                     std::to_string(options.scheduler_count) + ", shard " + std::to_string(shard_size) + ", rounds " +
                     std::to_string(open_rounds_max) + ", window " + std::to_string(options.sequencer.window_messages) +
                     ", repick " + std::to_string(static_cast<int>(options.scheduler.repick)) + "\n";
  for (const RunOptions::Instance& i : options.instances) {
    const EngineConfig& c = i.engine.config;
    text += "  " + i.name + ": kind " + std::to_string(static_cast<int>(c.kind)) + " blocks " +
            std::to_string(c.num_gpu_blocks) + " seqs " + std::to_string(c.max_num_seqs) + " budget " +
            std::to_string(c.max_num_batched_tokens) + (c.async_scheduling ? " async" : "") +
            (c.prefix_caching ? " caching" : "") + (c.stop_at_eos ? " eos" : "") + "\n";
  }
  for (const LinkRule& l : options.faults.links)
    text += "  link " + l.from_name + ": delay " + std::to_string(l.faults.delay.min.nanos() / 1000) + ".." +
            std::to_string(l.faults.delay.max.nanos() / 1000) + " us, reorder " + std::to_string(l.faults.reorder_probability) +
            ", duplicate " + std::to_string(l.faults.duplicate_probability) + ", drop " +
            std::to_string(l.faults.drop_probability) + ", bursts " + std::to_string(l.faults.burst_loss.has_value()) +
            ", partitions " + std::to_string(l.faults.partitions.size()) + "\n";
  for (const LinkRule& l : options.faults.links)
    if (l.faults.clock != ClockSkew{})
      text += "  clock of " + l.from_name + ": " + std::to_string(l.faults.clock.offset.nanos()) + " ns, " +
              std::to_string(l.faults.clock.ppm) + " ppm\n";
  for (const RestartRule& r : options.faults.restarts)
    text += "  restart " + r.instances + " at " + std::to_string(r.at.nanos() / 1'000'000) + " ms for " +
            std::to_string(r.downtime.nanos() / 1'000'000) + " ms\n";
  for (size_t k = 0; k < submitted.size() && requests() <= 12; ++k)
    if (submitted[k])
      text += "  request " + std::to_string(k + 1) + " at " + std::to_string(trace.requests[k].meta.arrival.nanos()) +
              " ns: " + std::to_string(trace.requests[k].meta.prompt_tokens.value()) + " + " +
              std::to_string(trace.requests[k].truth.output_tokens.value()) + " tokens\n";
  for (const Withdrawal& w : withdrawals)
    if (submitted[w.request] && requests() <= 12)
      text += "  withdrawn: " + std::to_string(w.request + 1) + " at " + std::to_string(w.at.nanos()) + " ns\n";
  for (const SimulatorDeath& d : deaths)
    text += "  simulator host " + std::to_string(d.host) + " dies at " + std::to_string(d.at.nanos()) + " ns\n";
  return text;
}

namespace {

// Every way to leave out one part; each leaves a valid scenario.
std::vector<std::function<bool(Scenario&)>> Cuts() {
  std::vector<std::function<bool(Scenario&)>> cuts;
  const auto cut = [&cuts](auto make) { cuts.emplace_back(make); };
  cut([](Scenario& s) { return !s.options.faults.empty() && (s.options.faults = {}, true); });
  cut([](Scenario& s) { return !s.withdrawals.empty() && (s.withdrawals.clear(), true); });
  cut([](Scenario& s) { return !s.deaths.empty() && (s.deaths.clear(), true); });
  cut([](Scenario& s) { return !s.options.faults.restarts.empty() && (s.options.faults.restarts.pop_back(), true); });
  cut([](Scenario& s) {
    return s.options.faults.links.size() > 1 && (s.options.faults.links.erase(s.options.faults.links.begin()), true);
  });
  cut([](Scenario& s) { return s.options.scheduler_count > 1 && (s.options.scheduler_count = 1, true); });
  cut([](Scenario& s) { return s.shard_size > 1 && s.deaths.empty() && (s.shard_size = 1, true); });
  cut([](Scenario& s) { return s.options.instances.size() > 1 && s.deaths.empty() && (s.options.instances.pop_back(), true); });
  const auto cut_link = [&cut](auto field) {
    cut([field](Scenario& s) {
      bool any = false;
      for (LinkRule& l : s.options.faults.links) any = field(l.faults) || any;
      return any;
    });
  };
  cut_link([](LinkFaults& f) { return f.clock != ClockSkew{} && (f.clock = {}, true); });
  cut_link([](LinkFaults& f) { return !f.partitions.empty() && (f.partitions.clear(), true); });
  cut_link([](LinkFaults& f) { return f.burst_loss.has_value() && (f.burst_loss.reset(), true); });
  cut_link([](LinkFaults& f) { return f.drop_probability > 0 && (f.drop_probability = 0, true); });
  cut_link([](LinkFaults& f) { return f.duplicate_probability > 0 && (f.duplicate_probability = 0, true); });
  cut_link([](LinkFaults& f) { return f.reorder_probability > 0 && (f.reorder_probability = 0, true); });
  cut_link([](LinkFaults& f) { return f.bytes_per_second > 0 && (f.bytes_per_second = 0, true); });
  cut_link([](LinkFaults& f) { return f.delay.max > Duration() && (f.delay = {}, true); });
  return cuts;
}

}  // namespace

Scenario Shrink(Scenario scenario, const std::function<bool(const Scenario&)>& fails, int runs_max) {
  const auto cuts = Cuts();
  const auto still_fails = [&](Scenario smaller) {
    if (runs_max-- <= 0 || !fails(smaller)) return false;
    scenario = std::move(smaller);
    return true;
  };
  for (bool shrunk = true; shrunk && runs_max > 0;) {
    shrunk = false;
    for (const auto& cut : cuts) {
      Scenario smaller = scenario;
      while (cut(smaller) && still_fails(smaller)) shrunk = true;
    }
    for (size_t chunk = scenario.submitted.size(); chunk > 0; chunk /= 2)
      for (size_t first = 0; first < scenario.submitted.size(); first += chunk) {
        Scenario smaller = scenario;
        const size_t last = std::min(first + chunk, smaller.submitted.size());
        std::fill(smaller.submitted.begin() + static_cast<ptrdiff_t>(first),
                  smaller.submitted.begin() + static_cast<ptrdiff_t>(last), false);
        if (smaller.requests() < scenario.requests() && still_fails(std::move(smaller))) shrunk = true;
      }
  }
  return scenario;
}

}  // namespace foretoken::testing
