#include "integration/bench/decide_bench.h"

#include <algorithm>
#include <caf/all.hpp>
#include <future>
#include <memory>
#include <utility>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "actors/scheduler.h"
#include "actors/simulator.h"
#include "integration/bench/decide_floor.h"
#include "integration/observe/observer.h"
#include "runtime/workload/make_length_estimator.h"

namespace foretoken {
namespace {

struct Measured {
  std::vector<int64_t> nanos, max_compute, sum_compute, max_queue;
  double seconds = 0;
};

// Of the replies to the decision that is open, when only one is. Written by the SCHEDULER before it decides, read by the client
// after: the messages between them order that.
struct Replies {
  int64_t max_compute = 0, sum_compute = 0, max_queue = 0;
  void Add(const Stamps& s) {
    const int64_t compute = (s.ended - s.started).nanos();
    max_compute = std::max(max_compute, compute);
    sum_compute += compute;
    max_queue = std::max(max_queue, (s.started - s.submitted).nanos());
  }
};

struct Setup {
  HostClock clock;
  caf::actor scheduler;
  std::vector<caf::actor> host_of;  // by instance
  std::vector<SyncStream> streams;
  std::shared_ptr<Replies> replies;
  int32_t in_flight = 1;
  Duration warm_up, measure;
  std::promise<Measured> measured;
};

struct BeginCall {};

// Keeps `in_flight` decisions open. Each decision is followed by one sync message of the winner, and its reservation stays: an
// instance waits with as many more as there were decisions since its script began, and they are taken back when it begins anew. At
// the SCHEDULER the request ends at once.
class LoadShell {
 public:
  LoadShell(caf::event_based_actor* self, std::shared_ptr<Setup> setup) : self_(self), s_(std::move(setup)), prng_(1) {}

  void Begin() {
    begun_ = s_->clock.Now();
    submitted_.resize(1 << 12);
    reserved_.resize(s_->streams.size());
    for (int32_t k = 0; k < s_->in_flight; ++k) Submit();
  }
  void On(const DecisionNote& note) {
    const Instant now = s_->clock.Now();
    const RequestId request = note.decision.request;
    if (now - begun_ >= s_->warm_up) {
      if (measured_.nanos.empty()) from_ = now;
      measured_.nanos.push_back((now - submitted_[request.value() & mask()]).nanos());
      measured_.max_compute.push_back(s_->replies->max_compute);
      measured_.sum_compute.push_back(s_->replies->sum_compute);
      measured_.max_queue.push_back(s_->replies->max_queue);
    }
    if (s_->in_flight == 1) *s_->replies = {};
    const InstanceId winner = note.decision.placement.front().instance;
    const caf::actor& host = s_->host_of[winner.value()];
    SyncStream& stream = s_->streams[winner.value()];
    std::vector<RequestId>& reserved = reserved_[winner.value()];
    reserved.push_back(request);
    if (stream.begins()) {
      for (const RequestId r : reserved) self_->send(host, Cancel{r, winner, OutcomeReason::kNone});
      reserved.clear();
    }
    self_->send(host, StreamCall{stream.Next(now)});
    self_->send(s_->scheduler,
                RequestOutcome{request, winner, OutcomeKind::kFinished, OutcomeReason::kStop, TokenCount(100), now});
    if (now - begun_ < s_->warm_up + s_->measure) return Submit();
    if (ended_) return;
    ended_ = true;
    measured_.seconds = (now - from_).seconds();
    s_->measured.set_value(std::move(measured_));
  }

 private:
  size_t mask() const { return submitted_.size() - 1; }
  void Submit() {
    const Instant now = s_->clock.Now();
    auto meta = std::make_shared<RequestMeta>(DrawRequest(prng_, RequestId(1'000'000 + next_++), now));
    submitted_[meta->id.value() & mask()] = now;
    self_->send(s_->scheduler, ScheduleCall{std::move(meta), now});
  }

