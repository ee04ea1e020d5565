#include "actors/cluster.h"

#include <algorithm>
#include <caf/all.hpp>
#include <string>
#include <utility>

#include "actors/instance.h"
#include "actors/link.h"
#include "actors/scheduler.h"
#include "actors/simulator.h"
#include "runtime/base/prng.h"
#include "runtime/eval/control_links.h"
#include "runtime/fault/link.h"

namespace foretoken {
namespace {

// Between INSTANCE and SIMULATOR of the k-th instance, one way.
Result<Link> StreamLink(const RunOptions& run, const FaultPlan& plan, uint32_t k, bool to_simulator) {
  const LinkEnd instance{LinkRole::kInstance, run.instances[k].name}, simulator{LinkRole::kSimulator, run.instances[k].name};
  const LinkEnd& from = to_simulator ? instance : simulator;
  const LinkEnd& at = to_simulator ? simulator : instance;
  const LinkFaults* faults = plan.FaultsOf(from, at);
  auto link = Link::Make(faults != nullptr ? *faults : LinkFaults{}, LinkSeed(run.scheduler.seed, from, at));
  if (!link.ok()) return Error{run.instances[k].name + ": " + link.error().message};
  return link;
}

class ClusterBuilder {
 public:
  ClusterBuilder(caf::actor_system& system, const HostClock& clock, const RunOptions& run, const ClusterOptions& options)
      : system_(system), clock_(clock), run_(run), options_(options), faults_(!run.faults.empty()) {}

  Result<Cluster> Build() {
    const auto needs = PolicyNeedsOf(run_.scheduler.policy);
    if (!needs.ok()) return needs.error();
    mirrors_ = *needs >= PolicyNeeds::kPredictions || run_.level != SyncLevel::kNone;
    for (Status (ClusterBuilder::*step)() : {&ClusterBuilder::AddInstances, &ClusterBuilder::AddSimulators,
                                             &ClusterBuilder::Connect, &ClusterBuilder::AddSchedulers}) {
      const Status s = (this->*step)();
      if (s.ok()) continue;
      cluster_.Stop();
      return s.error();
    }
    return std::move(cluster_);
  }

 private:
  Result<PolicyNeeds> PolicyNeedsOf(const std::string& name) const {
    const auto policy = MakePolicy(name, run_.scheduler.weights);
    if (!policy.ok()) return policy.error();
    return policy.value()->needs();
  }

  bool heartbeats() const { return faults_ || options_.heartbeats; }
  bool links() const { return faults_ || options_.switchable_links; }

  Status AddInstances() {
    for (uint32_t k = 0; k < run_.instances.size(); ++k) {
      auto core = MakeInstanceCore(run_, k, heartbeats(), Epoch(1));
      if (!core.ok()) return core.error();
      if (options_.on_instance) options_.on_instance(**core);
      const auto for_engine = [make = options_.for_engine, k](const RequestMeta& r) { return make(InstanceId(k), r); };
      cluster_.instances.push_back(SpawnInstance(system_, clock_, {InstanceId(k), std::move(core).value(), for_engine}));
    }
    return Status();
  }

  Result<caf::actor> AddLink(uint32_t k, bool to_simulator, const caf::actor& to) {
    auto link = StreamLink(run_, run_.faults, k, to_simulator);
    if (!link.ok()) return link.error();
    return SpawnLink(system_, clock_, {std::move(link).value(), to, k});
  }

  Status AddSimulators() {
    if (!mirrors_) return Status();
    const uint32_t n = static_cast<uint32_t>(run_.instances.size());
    const uint32_t shard = static_cast<uint32_t>(std::max<size_t>(1, options_.shard_size));
    cluster_.shard_size = shard;
    resync_to_.resize(n);
    for (uint32_t first = 0; first < n; first += shard) {
      SimulatorActorOptions o;
      o.record = options_.simulator_record;
      const uint32_t count = std::min(shard, n - first);
      for (uint32_t k = first; k < first + count; ++k) {
        auto core = MakeSimulatorCore(run_, k, heartbeats());
        if (!core.ok()) return core.error();
        o.cores.push_back(std::move(core).value());
        if (options_.on_simulator) options_.on_simulator(*o.cores.back());
        resync_to_[k] = cluster_.instances[k];
        if (links()) {
          auto link = AddLink(k, false, cluster_.instances[k]);
          if (!link.ok()) return link.error();
          resync_to_[k] = *link;
        }
        o.resync_to.push_back(resync_to_[k]);
      }
      hosts_.push_back({SpawnSimulator(system_, clock_, std::move(o)), InstanceId(first), count});
      cluster_.simulators.push_back(hosts_.back().actor);
    }
    return Status();
  }

