#include "integration/serve/node_run.h"

#include <algorithm>
#include <atomic>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <chrono>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "actors/client.h"
#include "actors/cluster.h"
#include "actors/host_clock.h"
#include "actors/instance.h"
#include "actors/protocol.h"
#include "actors/scheduler.h"
#include "integration/observe/observer.h"
#include "integration/recorder/replay_log.h"
#include "integration/serve/config_version.h"
#include "integration/serve/control.h"
#include "integration/serve/endless_load.h"
#include "integration/serve/instance_kind.h"
#include "integration/serve/node_front.h"
#include "runtime/base/prng.h"
#include "runtime/eval/engine_request.h"
#include "runtime/perf/step_cost.h"
#include "runtime/workload/azure_profiles.h"

namespace foretoken {
namespace {

using Clock = std::chrono::steady_clock;

// One worker beside the network's thread: handlers take microseconds, and a second one would only wake up for them.
struct Config : caf::actor_system_config {
  Config() {
    load<caf::io::middleman>();
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 1);
    set("scheduler.max-throughput", 100);
    set("middleman.workers", 0);
    set("logger.console", caf::atom("none"));
  }
};

// Of a new process: above those of its predecessors on this host, whose streams mirrors may still hold. Nothing else reads it as a time.
Epoch EpochOfThisStart() {
  return Epoch(static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch() / std::chrono::milliseconds(1)));
}

class NodeRun {
 public:
  explicit NodeRun(const NodeRunOptions& options)
      : options_(options),
        topology_(*options.topology),
        run_(options.live.run),
        clock_(system_, 1),
        log_(std::make_shared<ClientLog>()) {}

  Result<NodeRunResult> Run() {
    const Status started = Start();
    if (!started.ok()) {
      Stop();
      return started.error();
    }
    const Clock::time_point start = Clock::now();
    const bool load = !options_.live.load->requests.empty();
    if (load) {
      WaitUntilReady();
      const auto done = [this] { done_ = true; };
      client_ = options_.live.endless ? SpawnEndlessLoad(system_, clock_, {options_.live.load, done})
                                      : SpawnClient(system_, clock_, {options_.live.load, log_, true, done});
      caf::anon_send(client_, StartCall{schedulers_.empty() ? std::vector<caf::actor>{node_} : schedulers_});
    }
    const Status fronted = load ? Status() : StartFront();
    if (!fronted.ok()) {
      Stop();
      return fronted.error();
    }
    WaitForTheEnd(start);
    NodeRunResult result;
    const bool answered = front_ == nullptr || front_->Stop();  // clients first
    result.live.drained = Drain() && answered;
    front_.reset();
    result.live.wall_seconds = std::chrono::duration<double>(Clock::now() - start).count();
    Collect(result);
    Stop();
    result.live.run.requests = std::move(log_->requests);
    result.live.run.requests.resize(log_->submitted);
    result.live.run.duplicated = log_->duplicated;
    result.live.decision_latency = std::move(log_->decision_latency);
    for (const RunRequest& r : result.live.run.requests) {
      if (r.finish != Instant::Max()) result.live.run.end = std::max(result.live.run.end, r.finish);
      result.live.run.output_tokens += static_cast<uint64_t>(r.output_tokens);
    }
    return result;
  }

 private:
  Status Start() {
    const auto at = std::find_if(topology_.nodes.begin(), topology_.nodes.end(),
                                 [this](const NodeSpec& n) { return n.name == options_.node; });
    if (at == topology_.nodes.end()) return Error{"no node \"" + options_.node + "\" in " + topology_.file};
    spec_ = &*at;
    self_ = NodeId(static_cast<uint32_t>(at - topology_.nodes.begin()));
    if (!options_.live.load->requests.empty() && !spec_->scheduler && !spec_->gateway)
      return Error{"node " + options_.node + " hosts neither scheduler nor gateway: give the load to one that does"};
    if (!run_.faults.empty()) return Error{"a fault plan is for links inside one process: leave out --node, or the plan"};
    auto recorder = StartRecorder(system_, clock_, options_.live);
    if (!recorder.ok()) return recorder.error();
    recorder_ = *recorder;
    for (Status (NodeRun::*step)() : {&NodeRun::AddInstances, &NodeRun::AddNode, &NodeRun::AddSchedulers}) {
      const Status s = (this->*step)();
      if (!s.ok()) return s;
    }
    for (const InstanceId k : spec_->instances)
      caf::anon_send(instances_[k.value()], ConnectCall{node_, run_.level < SyncLevel::kFull ? node_ : caf::actor()});
    ControlOptions c;
    c.node = node_;
    c.schedulers = schedulers_;
    c.self = self_;
    c.kind_of = [this](const std::string& kind) { return InstanceOfKind(topology_, kind); };
    for (const NodeSpec& n : topology_.nodes) c.node_names.push_back(n.name);
    if (options_.live.watch) c.board = options_.live.watch->board;
    control_ = SpawnControl(system_, std::move(c));
    StartWatching();
    caf::anon_send(node_, AttachCall{schedulers_, control_});
    return Status();
  }

