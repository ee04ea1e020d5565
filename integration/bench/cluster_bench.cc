#include "integration/bench/cluster_bench.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <iostream>
#include <memory>
#include <thread>
#include <utility>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "actors/scheduler.h"
#include "integration/bench/throwaway_certificates.h"
#include "integration/transport/node.h"
#include "runtime/workload/make_length_estimator.h"

extern char** environ;

namespace foretoken {
namespace {

std::string NodeName(size_t k) { return k == 0 ? "router" : "gpu-" + std::to_string(k - 1); }

struct Config : caf::actor_system_config {
  Config() {
    load<caf::io::middleman>();
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 1);
    set("middleman.workers", 0);
    set("logger.console", caf::atom("none"));
  }
};

// What the two kinds of process have in common.
Result<NodeOptions> OptionsOf(size_t self, const std::vector<uint16_t>& ports, int32_t per_node,
                              const std::string& certificates) {
  NodeOptions o;
  for (size_t k = 0; k < ports.size(); ++k) o.links.nodes.push_back({NodeName(k), {"127.0.0.1", ports[k]}});
  o.links.self = NodeId(static_cast<uint32_t>(self));
  if (!certificates.empty()) {
    const std::string mine = certificates + "/" + NodeName(self);
    auto tls = TlsContext::Load({mine + ".pem", mine + ".key", certificates + "/ca.pem"});
    if (!tls.ok()) return tls.error();
    o.links.tls = std::move(tls).value();
  }
  o.links.log = [](const std::string&) {};
  for (uint32_t node = 1; node < ports.size(); ++node)
    for (int32_t i = 0; i < per_node; ++i) o.places.push_back({NodeId(node), NodeId(node), 1});
  o.instances.resize(o.places.size());
  o.streams = false;  // the mirrors are loaded from the start
  return o;
}

// ---- The router's side: keeps `in_flight` decisions open.

struct Measured {
  std::vector<int64_t> nanos;
  double seconds = 0;
};

struct LoadSetup {
  HostClock clock;
  caf::actor scheduler;
  int32_t in_flight = 1;
  Duration warm_up, measure;
  std::promise<Measured> measured;
};

struct BeginClusterLoad {};

class LoadShell {
 public:
  LoadShell(caf::event_based_actor* self, std::shared_ptr<LoadSetup> setup) : self_(self), s_(std::move(setup)), prng_(1) {}

  void Begin() {
    begun_ = s_->clock.Now();
    submitted_.resize(1 << 12);
    for (int32_t k = 0; k < s_->in_flight; ++k) Submit();
  }
  void On(const DecisionNote& note) {
    const Instant now = s_->clock.Now();
    if (now - begun_ >= s_->warm_up) {
      if (measured_.nanos.empty()) from_ = now;
      measured_.nanos.push_back((now - submitted_[note.decision.request.value() & (submitted_.size() - 1)]).nanos());
    }
    if (now - begun_ < s_->warm_up + s_->measure) return Submit();
    if (ended_) return;
    ended_ = true;
    measured_.seconds = (now - from_).seconds();
    s_->measured.set_value(std::move(measured_));
  }

 private:
  void Submit() {
    const Instant now = s_->clock.Now();
    auto meta = std::make_shared<RequestMeta>(DrawRequest(prng_, RequestId(1'000'000 + next_++), now));
    submitted_[meta->id.value() & (submitted_.size() - 1)] = now;
    self_->send(s_->scheduler, ScheduleCall{std::move(meta), now});
  }

  caf::event_based_actor* self_;
  std::shared_ptr<LoadSetup> s_;
  Prng prng_;
  uint64_t next_ = 0;
  Instant begun_, from_;
  std::vector<Instant> submitted_;  // ring by request id
  Measured measured_;
  bool ended_ = false;
};

struct LoadState {
  std::unique_ptr<LoadShell> shell;
  static inline const char* name = "cluster_load";
};

// ---- The other nodes' side: an INSTANCE whose engine was recorded beforehand. A request ends at once; its reservation stays until the
// script begins anew.

struct EngineSetup {
  HostClock clock;
  InstanceId instance;
  std::shared_ptr<SyncStream> stream;
};

struct EngineState {
  std::vector<RequestId> reserved;
  static inline const char* name = "recorded_engine";
};

}  // namespace
}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::BeginClusterLoad)