  Status Connect() {
    for (uint32_t k = 0; k < cluster_.instances.size(); ++k) {
      ConnectCall call;
      if (mirrors_) {
        call.simulator = cluster_.simulators[k / std::max<size_t>(1, options_.shard_size)];
        call.stream = call.simulator;
        if (links()) {
          auto link = AddLink(k, true, call.simulator);
          if (!link.ok()) return link.error();
          call.stream = *link;
          cluster_.links.push_back(*link);
          cluster_.links.push_back(resync_to_[k]);
        }
      }
      caf::anon_send(cluster_.instances[k], call);
    }
    return Status();
  }

  Status AddSchedulers() {
    std::vector<SchedulerCore::InstanceInfo> infos;
    for (const RunOptions::Instance& i : run_.instances) infos.push_back({i.profile.step_time, i.facts});
    for (int32_t k = 0; k < std::max(run_.scheduler_count, 1); ++k) {
      SchedulerActorOptions o;
      o.core = run_.scheduler;
      if (HasControlLinks(run_.faults)) o.core.sole = false;  // what it sends may come in another order
      if (k > 0) o.core.seed = Mix64(o.core.seed, static_cast<uint64_t>(k));
      auto lengths = run_.make_lengths(run_.scheduler.seed);
      if (!lengths.ok()) return lengths.error();
      o.infos = infos;
      o.lengths = std::move(lengths).value();
      o.simulators = hosts_;
      o.instances = cluster_.instances;
      o.open_rounds_max = options_.open_rounds_max;
      o.index = static_cast<size_t>(k);
      o.on_decision = options_.on_decision;
      o.journal = options_.journal;
      if (o.journal) o.journal->scheduler = static_cast<uint32_t>(k);
      if (options_.recorder) o.record = options_.recorder(static_cast<uint32_t>(k));
      auto scheduler = SpawnScheduler(system_, clock_, std::move(o));
      if (!scheduler.ok()) return scheduler.error();
      cluster_.schedulers.push_back(*scheduler);
      const Status routed = Route(static_cast<size_t>(k));
      if (!routed.ok()) return routed;
    }
    return Status();
  }

  // Puts links between a SCHEDULER and every SIMULATOR host; a host of several has the links of its first.
  Status Route(size_t scheduler) {
    if (!HasControlLinks(run_.faults) || hosts_.empty()) return Status();
    RouteCall call;
    for (const SimulatorHost& host : hosts_)
      for (const bool forth : {true, false}) {
        const std::string& name = run_.instances[host.first.value()].name;
        auto link = MakeControlLink(run_.faults, scheduler, name, forth, run_.scheduler.seed);
        if (!link.ok()) return link.error();
        const caf::actor to = forth ? host.actor : cluster_.schedulers[scheduler];
        (forth ? call.forth : call.back)
            .push_back(SpawnLink(system_, clock_, {std::move(link).value(), to, host.first.value()}));
      }
    for (const auto* links : {&call.forth, &call.back})
      cluster_.control_links.insert(cluster_.control_links.end(), links->begin(), links->end());
    caf::anon_send(cluster_.schedulers[scheduler], std::move(call));
    return Status();
  }