  // Where the topology says what the gateway is like, the node that hosts it serves HTTP.
  Status StartFront() {
    if (!spec_->gateway || !topology_.gateway) return Status();
    NodeFrontOptions o;
    o.topology = &topology_;
    o.node = node_;
    o.schedulers = schedulers_;
    // Unlike those of the process before it: the second of the start is in front of a count.
    const uint64_t second = EpochOfThisStart().value() / 1000 % (uint64_t{1} << 18);
    o.first_request = (uint64_t{self_.value()} << kNodeIdShift) + (second << 22) + 1;
    auto front = NodeFront::Start(system_, clock_, std::move(o));
    if (!front.ok()) return front.error();
    front_ = std::move(front).value();
    if (options_.fronting) options_.fronting(front_->url());
    return Status();
  }

  void StartWatching() {
    if (!options_.live.watch) return;
    const WatchOptions& w = *options_.live.watch;
    ObserverOptions o;
    o.facts = w.facts;
    for (size_t k = 0; k < run_.instances.size(); ++k) {
      const InstanceProfile& known = run_.instances[k].profile;
      const double kv_tokens = static_cast<double>(known.limits.num_gpu_blocks) * known.limits.block_size;
      o.instances.push_back({run_.instances[k].name, k < w.kinds.size() ? w.kinds[k] : "",
                             k < w.models.size() ? w.models[k] : "", FleetLoad::Engine{CostOf(known.step_time), kv_tokens}});
    }
    o.schedulers = schedulers_;
    o.simulators = {node_};
    o.node = node_;
    for (const NodeSpec& n : topology_.nodes) o.node_names.push_back(n.name);
    o.board = w.board;
    observer_ = SpawnObserver(system_, clock_, std::move(o));
  }

  Status AddInstances() {
    instances_.resize(run_.instances.size());
    for (const InstanceId k : spec_->instances) {
      auto core = MakeInstanceCore(run_, k.value(), true, EpochOfThisStart());
      if (!core.ok()) return core.error();
      const auto for_engine = [this, k](const RequestMeta& r) { return ForEngine(k, r); };
      instances_[k.value()] = SpawnInstance(system_, clock_, {k, std::move(core).value(), for_engine});
    }
    return Status();
  }

  std::optional<InstanceId> JoinedAs(InstanceId k) const {
    return k.value() < run_.instances.size() ? std::nullopt : std::optional(k);
  }
  // Called in the NODE, which has it from then on; ended with the others.
  Result<caf::actor> MakeJoined(InstanceId k, InstanceId kind, const std::string& name, const caf::actor& node) {
    auto core = MakeInstanceCore(run_, kind.value(), true, EpochOfThisStart(), k);
    if (!core.ok()) return Error{name + ": " + core.error().message};
    const auto for_engine = [this, kind](const RequestMeta& r) { return ForEngine(kind, r); };
    caf::actor engine = SpawnInstance(system_, clock_, {k, std::move(core).value(), for_engine});
    caf::anon_send(engine, ConnectCall{node, run_.level < SyncLevel::kFull ? node : caf::actor()});
    const std::lock_guard lock(joined_mutex_);
    joined_.push_back(engine);
    return engine;
  }

  // The true length of a request is known to whoever made it. One that comes from elsewhere has a length of its own here: its engine's
  // secret, the same whenever the request comes.
  EngineRequest ForEngine(InstanceId k, const RequestMeta& r) const {
    const bool eos = run_.instances[k.value()].engine.config.stop_at_eos;
    const auto& mine = options_.live.load->requests;
    if (!mine.empty() && r.id >= mine.front().meta.id && r.id <= mine.back().meta.id)
      return EngineRequestOf(mine[r.id.value() - mine.front().meta.id.value()], eos, false);
    const auto& lengths = AzureConv2023().output_tokens;
    const double u = UnitFrom(Mix64(topology_.seed ^ 0x7E57, r.id.value()));
    const auto index = static_cast<size_t>(u * static_cast<double>(lengths.size()));
    return EngineRequestOf({r, {TokenCount(std::max<int64_t>(1, lengths[index]))}}, eos, false);
  }