namespace foretoken {
namespace {

caf::behavior Load(caf::stateful_actor<LoadState>* self, const std::shared_ptr<LoadSetup>& setup) {
  self->state.shell = std::make_unique<LoadShell>(self, setup);
  LoadShell* shell = self->state.shell.get();
  return {[shell](const DecisionNote& note) { shell->On(note); }, [shell](BeginClusterLoad) { shell->Begin(); },
          [](const RequestOutcome&) {}, [](const RejectNote&) {}};
}

caf::behavior Engine(caf::stateful_actor<EngineState>* self, const std::shared_ptr<EngineSetup>& s) {
  return {[self, s](const DispatchCall& call) {
            const auto node = caf::actor_cast<caf::actor>(self->current_sender());
            const Instant now = s->clock.Now();
            std::vector<RequestId>& reserved = self->state.reserved;
            reserved.push_back(call.request->id);
            if (s->stream->begins()) {
              for (const RequestId r : reserved) self->send(node, Cancel{r, s->instance, OutcomeReason::kNone});
              reserved.clear();
            }
            self->send(node, StreamCall{s->stream->Next(now)});
            self->send(node, RequestOutcome{call.request->id, s->instance, OutcomeKind::kFinished, OutcomeReason::kStop,
                                            TokenCount(100), now});
          },
          [](const Cancel&) {}, [](const ResyncRequest&) {}};
}

// Ports that were free a moment ago.
Result<std::vector<uint16_t>> FreePorts(size_t n) {
  std::vector<int> sockets;
  std::vector<uint16_t> ports;
  for (size_t k = 0; k < n; ++k) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* any = reinterpret_cast<sockaddr*>(&address);
    if (fd < 0 || bind(fd, any, length) != 0 || getsockname(fd, any, &length) != 0) return Error{"no free port on 127.0.0.1"};
    sockets.push_back(fd);
    ports.push_back(ntohs(address.sin_port));
  }
  for (const int fd : sockets) close(fd);
  return ports;
}

// The other processes; they end when their standard input does, also when this process is killed.
class Children {
 public:
  ~Children() {
    for (const int fd : inputs_) close(fd);
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
  }
  Status Start(const std::vector<std::string>& arguments) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return Error{"no pipe"};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], 0);
    std::vector<char*> argv;
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    pid_t pid = 0;
    const int failed = posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[0]);
    inputs_.push_back(ends[1]);
    if (failed != 0) return Error{"cannot start " + arguments[0]};
    pids_.push_back(pid);
    return Status();
  }

 private:
  std::vector<int> inputs_;
  std::vector<pid_t> pids_;
};

