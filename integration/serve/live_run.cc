#include "integration/serve/live_run.h"

#include <algorithm>
#include <atomic>
#include <caf/all.hpp>
#include <chrono>
#include <thread>
#include <utility>

#include "actors/client.h"
#include "actors/cluster.h"
#include "actors/host_clock.h"
#include "actors/link.h"
#include "actors/protocol.h"
#include "integration/observe/observer.h"
#include "integration/serve/endless_load.h"
#include "integration/serve/fault_switch.h"
#include "runtime/eval/engine_request.h"

namespace foretoken {
namespace {

using Clock = std::chrono::steady_clock;

// One worker: handlers take microseconds, and a second one would only wake up for them (docs/actors.md has the measurements).
struct Config : caf::actor_system_config {
  Config() {
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 1);
    set("scheduler.max-throughput", 100);
    set("logger.console", caf::atom("none"));
  }
};

class LiveRun {
 public:
  explicit LiveRun(const LiveOptions& options) : options_(options), clock_(system_, 1), log_(std::make_shared<ClientLog>()) {}

  Result<LiveResult> Run() {
    const bool named = NamesOutputs(*options_.load);
    ClusterOptions o;
    o.shard_size = options_.shard_size;
    o.heartbeats = true;
    o.for_engine = [this, named](InstanceId k, const RequestMeta& r) {
      const bool eos = options_.run.instances[k.value()].engine.config.stop_at_eos;
      if (!options_.endless) return EngineRequestOf(options_.load->requests[r.id.value() - 1], eos, named);
      return EngineRequestOf({r, RoundOf(*options_.load, r.id).truth}, eos, named);
    };
    o.journal = JournalOf(options_);
    o.switchable_links = options_.watch && options_.watch->faults;
    auto recorder = StartRecorder(system_, clock_, options_);
    if (!recorder.ok()) return recorder.error();
    const caf::actor log = *recorder;
    if (log) o.recorder = [log](uint32_t k) { return RecordTo(log, k); };
    if (log && options_.record->simulators) o.simulator_record = RecordTo(log, kSimulatorRecords);
    auto cluster = SpawnCluster(system_, clock_, options_.run, o);
    if (!cluster.ok()) return cluster.error();
    cluster_ = std::move(cluster).value();
    const Clock::time_point start = Clock::now();
    PlanRestarts(options_.run.faults);
    StartWatching();
    const caf::actor client = StartLoad();
    WaitForTheEnd(start);
    caf::anon_send(client, StopSubmittingCall{});
    LiveResult result;
    result.drained = Drain();
    result.wall_seconds = std::chrono::duration<double>(Clock::now() - start).count();
    caf::anon_send_exit(client, caf::exit_reason::user_shutdown);
    Collect(result);
    StopWatching();
    cluster_.Stop();
    if (log) {
      result.recorded = StatusOf(system_, log);
      caf::anon_send_exit(log, caf::exit_reason::user_shutdown);
    }
    system_.await_all_actors_done();  // the log is quiet from here
    result.run.requests = std::move(log_->requests);
    result.run.requests.resize(log_->submitted);  // those that were never submitted are no part of the run
    result.run.duplicated = log_->duplicated;
    result.decision_latency = std::move(log_->decision_latency);
    for (const RunRequest& r : result.run.requests) {
      if (r.finish != Instant::Max()) result.run.end = std::max(result.run.end, r.finish);
      result.run.output_tokens += static_cast<uint64_t>(r.output_tokens);
    }
    return result;
  }