  caf::actor_system& system_;
  HostClock clock_;
  const RunOptions& run_;
  const ClusterOptions& options_;
  const bool faults_;
  bool mirrors_ = false;
  std::vector<caf::actor> resync_to_;
  std::vector<SimulatorHost> hosts_;
  Cluster cluster_;
};

}  // namespace

void Cluster::Stop() const {
  for (const auto* actors : {&schedulers, &links, &control_links, &simulators, &instances})
    for (const caf::actor& a : *actors) caf::anon_send_exit(a, caf::exit_reason::user_shutdown);
}

Result<std::unique_ptr<InstanceCore>> MakeInstanceCore(const RunOptions& run, uint32_t k, bool heartbeats, Epoch first_epoch,
                                                       std::optional<InstanceId> as) {
  InstanceCore::Options o;
  o.instance = as.value_or(InstanceId(k));
  o.engine = run.instances[k].engine;
  if (as) o.engine.noise.seed = Mix64(o.engine.noise.seed, as->value());
  o.level = run.level;
  o.poll_interval = run.poll_interval;
  if (heartbeats) o.heartbeat = run.heartbeat;
  o.exact_snapshots = run.exact_snapshots;
  o.clock = run.faults.ClockOf(run.instances[k].name);
  o.first_epoch = first_epoch;
  auto core = InstanceCore::Make(std::move(o));
  if (!core.ok()) return Error{run.instances[k].name + ": " + core.error().message};
  return core;
}

Result<std::unique_ptr<SimulatorCore>> MakeSimulatorCore(const RunOptions& run, uint32_t k, bool heartbeats,
                                                         std::optional<InstanceId> as) {
  auto lengths = run.make_lengths(run.scheduler.seed);
  if (!lengths.ok()) return lengths.error();
  InstanceProfile profile = run.instances[k].profile;
  profile.instance = as.value_or(InstanceId(k));
  auto predictor = run.make_predictor(profile, lengths->get());
  if (!predictor.ok()) return Error{run.instances[k].name + ": " + predictor.error().message};
  SimulatorCore::Options o{profile,
                           run.level,
                           run.sequencer,
                           run.stale_after,
                           run.dead_after,
                           run.confirm_timeout,
                           heartbeats && run.level != SyncLevel::kNone,
                           run.faults.ClockOf(run.instances[k].name) != ClockSkew{},
                           HasControlLinks(run.faults)};
  return std::make_unique<SimulatorCore>(std::move(o), std::move(predictor).value(), std::move(lengths).value());
}

namespace {

Status MayReplaceFaults(const RunOptions& run, const FaultPlan& plan, const Cluster& cluster) {
  const Status checked = CheckFaultPlan(plan);
  if (!checked.ok()) return checked;
  if (HasControlLinks(plan) || HasControlLinks(run.faults))
    return Error{"faults " + plan.name + ": links between schedulers and simulators take a restart"};
  for (const RunOptions::Instance& i : run.instances)
    if (plan.ClockOf(i.name) != run.faults.ClockOf(i.name))
      return Error{"faults " + plan.name + ": another clock of " + i.name + " takes a restart"};
  if (cluster.simulators.empty() && !plan.links.empty())
    return Error{"faults " + plan.name + ": this policy follows no sync streams, so there are no links to disturb"};
  return Status();
}

}  // namespace

Status ReplaceFaults(caf::actor_system& system, const HostClock& clock, const RunOptions& run, const FaultPlan& plan,
                     Cluster& cluster) {
  const Status may = MayReplaceFaults(run, plan, cluster);
  if (!may.ok()) return may;
  std::vector<Link> links;  // as Cluster::links
  for (uint32_t k = 0; k < cluster.instances.size() && !cluster.simulators.empty(); ++k)
    for (const bool to_simulator : {true, false}) {
      auto link = StreamLink(run, plan, k, to_simulator);
      if (!link.ok()) return link.error();
      links.push_back(std::move(link).value());
    }
  if (!cluster.links.empty()) {
    for (size_t i = 0; i < links.size(); ++i)
      caf::anon_send(cluster.links[i], FaultCall{std::make_shared<const Link>(links[i])});
    return Status();
  }
  if (plan.links.empty()) return Status();
  for (uint32_t k = 0; k < cluster.instances.size(); ++k) {
    const caf::actor& host = cluster.simulators[k / cluster.shard_size];
    cluster.links.push_back(SpawnLink(system, clock, {links[2 * k], host, k}));
    cluster.links.push_back(SpawnLink(system, clock, {links[2 * k + 1], cluster.instances[k], k}));
    for (size_t i = 2 * k; i < 2 * k + 2; ++i)  // the plan's time begins now, not with the run
      caf::anon_send(cluster.links[i], FaultCall{std::make_shared<const Link>(links[i])});
    caf::anon_send(cluster.instances[k], ConnectCall{cluster.links[2 * k], host});
    caf::anon_send(host, ResyncRouteCall{InstanceId(k), cluster.links[2 * k + 1]});
  }
  return Status();
}

Result<Cluster> SpawnCluster(caf::actor_system& system, const HostClock& clock, const RunOptions& run,
                             const ClusterOptions& options) {
  const Status plan = CheckFaultPlan(run.faults);
  if (!plan.ok()) return plan.error();
  return ClusterBuilder(system, clock, run, options).Build();
}

}  // namespace foretoken
