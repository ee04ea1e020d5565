#include "tests/testing/sim_cluster.h"

#include <algorithm>
#include <utility>

#include "runtime/eval/control_links.h"
#include "runtime/eval/engine_request.h"

namespace foretoken::testing {

SimCluster::Config::Config() {
  set("scheduler.policy", caf::atom("testing"));
  set("logger.console", caf::atom("none"));
}

SimCluster::SimCluster()
    : system_(config_),
      coordinator_(dynamic_cast<caf::scheduler::test_coordinator&>(system_.scheduler())),
      clock_(system_, HostClock::kSlots) {}

SimCluster::~SimCluster() { Drain(); }  // let actors that were told to end do so

void SimCluster::RunUntil(Instant until) {
  const auto stop = clock_.EndOf(until);
  caf::detail::test_actor_clock& clock = coordinator_.clock();
  for (;;) {
    Drain();
    if (after_event_) after_event_();
    const auto& timers = clock.schedule();
    if (timers.empty() || timers.begin()->first > stop) break;
    coordinator_.trigger_timeout();  // exactly one; moves the time to it
  }
  clock.current_time = std::max(clock.current_time, stop);
}

namespace {

// The plain virtual host's loop (runtime/eval), around actors.
class Driver {
 public:
  Driver(const RunOptions& options, const Trace& trace) : options_(options), trace_(trace) {
    std::vector<std::string> names;
    for (const RunOptions::Instance& i : options.instances) names.push_back(i.name);
    if (!trace.requests.empty()) restarts_ = options.faults.RestartsOf(names, trace.requests.back().meta.arrival);
  }

  Result<ActorRun> Run(size_t shard_size) {
    ClusterOptions o;
    o.shard_size = shard_size;
    if (!HasControlLinks(options_.faults)) o.open_rounds_max = 1;  // where answers take time, rounds overlap on both hosts
    const bool named = NamesOutputs(trace_);
    o.for_engine = [this, named](InstanceId k, const RequestMeta& r) {
      const bool eos = options_.instances[k.value()].engine.config.stop_at_eos;
      return EngineRequestOf(trace_.requests[r.id.value() - 1], eos, named);
    };
    ActorRun run;
    o.on_decision = [&run](const DecisionRecord& d) { run.decisions.push_back(d); };
    auto cluster = SpawnCluster(sim_.system(), sim_.clock(), options_, o);
    if (!cluster.ok()) return cluster.error();
    cluster_ = std::move(cluster).value();
    const auto log = std::make_shared<ClientLog>();
    const std::shared_ptr<const Trace> trace(std::shared_ptr<void>(), &trace_);
    const caf::actor client = SpawnClient(sim_.system(), sim_.clock(), {trace, log, false, {}});
    sim_.Send(client, StartCall{cluster_.schedulers});
    for (size_t k = 0; k < trace_.requests.size(); ++k) {
      const Instant at = trace_.requests[k].meta.arrival;
      RestartsUntil(at);
      sim_.RunUntil(at);
      sim_.Send(client, SubmitCall{k});
    }
    Finish(*log);
    run.client = *log;
    run.scheduler = sim_.Ask<SchedulerStatus>(cluster_.schedulers.front(), StatusQuery{});
    for (const caf::actor& host : cluster_.simulators) {
      const SimulatorStatus s = sim_.Ask<SimulatorStatus>(host, StatusQuery{});
      Add(run.simulators.counters, s.counters);
      Add(run.simulators.sync, s.sync);
      Add(run.simulators.drift, s.drift);
    }
    cluster_.Stop();
    sim_.Kill(client);
    return run;
  }

 private:
  void RestartsUntil(Instant until) {
    for (; next_restart_ < restarts_.size() && restarts_[next_restart_].at <= until; ++next_restart_) {
      const RestartEvent& e = restarts_[next_restart_];
      sim_.RunUntil(e.at);
      sim_.Send(cluster_.instances[e.instance], RestartCall{e.downtime});
    }
  }
  void Finish(const ClientLog& log) {
    Instant t = sim_.now();
    for (int k = 0; k < 100'000 && log.ended < log.submitted; ++k) {
      t += Duration::Seconds(1);
      RestartsUntil(t);
      sim_.RunUntil(t);
    }
    sim_.RunUntil(t + options_.confirm_timeout + options_.dead_after);
  }

  const RunOptions& options_;
  const Trace& trace_;
  SimCluster sim_;
  Cluster cluster_;
  std::vector<RestartEvent> restarts_;
  size_t next_restart_ = 0;
};

}  // namespace

Result<ActorRun> RunOnActors(const RunOptions& options, const Trace& trace, size_t shard_size) {
  return Driver(options, trace).Run(shard_size);
}

}  // namespace foretoken::testing