 private:
  caf::actor StartLoad() {
    const auto done = [this] { done_ = true; };
    const caf::actor client = options_.endless ? SpawnEndlessLoad(system_, clock_, {options_.load, done})
                                               : SpawnClient(system_, clock_, {options_.load, log_, true, done});
    caf::anon_send(client, StartCall{cluster_.schedulers});
    return client;
  }
  void StartWatching() {
    if (!options_.watch) return;
    const WatchOptions& w = *options_.watch;
    ObserverOptions o;
    o.facts = w.facts;
    o.schedulers = cluster_.schedulers;
    o.simulators = cluster_.simulators;
    o.faults = w.faults;
    o.board = w.board;
    std::vector<std::string> names;
    std::vector<caf::actor> links;
    for (size_t k = 0; k < options_.run.instances.size(); ++k) {
      names.push_back(options_.run.instances[k].name);
      o.instances.push_back({names.back(), k < w.kinds.size() ? w.kinds[k] : "", k < w.models.size() ? w.models[k] : ""});
      if (2 * k < cluster_.links.size()) links.push_back(cluster_.links[2 * k]);
    }
    if (w.faults && links.size() == names.size()) w.faults->Attach(std::move(names), std::move(links), cluster_.instances);
    observer_ = SpawnObserver(system_, clock_, std::move(o));
  }
  void StopWatching() {
    if (!observer_) return;
    if (options_.watch->faults) options_.watch->faults->Detach();
    caf::anon_send_exit(observer_, caf::exit_reason::user_shutdown);
    observer_ = {};
  }
  // The next day's; their times count from now.
  void PlanRestarts(const FaultPlan& plan) {
    std::vector<std::string> names;
    for (const RunOptions::Instance& i : options_.run.instances) names.push_back(i.name);
    restarts_ = plan.RestartsOf(names, Instant() + Duration::Seconds(86'400));
    planned_ = clock_.Now();
    next_restart_ = 0;
  }
  void RestartDue() {
    for (; next_restart_ < restarts_.size(); ++next_restart_) {
      const RestartEvent& e = restarts_[next_restart_];
      if (clock_.Now() - planned_ < e.at - Instant()) return;
      caf::anon_send(cluster_.instances[e.instance], RestartCall{e.downtime});
    }
  }
  void TakeReload() {
    const auto reload = options_.reload ? options_.reload() : std::nullopt;
    if (!reload) return;
    const bool other_faults = reload->faults != faults_;
    const Status replaced =
        other_faults ? ReplaceFaults(system_, clock_, options_.run, reload->faults, cluster_) : foretoken::Status();
    if (replaced.ok()) {
      if (other_faults) PlanRestarts(faults_ = reload->faults);
      for (const caf::actor& s : cluster_.schedulers) caf::anon_send(s, reload->policy);
      if (observer_) caf::anon_send(observer_, reload->policy);
    }
    options_.reloaded(replaced);
  }
  void WaitForTheEnd(Clock::time_point start) {
    const bool load = !options_.load->requests.empty();
    while (!(load && done_) && !(options_.stop_requested && options_.stop_requested())) {
      TakeReload();
      RestartDue();
      if (options_.lasts && Clock::now() - start >= std::chrono::nanoseconds(options_.lasts->nanos())) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(load ? 10 : 100));
    }
  }
  bool Drain() const {
    const Clock::time_point until = Clock::now() + std::chrono::nanoseconds(options_.drain.nanos());
    while (!done_ && Clock::now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return done_;
  }

  template <class Status>
  void Ask(const caf::actor& whom, const std::function<void(const Status&)>& use) {
    caf::scoped_actor self(system_);
    self->request(whom, std::chrono::seconds(2), StatusQuery{}).receive(use, [](const caf::error&) {});
  }
  void Collect(LiveResult& out) {
    RunResult& r = out.run;
    for (const RunOptions::Instance& i : options_.run.instances) r.instance_names.push_back(i.name);
    for (const caf::actor& a : cluster_.schedulers)
      Ask<SchedulerStatus>(a, [&r](const SchedulerStatus& s) { Add(r.scheduler, s.counters); });
    for (const caf::actor& a : cluster_.simulators)
      Ask<SimulatorStatus>(a, [&r](const SimulatorStatus& s) {
        Add(r.simulators, s.counters);
        Add(r.sync, s.sync);
        Add(r.drift, s.drift);
      });
    for (const caf::actor& a : cluster_.links) Ask<LinkCounters>(a, [&r](const LinkCounters& c) { Add(r.links, c); });
    for (const caf::actor& a : cluster_.instances)
      Ask<InstanceStatus>(a, [&r](const InstanceStatus& s) {
        r.steps += s.counters.steps;
        r.preemptions += s.counters.preemptions;
      });
  }

  const LiveOptions& options_;
  Config config_;
  caf::actor_system system_{config_};
  HostClock clock_;
  std::shared_ptr<ClientLog> log_;
  Cluster cluster_;
  FaultPlan faults_ = options_.run.faults;
  caf::actor observer_;  // null: nobody watches
  std::vector<RestartEvent> restarts_;
  Instant planned_;  // when their times began
  size_t next_restart_ = 0;
  std::atomic<bool> done_{false};
};

}  // namespace

Result<caf::actor> StartRecorder(caf::actor_system& system, const HostClock& clock, const LiveOptions& options) {
  if (!options.record) return caf::actor();
  SessionRecord session = options.record->session;
  session.zero_ns = clock.ZeroNanos();
  auto log = LogWriter::Create(options.record->path, options.record->bytes_max);
  if (!log.ok()) return log.error();
  return SpawnRecorder(system, std::move(log).value(), session);
}

std::optional<RequestJournal::Options> JournalOf(const LiveOptions& options) {
  if (!options.watch) return std::nullopt;
  RequestJournal::Options o;
  o.slo = options.run.scheduler.slo;
  o.decisions = 96;           // long enough that the ends of most are seen
  o.details_per_second = 12;  // nobody follows more
  return o;
}

RecorderStatus StatusOf(caf::actor_system& system, const caf::actor& recorder) {
  RecorderStatus out;
  caf::scoped_actor self(system);
  self->request(recorder, std::chrono::seconds(5), RecorderQuery{})
      .receive([&out](const RecorderStatus& s) { out = s; }, [](const caf::error&) {});
  return out;
}

Result<LiveResult> RunLive(const LiveOptions& options) { return LiveRun(options).Run(); }

}  // namespace foretoken