  caf::event_based_actor* self_;
  std::shared_ptr<Setup> s_;
  Prng prng_;
  uint64_t next_ = 0;
  Instant begun_, from_;
  std::vector<Instant> submitted_;                // ring by request id
  std::vector<std::vector<RequestId>> reserved_;  // by instance, since its script began
  Measured measured_;
  bool ended_ = false;
};

struct LoadState {
  std::unique_ptr<LoadShell> shell;
  static inline const char* name = "decide_load";
};

}  // namespace
}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::BeginCall)

namespace foretoken {
namespace {

caf::behavior Load(caf::stateful_actor<LoadState>* self, const std::shared_ptr<Setup>& setup) {
  self->state.shell = std::make_unique<LoadShell>(self, setup);
  LoadShell* shell = self->state.shell.get();
  return {[shell](const DecisionNote& note) { shell->On(note); }, [shell](BeginCall) { shell->Begin(); }};
}

caf::behavior Sink(caf::event_based_actor* self, int) {
  return {[](const DispatchCall&) {}, [](const ResyncRequest&) {}, [](const Cancel&) {}};
}

struct Config : caf::actor_system_config {
  explicit Config(int32_t workers) {
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", workers);
    set("logger.console", caf::atom("none"));
  }
};

double MicrosAt(std::vector<int64_t>& nanos, double quantile) {
  const auto nth = nanos.begin() + static_cast<std::ptrdiff_t>(quantile * static_cast<double>(nanos.size() - 1));
  std::nth_element(nanos.begin(), nth, nanos.end());
  return static_cast<double>(*nth) / 1e3;
}

class Row {
 public:
  Row(const StepTimeModel& model, const DecideBenchOptions& options, const std::vector<SyncScript>& scripts, int32_t candidates,
      int32_t in_flight, size_t shard)
      : model_(model),
        options_(options),
        scripts_(scripts),
        candidates_(candidates),
        in_flight_(in_flight),
        shard_(shard),
        config_(options.workers),
        system_(config_),
        clock_(system_, 1) {}

  Result<DecideBenchRow> Run() {
    sink_ = system_.spawn(Sink, 0);
    const Status hosts = AddHosts();
    if (!hosts.ok()) return hosts.error();
    SchedulerActorOptions o;
    o.core = BenchScheduler(options_.load.seed);
    o.core.predict_max = options_.predict_max;
    if (in_flight_ == 1) o.on_reply = [replies = replies_](const PredictedReply& r) { replies->Add(r.stamps); };
    o.infos.assign(static_cast<size_t>(candidates_), SchedulerCore::InstanceInfo{model_, {}});
    auto lengths = MakeLengthEstimator(LengthEstimatorKind::kSampled);
    if (!lengths.ok()) return lengths.error();
    o.lengths = std::move(lengths).value();
    o.simulators = hosts_;
    o.instances.assign(static_cast<size_t>(candidates_), sink_);
    if (options_.board) o.journal.emplace();
    auto scheduler = SpawnScheduler(system_, clock_, std::move(o));
    if (!scheduler.ok()) return scheduler.error();
    const caf::actor observer = Observe(*scheduler);
    auto setup = std::make_shared<Setup>(Setup{clock_,
                                               *scheduler,
                                               host_of_,
                                               std::move(streams_),
                                               replies_,
                                               in_flight_,
                                               Duration::FromSeconds(0.2 * options_.seconds),
                                               Duration::FromSeconds(options_.seconds),
                                               {}});
    std::future<Measured> measured = setup->measured.get_future();
    const caf::actor load = system_.spawn(Load, setup);
    caf::anon_send(load, BeginCall{});
    Measured m = measured.get();
    DecideBenchRow row = Describe(m);
    caf::scoped_actor self(system_);
    self->request(*scheduler, std::chrono::seconds(5), StatusQuery{})
        .receive([&row](const SchedulerStatus& s) { row.unanswered = s.counters.unanswered; }, [](const caf::error&) {});
    for (const caf::actor& a : {load, observer, *scheduler, sink_})
      if (a) caf::anon_send_exit(a, caf::exit_reason::user_shutdown);
    for (const SimulatorHost& h : hosts_) caf::anon_send_exit(h.actor, caf::exit_reason::user_shutdown);
    return row;
  }

