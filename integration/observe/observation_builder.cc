#include "integration/observe/observation_builder.h"

#include <algorithm>

namespace foretoken {
namespace {

constexpr Duration kMergedWithin = Duration::Seconds(2);

double Rate(uint64_t count, Duration window) { return window > Duration() ? static_cast<double>(count) / window.seconds() : 0; }
double Share(double part, uint64_t of) { return of == 0 ? 0 : part / static_cast<double>(of); }

WindowFigures FiguresOf(const WindowSketches& w, Duration window) {
  WindowFigures f;
  f.window = window;
  f.arrivals_per_second = Rate(w.arrived, window);
  f.decisions_per_second = Rate(w.decided, window);
  f.finished_per_second = Rate(w.finished, window);
  f.output_tokens_per_second = Rate(w.output_tokens, window);
  f.with_slo = w.with_slo;
  f.finished = w.finished;
  f.output_tokens = w.output_tokens;
  f.predicted = w.predicted;
  f.slo_attainment = Share(static_cast<double>(w.met_slo), w.with_slo);
  f.ttft = SpreadOf(w.ttft);
  f.e2e = SpreadOf(w.e2e);
  f.tpot = SpreadOf(w.tpot);
  f.decision = SpreadOf(w.decision);
  f.ttft_error = SpreadOf(w.ttft_error);
  f.e2e_error = SpreadOf(w.e2e_error);
  f.ttft_bias = Share(w.ttft_error_sum, w.ttft_judged);
  f.e2e_bias = Share(w.e2e_error_sum, w.e2e_judged);
  f.ttft_below_p90 = Share(static_cast<double>(w.ttft_below_p90), w.ttft_judged);
  f.e2e_below_p90 = Share(static_cast<double>(w.e2e_below_p90), w.e2e_judged);
  return f;
}

}  // namespace

FleetLoad ObservationBuilder::Load() const {
  const Observation& o = now_;
  FleetLoad load;
  load.slo = o.facts.slo;
  load.arrivals_per_second = o.window.arrivals_per_second;
  load.decisions_per_second = o.window.decisions_per_second;
  const PredictedSums& p = o.window.predicted;
  load.decisions = p.decisions;
  load.mean_violation = Share(p.violation, p.decisions);
  load.mean_prompt_tokens = Share(p.prompt_tokens, p.decisions);
  load.mean_computed = Share(p.computed, p.decisions);
  load.mean_computed_squared = Share(p.computed_squared, p.decisions);
  for (size_t i = 0; i < kPromptBuckets; ++i) load.computed[i] = Share(p.prompts[i], p.decisions);
  load.finished = o.window.finished;
  if (o.window.with_slo > 0) load.missed = 1 - o.window.slo_attainment;
  load.mean_output_tokens = Share(static_cast<double>(o.window.output_tokens), o.window.finished);
  for (const InstanceSeen& i : o.instances) {
    if (i.gone || i.state != InstanceState::kServing || !i.reachable) continue;
    ++load.instances;
    const Known& known = instances_[static_cast<size_t>(&i - o.instances.data())];
    if (i.mirrored) {
      load.engines.push_back({i.mirror.cost, i.mirror.kv_tokens});
    } else if (known.engine) {
      load.engines.push_back(*known.engine);
    }
  }
  return load;
}

std::string_view SyncEventName(SyncEventKind kind) {
  switch (kind) {
    case SyncEventKind::kGap: return "gap";
    case SyncEventKind::kReordered: return "reordered";
    case SyncEventKind::kDuplicate: return "duplicate";
    case SyncEventKind::kResync: return "resync";
    case SyncEventKind::kEpoch: return "epoch";
    case SyncEventKind::kDisagreement: return "disagreement";
    case SyncEventKind::kLiveness: return "liveness";
    case SyncEventKind::kDemotion: return "demotion";
    case SyncEventKind::kRescaled: return "rescaled";
    case SyncEventKind::kState: return "state";
  }
  return "";
}

std::string_view InstanceStateName(InstanceState state) {
  switch (state) {
    case InstanceState::kServing: return "serving";
    case InstanceState::kWarming: return "warming";
    case InstanceState::kCordoned: return "cordoned";
    case InstanceState::kDraining: return "draining";
    case InstanceState::kAsleep: return "asleep";
    case InstanceState::kDead: return "dead";
  }
  return "";
}

void ObservationBuilder::AddInstance(std::string name, std::string kind, std::string model,
                                     std::optional<FleetLoad::Engine> engine) {
  Known known;
  known.engine = engine;
  known.seen.name = std::move(name);
  known.seen.kind = std::move(kind);
  known.seen.model = std::move(model);
  instances_.push_back(std::move(known));
}

void ObservationBuilder::Begin() {
  now_ = Observation();
  window_ = Duration();
  sketches_ = std::make_unique<WindowSketches>();
  for (Known& k : instances_) {
    InstanceSeen blank;
    blank.name = std::move(k.seen.name);
    blank.kind = std::move(k.seen.kind);
    blank.model = std::move(k.seen.model);
    k.seen = std::move(blank);
  }
}

void ObservationBuilder::Add(const JournalView& v) {
  RequestTotals& t = now_.totals;
  t.arrived += v.totals.arrived;
  t.decided += v.totals.decided;
  t.finished += v.totals.finished;
  t.failed += v.totals.failed;
  t.rejected += v.totals.rejected;
  t.shed += v.totals.shed;
  t.cancelled += v.totals.cancelled;
  t.retried += v.totals.retried;
  t.open += v.totals.open;
  t.output_tokens += v.totals.output_tokens;
  now_.latencies.Add(v.latencies);
  window_ = std::max(window_, v.window);
  sketches_->Merge(v.latest);
  now_.decisions.insert(now_.decisions.end(), v.decisions.begin(), v.decisions.end());
}

void ObservationBuilder::Add(const SchedulerCounters& counters, uint64_t open_rounds, uint64_t queued) {
  foretoken::Add(now_.scheduler, counters);
  now_.open_rounds += open_rounds;
  now_.queued += queued;
  ++now_.schedulers;
}

void ObservationBuilder::Add(MirrorView mirror) {
  InstanceSeen& seen = instances_[mirror.instance.value()].seen;
  seen.mirrored = true;
  seen.mirror = std::move(mirror);
}

void ObservationBuilder::SetPlace(InstanceId instance, InstanceState state, bool reachable, std::string owner, uint64_t term) {
  InstanceSeen& seen = instances_[instance.value()].seen;
  seen.state = state;
  seen.reachable = reachable;
  seen.owner = std::move(owner);
  seen.term = term;
}

void ObservationBuilder::SetFaults(InstanceId instance, Duration delay, double reorder, double drop, bool down) {
  InstanceSeen& seen = instances_[instance.value()].seen;
  seen.fault_delay = delay;
  seen.fault_reorder = reorder;
  seen.fault_drop = drop;
  seen.fault_down = down;
}

void ObservationBuilder::Note(InstanceId instance, SyncEventKind kind, uint64_t count, std::string detail) {
  for (SyncEvent& e : events_) {
    if (now_.at - e.at > kMergedWithin) break;
    if (e.instance != instance || e.kind != kind || e.detail != detail) continue;
    e.count += count;
    return;
  }
  events_.push_front({next_event_++, now_.at, instance, kind, count, std::move(detail)});
  if (events_.size() > options_.events) events_.pop_back();
}

void ObservationBuilder::Compare(Known& known) {
  const InstanceId id(static_cast<uint32_t>(&known - instances_.data()));
  const InstanceSeen& seen = known.seen;
  if (seen.state != known.state_before)
    Note(id, SyncEventKind::kState, 1, seen.gone ? "gone" : std::string(InstanceStateName(seen.state)));
  known.state_before = seen.state;
  if (seen.reachable != known.reachable_before && !seen.gone)
    Note(id, SyncEventKind::kLiveness, 1, seen.reachable ? "back" : "out");
  known.reachable_before = seen.reachable;
  const Known::Inferred then = std::exchange(known.then, known.now);
  if (then.starts > 0 && known.now.starts > then.starts) Note(id, SyncEventKind::kEpoch, known.now.starts - then.starts);
  if (known.now.rescaled > then.rescaled) Note(id, SyncEventKind::kRescaled, known.now.rescaled - then.rescaled);
  if (!seen.mirrored) return known.before.reset();
  const MirrorView& now = seen.mirror;
  const std::optional<MirrorView> before = std::exchange(known.before, now);
  if (!before) return;
  const auto grown = [&](SyncEventKind kind, uint64_t was, uint64_t is) {
    if (is > was) Note(id, kind, is - was);
  };
  grown(SyncEventKind::kGap, before->sync.gap, now.sync.gap);
  grown(SyncEventKind::kReordered, before->sync.reordered, now.sync.reordered);
  grown(SyncEventKind::kDuplicate, before->sync.duplicate, now.sync.duplicate);
  grown(SyncEventKind::kResync, before->sync.resync, now.sync.resync);
  grown(SyncEventKind::kEpoch, before->sync.epoch_change, now.sync.epoch_change);
  // Off by less than one request, on the mean of the steps since, is what requests on their way come to.
  const double differed = now.drift.running_abs - before->drift.running_abs;
  if (now.drift.steps > before->drift.steps && differed >= static_cast<double>(now.drift.steps - before->drift.steps))
    Note(id, SyncEventKind::kDisagreement, now.drift.steps - before->drift.steps);
  if (now.liveness != before->liveness) Note(id, SyncEventKind::kLiveness, 1, std::string(LivenessName(now.liveness)));
  grown(SyncEventKind::kDemotion, before->demotions, now.demotions);
}

void ObservationBuilder::Drift(Known& known) {
  if (!known.seen.mirrored) return known.drift.clear();
  const DriftCounters& d = known.seen.mirror.drift;
  auto& past = known.drift;
  if (!past.empty() && past.back().second.steps > d.steps) past.clear();  // another mirror
  past.emplace_back(now_.at, d);
  while (past.size() > 2 && now_.at - past[1].first >= options_.drift_over) past.pop_front();
  const auto& [since, from] = past.front();
  const uint64_t steps = d.steps - from.steps;
  known.seen.steps_per_second = Rate(steps, now_.at - since);
  known.seen.drift_running = Share(d.running_abs - from.running_abs, steps);
  known.seen.drift_waiting = Share(d.waiting_abs - from.waiting_abs, steps);
  known.seen.step_bias = Share(d.step_bias - from.step_bias, steps);
  known.seen.step_ape = Share(d.step_ape - from.step_ape, steps);
}

std::shared_ptr<const Observation> ObservationBuilder::End(Instant now, int64_t unix_ms) {
  if (!first_) first_ = now;
  now_.at = now;
  now_.number = ++number_;
  now_.unix_ms = unix_ms;
  now_.uptime_s = (now_.at - *first_).seconds();
  now_.facts = options_.facts;
  now_.window = FiguresOf(*sketches_, window_);
  for (Known& k : instances_) {
    Compare(k);
    Drift(k);
    now_.instances.push_back(k.seen);
  }
  if (now_.schedulers > 0) now_.headroom = headroom_.Look(Load(), now);  // who decides nothing knows of no load
  std::stable_sort(now_.decisions.begin(), now_.decisions.end(),
                   [](const DecisionSeen& a, const DecisionSeen& b) { return a.decided > b.decided; });
  if (now_.decisions.size() > options_.decisions) now_.decisions.resize(options_.decisions);
  now_.events.assign(events_.begin(), events_.end());
  return std::make_shared<const Observation>(std::move(now_));
}

}  // namespace foretoken