class Row {
 public:
  Row(const StepTimeModel& model, const ClusterBenchOptions& options, bool tls)
      : model_(model), o_(options), tls_(tls), clock_(system_, 1) {}
  ~Row() {
    for (const caf::actor* a : {&load_, &scheduler_, &node_})
      if (*a) caf::anon_send_exit(*a, caf::exit_reason::user_shutdown);
    load_ = scheduler_ = node_ = {};
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  Status Start() {
    const size_t n = static_cast<size_t>(o_.nodes) + 1;
    const auto ports = FreePorts(n);
    if (!ports.ok()) return ports.error();
    if (tls_) {
      std::string made = std::filesystem::temp_directory_path() / ("foretoken-bench-" + std::string(6, 'X'));
      if (mkdtemp(made.data()) == nullptr) return Error{"no temporary folder"};
      folder_ = made;
      std::vector<std::string> names;
      for (size_t k = 0; k < n; ++k) names.push_back(NodeName(k));
      const Status written = WriteThrowawayCertificates(folder_, names);
      if (!written.ok()) return written;
    }
    std::string list;
    for (const uint16_t p : *ports) list += (list.empty() ? "" : ",") + std::to_string(p);
    for (size_t k = 1; k < n; ++k) {
      const Status started =
          children_.Start({o_.program, "bench", "cluster", "--serve-node", std::to_string(k), "--ports", list, "--instances",
                           std::to_string(o_.instances_per_node), "--running", std::to_string(o_.load.running), "--waiting",
                           std::to_string(o_.load.waiting), "--certificates", folder_.empty() ? "-" : folder_});
      if (!started.ok()) return started;
    }
    auto options = OptionsOf(0, *ports, o_.instances_per_node, folder_);
    if (!options.ok()) return options.error();
    options->roles = {"scheduler"};
    auto node = SpawnNode(system_, clock_, std::move(options).value());
    if (!node.ok()) return node.error();
    node_ = *node;
    const Status scheduler = AddScheduler();
    return scheduler.ok() ? AwaitNodes() : scheduler;
  }

  Result<ClusterBenchRow> Measure(int32_t in_flight) {
    auto setup = std::make_shared<LoadSetup>(LoadSetup{
        clock_, scheduler_, in_flight, Duration::FromSeconds(0.2 * o_.seconds), Duration::FromSeconds(o_.seconds), {}});
    std::future<Measured> measured = setup->measured.get_future();
    const auto before = Query();
    const uint64_t decided = Decisions().decisions;
    load_ = system_.spawn(Load, setup);
    caf::anon_send(load_, BeginClusterLoad{});
    if (measured.wait_for(std::chrono::seconds(60)) != std::future_status::ready)
      return Error{"the decisions do not come to an end"};
    Measured m = measured.get();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the last outcomes
    const auto after = Query();
    if (!before.ok() || !after.ok()) return Error{"the node does not answer"};
    const SchedulerCounters counters = Decisions();
    caf::anon_send_exit(load_, caf::exit_reason::user_shutdown);
    std::sort(m.nanos.begin(), m.nanos.end());
    const auto quantile = [&m](double q) {
      return m.nanos.empty()
                 ? 0
                 : static_cast<double>(m.nanos[static_cast<size_t>(q * static_cast<double>(m.nanos.size() - 1))]) / 1e3;
    };
    const double all = static_cast<double>(std::max<uint64_t>(1, counters.decisions - decided));
    const LinkCounts &a = before->links, &b = after->links;
    std::vector<double> trips;
    for (const PeerStatus& p : after->peers)
      if (p.round_trip) trips.push_back(static_cast<double>(p.round_trip->nanos()) / 1e3);
    std::sort(trips.begin(), trips.end());
    return ClusterBenchRow{o_.nodes,
                           o_.nodes * o_.instances_per_node,
                           tls_,
                           in_flight,
                           quantile(0.5),
                           quantile(0.99),
                           static_cast<double>(m.nanos.size()) / m.seconds,
                           static_cast<double>(b.frames_in + b.frames_out - a.frames_in - a.frames_out) / all,
                           static_cast<double>(b.bytes_in + b.bytes_out - a.bytes_in - a.bytes_out) / all,
                           trips.empty() ? 0 : trips[trips.size() / 2],
                           m.nanos.size(),
                           counters.unanswered};
  }

 private:
  Status AddScheduler() {
    SchedulerActorOptions o;
    o.core = BenchScheduler(o_.load.seed);
    o.core.predict_max = o_.predict_max;
    const auto n = static_cast<uint32_t>(o_.nodes * o_.instances_per_node);
    o.infos.assign(n, SchedulerCore::InstanceInfo{model_, {}});
    auto lengths = MakeLengthEstimator(LengthEstimatorKind::kSampled);
    if (!lengths.ok()) return lengths.error();
    o.lengths = std::move(lengths).value();
    o.simulators = {{node_, InstanceId(0), n}};
    o.instances.assign(n, node_);
    o.spawn = BesideNode(system_);
    auto scheduler = SpawnScheduler(system_, clock_, std::move(o));
    if (!scheduler.ok()) return scheduler.error();
    scheduler_ = *scheduler;
    caf::anon_send(node_, AttachCall{{scheduler_}, {}});
    return Status();
  }
  Status AwaitNodes() {
    for (int32_t k = 0; k < 1500; ++k) {
      const auto s = Query();
      if (s.ok() && std::all_of(s->instances.begin(), s->instances.end(), [](auto& i) { return i.reachable; })) return Status();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return Error{"the other nodes do not come up within 30 s"};
  }
  Result<NodeStatus> Query() {
    Result<NodeStatus> out = Error{"the node does not answer"};
    caf::scoped_actor self(system_);
    self->request(node_, std::chrono::seconds(5), NodeQuery{})
        .receive([&out](const NodeStatus& s) { out = s; }, [](const caf::error&) {});
    return out;
  }
  SchedulerCounters Decisions() {
    SchedulerCounters out;
    caf::scoped_actor self(system_);
    self->request(scheduler_, std::chrono::seconds(5), StatusQuery{})
        .receive([&out](const SchedulerStatus& s) { out = s.counters; }, [](const caf::error&) {});
    return out;
  }

  StepTimeModel model_;
  const ClusterBenchOptions& o_;
  bool tls_;
  std::string folder_;
  Children children_;
  Config config_;
  caf::actor_system system_{config_};
  HostClock clock_;
  caf::actor node_, scheduler_, load_;
};

}  // namespace

Result<std::vector<ClusterBenchRow>> RunClusterBench(const StepTimeModel& model, const ClusterBenchOptions& options) {
  std::vector<ClusterBenchRow> rows;
  for (const bool tls : options.tls) {
    Row row(model, options, tls);
    const Status started = row.Start();
    if (!started.ok()) return started.error();
    for (const int32_t in_flight : options.in_flight) {
      auto measured = row.Measure(in_flight);
      if (!measured.ok()) return measured.error();
      rows.push_back(*measured);
    }
  }
  return rows;
}

Status ServeClusterBenchNode(const StepTimeModel& model, const ClusterBenchNode& options) {
  const auto scripts = RecordScripts(model, options.load);
  if (!scripts.ok()) return scripts.error();
  auto node_options =
      OptionsOf(static_cast<size_t>(options.node), options.ports, options.instances_per_node, options.certificates);
  if (!node_options.ok()) return node_options.error();
  NodeOptions& o = *node_options;
  o.roles = {"instances", "simulators"};
  Config config;
  caf::actor_system system(config);
  const HostClock clock(system, 1);
  std::vector<std::shared_ptr<SyncStream>> streams(o.places.size());
  for (uint32_t k = 0; k < o.places.size(); ++k) {
    if (o.places[k].engine != o.links.self) continue;
    streams[k] = std::make_shared<SyncStream>(InstanceId(k), &(*scripts)[k % scripts->size()]);
    o.instances[k] = system.spawn(Engine, std::make_shared<EngineSetup>(EngineSetup{clock, InstanceId(k), streams[k]}));
  }
  o.make_simulator = [&](InstanceId k, InstanceId) {
    return MakeLoadedSimulator(k, model, options.load, (*scripts)[k.value() % scripts->size()], *streams[k.value()],
                               clock.Now());
  };
  const std::vector<caf::actor> engines = o.instances;
  const auto node = SpawnNode(system, clock, std::move(o));
  if (node.ok())
    for (char c; std::cin.get(c);) {}
  for (const caf::actor& e : engines)
    if (e) caf::anon_send_exit(e, caf::exit_reason::user_shutdown);
  if (!node.ok()) return node.error();
  caf::anon_send_exit(*node, caf::exit_reason::user_shutdown);
  return Status();
}

}  // namespace foretoken