 private:
  // Null: nobody watches.
  caf::actor Observe(const caf::actor& scheduler) {
    if (!options_.board) return {};
    ObserverOptions o;
    o.facts.host = "bench";
    for (int32_t k = 0; k < candidates_; ++k) o.instances.push_back({"bench-" + std::to_string(k), "", ""});
    o.schedulers = {scheduler};
    for (const SimulatorHost& h : hosts_) o.simulators.push_back(h.actor);
    o.board = options_.board;
    return SpawnObserver(system_, clock_, std::move(o));
  }
  Status AddHosts() {
    const uint32_t n = static_cast<uint32_t>(candidates_);
    const uint32_t shard = static_cast<uint32_t>(shard_);
    for (uint32_t first = 0; first < n; first += shard) {
      SimulatorActorOptions o;
      const uint32_t count = std::min(shard, n - first);
      for (uint32_t k = first; k < first + count; ++k) {
        const SyncScript& script = scripts_[k % scripts_.size()];
        streams_.emplace_back(InstanceId(k), &script);
        auto core = MakeLoadedSimulator(InstanceId(k), model_, options_.load, script, streams_.back(), clock_.Now());
        if (!core.ok()) return core.error();
        o.cores.push_back(std::move(core).value());
        o.resync_to.push_back(sink_);
      }
      hosts_.push_back({SpawnSimulator(system_, clock_, std::move(o)), InstanceId(first), count});
      host_of_.insert(host_of_.end(), count, hosts_.back().actor);
    }
    return Status();
  }
  DecideBenchRow Describe(Measured& m) const {
    DecideBenchRow row;
    row.candidates = candidates_;
    row.in_flight = in_flight_;
    row.p50_us = MicrosAt(m.nanos, 0.5);
    row.p99_us = MicrosAt(m.nanos, 0.99);
    row.p999_us = MicrosAt(m.nanos, 0.999);
    row.max_compute_us = MicrosAt(m.max_compute, 0.5);
    row.sum_compute_us = MicrosAt(m.sum_compute, 0.5);
    row.max_queue_us = MicrosAt(m.max_queue, 0.5);
    row.decisions = m.nanos.size();
    row.decisions_per_second = static_cast<double>(m.nanos.size()) / m.seconds;
    return row;
  }

  const StepTimeModel& model_;
  const DecideBenchOptions& options_;
  const std::vector<SyncScript>& scripts_;
  const int32_t candidates_;
  const int32_t in_flight_;
  const size_t shard_;
  Config config_;
  caf::actor_system system_;
  HostClock clock_;
  caf::actor sink_;
  std::vector<SimulatorHost> hosts_;
  std::vector<caf::actor> host_of_;
  std::vector<SyncStream> streams_;
  std::shared_ptr<Replies> replies_ = std::make_shared<Replies>();
};

}  // namespace

Result<std::vector<DecideBenchRow>> RunDecideBench(const StepTimeModel& model, const DecideBenchOptions& options) {
  const auto scripts = RecordScripts(model, options.load);
  if (!scripts.ok()) return scripts.error();
  for (const std::string& hosting : options.hosting)
    if (hosting != "actor" && hosting != "shard") return Error{"hosting \"" + hosting + "\": actor or shard"};
  std::vector<DecideBenchRow> rows;
  for (const int32_t candidates : options.candidates) {
    double floor_us = 0;
    if (options.floor) {
      auto floor =
          MeasureDirectDecisions(model, options.load, *scripts, candidates, Duration::FromSeconds(options.seconds / 2));
      if (!floor.ok()) return floor.error();
      floor_us = MicrosAt(*floor, 0.5);
    }
    for (const std::string& hosting : options.hosting) {
      const size_t shard = hosting == "actor" ? 1 : static_cast<size_t>(std::max(options.shard_size, 1));
      for (const int32_t in_flight : options.in_flight) {
        auto row = Row(model, options, *scripts, candidates, in_flight, shard).Run();
        if (!row.ok()) return row.error();
        row->hosting = hosting;
        row->floor_p50_us = floor_us;
        rows.push_back(std::move(row).value());
      }
    }
  }
  return rows;
}

}  // namespace foretoken