  Status AddNode() {
    NodeOptions o;
    o.links.nodes = NodeAddressesOf(topology_);
    o.links.self = self_;
    if (topology_.tls) {
      auto tls = TlsContext::Load({topology_.tls->certificate, topology_.tls->key, topology_.tls->ca});
      if (!tls.ok()) return tls.error();
      o.links.tls = std::move(tls).value();
    }
    o.links.heartbeat = topology_.sync.heartbeat;
    o.links.dead_after = topology_.sync.dead_after;
    o.links.log = options_.log;
    if (spec_->scheduler) o.roles.push_back("scheduler");
    if (spec_->gateway) o.roles.push_back("gateway");
    if (!spec_->instances.empty()) o.roles.push_back("instances");
    if (!spec_->simulators.empty()) o.roles.push_back("simulators");
    o.places = PlacesOf(topology_);
    o.instances = instances_;
    o.names = topology_.InstanceNames();
    o.make_simulator = [this](InstanceId k, InstanceId kind) {
      return MakeSimulatorCore(run_, kind.value(), true, JoinedAs(k));
    };
    o.make_instance = [this](InstanceId k, InstanceId kind, const std::string& name, const caf::actor& node) {
      return MakeJoined(k, kind, name, node);
    };
    if (recorder_ && options_.live.record->simulators) o.record = RecordTo(recorder_, kSimulatorRecords);
    o.streams = run_.level != SyncLevel::kNone;
    o.outcomes_to_simulators = run_.level < SyncLevel::kFull;
    o.confirm_timeout = run_.confirm_timeout;
    o.return_after = topology_.sync.dead_after;
    auto node = SpawnNode(system_, clock_, std::move(o));
    if (!node.ok()) return node.error();
    node_ = std::move(node).value();
    return Status();
  }

  Status AddSchedulers() {
    if (!spec_->scheduler) return Status();
    for (int32_t k = 0; k < std::max(run_.scheduler_count, 1); ++k) {
      SchedulerActorOptions o;
      o.core = run_.scheduler;
      o.core.sole = SoleScheduler(topology_);
      o.core.seed = SchedulerSeed(run_.scheduler.seed, self_.value(), static_cast<uint32_t>(k));
      if (recorder_) o.record = RecordTo(recorder_, static_cast<uint32_t>(k));
      o.journal = JournalOf(options_.live);
      if (o.journal) o.journal->scheduler = static_cast<uint32_t>(k);
      auto lengths = run_.make_lengths(run_.scheduler.seed);
      if (!lengths.ok()) return lengths.error();
      for (const RunOptions::Instance& i : run_.instances) o.infos.push_back({i.profile.step_time, i.facts});
      o.lengths = std::move(lengths).value();
      o.spawn = BesideNode(system_);
      o.simulators = {{node_, InstanceId(0), static_cast<uint32_t>(run_.instances.size())}};
      for (const caf::actor& local : instances_) o.instances.push_back(local ? local : node_);
      auto scheduler = SpawnScheduler(system_, clock_, std::move(o));
      if (!scheduler.ok()) return scheduler.error();
      schedulers_.push_back(*scheduler);
    }
    return Status();
  }

  Result<NodeStatus> QueryNode() {
    Result<NodeStatus> out = Error{"the node does not answer"};
    caf::scoped_actor self(system_);
    self->request(node_, std::chrono::seconds(2), NodeQuery{})
        .receive([&out](const NodeStatus& s) { out = s; }, [](const caf::error&) {});
    return out;
  }
  void WaitUntilReady() {
    const Clock::time_point until = Clock::now() + std::chrono::nanoseconds(options_.ready_within.nanos());
    while (Clock::now() < until && !StopRequested()) {
      const auto s = QueryNode();
      const bool ready =
          s.ok() && std::all_of(s->instances.begin(), s->instances.end(), [](auto& i) { return i.reachable && i.mirrored; });
      if (ready && (!schedulers_.empty() || s->schedulers_elsewhere > 0)) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    if (options_.log) options_.log("not all instances are reachable; the load begins without them");
  }
  bool StopRequested() const { return options_.live.stop_requested && options_.live.stop_requested(); }
  void TakeReload() const {
    const auto reload = options_.live.reload ? options_.live.reload() : std::nullopt;
    if (!reload) return;
    if (!reload->faults.empty())
      return options_.live.reloaded(Error{"a fault plan is for links inside one process: a node has none"});
    for (const caf::actor& s : schedulers_) caf::anon_send(s, reload->policy);
    if (observer_) caf::anon_send(observer_, reload->policy);
    options_.live.reloaded(Status());
  }
  void WaitForTheEnd(Clock::time_point start) const {
    const bool load = !options_.live.load->requests.empty();
    while (!(load && done_) && !StopRequested()) {
      TakeReload();
      if (options_.live.lasts && Clock::now() - start >= std::chrono::nanoseconds(options_.live.lasts->nanos())) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(load ? 10 : 50));
    }
  }
  // Nothing new is taken, here or by others here; what is under way may end. What does not, its SCHEDULER decides anew when we are gone.
  bool Drain() {
    if (client_) caf::anon_send(client_, StopSubmittingCall{});
    caf::anon_send(node_, DrainCall{});
    const Clock::time_point until = Clock::now() + std::chrono::nanoseconds(options_.live.drain.nanos());
    for (;;) {
      const auto s = QueryNode();
      const bool idle = s.ok() && s->held_for_others == 0 && s->fronted == 0 && (!client_ || done_);
      if (idle || Clock::now() >= until) return idle;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  template <class S>
  void Ask(const caf::actor& whom, const std::function<void(const S&)>& use) {
    caf::scoped_actor self(system_);
    self->request(whom, std::chrono::seconds(2), StatusQuery{}).receive(use, [](const caf::error&) {});
  }
  void Collect(NodeRunResult& out) {
    RunResult& r = out.live.run;
    for (const RunOptions::Instance& i : run_.instances) r.instance_names.push_back(i.name);
    for (const caf::actor& a : schedulers_)
      Ask<SchedulerStatus>(a, [&r](const SchedulerStatus& s) { Add(r.scheduler, s.counters); });
    for (const InstanceId k : spec_->instances)
      Ask<InstanceStatus>(instances_[k.value()], [&r](const InstanceStatus& s) {
        r.steps += s.counters.steps;
        r.preemptions += s.counters.preemptions;
      });
    if (recorder_) out.live.recorded = StatusOf(system_, recorder_);
    if (auto s = QueryNode(); s.ok()) out.node = std::move(s).value();
    r.simulators = out.node.simulators.counters;
    r.sync = out.node.simulators.sync;
    r.drift = out.node.simulators.drift;
  }
  void Stop() {
    std::vector<caf::actor> all = schedulers_;
    all.insert(all.end(), instances_.begin(), instances_.end());
    {
      const std::lock_guard lock(joined_mutex_);
      all.insert(all.end(), joined_.begin(), joined_.end());
      joined_.clear();
    }
    all.insert(all.end(), {client_, observer_, control_, node_, recorder_});
    for (const caf::actor& a : all)
      if (a) caf::anon_send_exit(a, caf::exit_reason::user_shutdown);
    {
      caf::scoped_actor self(system_);
      for (const caf::actor& a : all)
        if (a) self->wait_for(a);  // CAF's own wait leaves out what runs in the network's thread
    }
    for (caf::actor* a : {&client_, &observer_, &control_, &node_, &recorder_}) *a = {};
    schedulers_.clear();
    instances_.clear();
    all.clear();
    system_.await_all_actors_done();
  }

  const NodeRunOptions& options_;
  const Topology& topology_;
  const RunOptions& run_;
  Config config_;
  caf::actor_system system_{config_};
  HostClock clock_;
  std::shared_ptr<ClientLog> log_;
  const NodeSpec* spec_ = nullptr;
  NodeId self_;
  std::vector<caf::actor> instances_;  // by InstanceId; null: elsewhere
  std::mutex joined_mutex_;
  std::vector<caf::actor> joined_;  // INSTANCEs that joined here at run time
  std::vector<caf::actor> schedulers_;
  std::unique_ptr<NodeFront> front_;  // null: no HTTP here
  caf::actor node_, control_, client_, recorder_, observer_;
  std::atomic<bool> done_{false};
};

}  // namespace

Result<NodeRunResult> RunNode(const NodeRunOptions& options) { return NodeRun(options).Run(); }

bool SoleScheduler(const Topology& topology) {
  const auto hosts = std::count_if(topology.nodes.begin(), topology.nodes.end(), [](auto& n) { return n.scheduler; });
  return topology.scheduler.count == 1 && hosts == 1;
}

std::vector<NodeAddress> NodeAddressesOf(const Topology& topology) {
  std::vector<NodeAddress> out;
  for (const NodeSpec& n : topology.nodes) out.push_back({n.name, n.listen});
  return out;
}

std::vector<InstancePlace> PlacesOf(const Topology& topology) {
  std::vector<InstancePlace> places(topology.instances.size());
  for (uint32_t n = 0; n < topology.nodes.size(); ++n) {
    for (const InstanceId k : topology.nodes[n].instances) places[k.value()].engine = NodeId(n);
    for (const InstanceId k : topology.nodes[n].simulators) places[k.value()].simulator = NodeId(n);
  }
  for (uint32_t k = 0; k < places.size(); ++k) places[k].config_version = ConfigVersionOf(topology, InstanceId(k));
  return places;
}

}  // namespace foretoken
