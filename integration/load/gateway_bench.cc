#include "integration/load/gateway_bench.h"

#include <stdlib.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/json.hpp>
#include <filesystem>
#include <memory>
#include <utility>

#include "integration/http/event_loop.h"
#include "integration/http/http_fetch.h"
#include "integration/load/child_process.h"
#include "integration/load/gateway_peers.h"
#include "integration/load/load_client.h"

namespace foretoken {
namespace {

constexpr Duration kReady = Duration::Seconds(20);
constexpr char kListening[] = "listening on http://";

double Median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::sort(v.begin(), v.end());
  return v.size() % 2 == 1 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

// A folder for the peers' files; gone with its owner.
struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "foretoken-bench-").string() + std::string(6, 'X');
    if (mkdtemp(name.data()) != nullptr) path = name;
  }
  ~Folder() {
    std::error_code ignored;
    if (!path.empty()) std::filesystem::remove_all(path, ignored);
  }
  std::string path;
};

// The lines of a program that serves on a port which the kernel chose.
Result<LoadTarget> WhereItListens(ChildProcess& process) {
  const auto line = process.LineWith(kListening, kReady);
  if (!line.ok()) return line.error();
  const std::string url = line->substr(line->find(kListening) + std::string(kListening).size());
  return ParseTarget(url.substr(0, url.find_first_of(" \t\r")));
}

struct Contender {
  GatewayBenchRow row;
  std::unique_ptr<ChildProcess> process;  // null: the direct connection
  std::vector<LoadTarget> targets;
  std::vector<double> p50, p99, rate, cpu, saturated, saturated_cpu;  // one per repeat
};

class GatewayBench {
 public:
  GatewayBench(const GatewayBenchOptions& options, EventLoop& loop) : options_(options), loop_(loop) {}

  Result<GatewayBenchResult> Run() {
    double load[1] = {0};
    if (getloadavg(load, 1) == 1) result_.load_before = load[0];
    if (const Status started = Start(); !started.ok()) return started.error();
    for (Contender& c : contenders_) WarmUp(c);
    for (int repeat = 1; repeat <= options_.repeats; ++repeat) {
      for (Contender& c : contenders_) {
        options_.progress("repeat " + std::to_string(repeat) + " of " + std::to_string(options_.repeats) + ": " + c.row.name);
        MeasureAdded(c);
      }
      for (Contender& c : contenders_) MeasureSaturated(c);
    }
    for (Contender& c : contenders_)
      if (c.process != nullptr) MeasureConcurrent(c);
    if (!control_failed_.empty()) return Error{"a fake engine does not answer its control: " + control_failed_};
    Summarise();
    return std::move(result_);
  }

 private:
  Status Start() {
    if (folder_.path.empty()) return Error{"cannot make a folder for temporary files"};
    for (size_t i = 0; i < options_.engines; ++i) {
      auto engine = StartSelf({"load", "engine"});
      if (!engine.ok()) return engine.error();
      const auto target = WhereItListens(**engine);
      if (!target.ok()) return target.error();
      engines_.push_back(std::move(engine).value());
      engine_targets_.push_back(*target);
    }
    contenders_.emplace_back();
    contenders_.back().row.name = "direct";
    contenders_.back().targets = engine_targets_;
    if (const Status started = StartGateway(); !started.ok()) return started.error();
    if (!options_.peers) return {};
    for (const std::string& name : PeerNames()) {
      auto peer = StartPeer(name, engine_targets_, load_.model, folder_.path);
      if (!peer.ok()) {
        result_.peers_left_out.push_back(name + ": " + peer.error().message);
        continue;
      }
      contenders_.emplace_back();
      contenders_.back().row.name = name;
      contenders_.back().row.policy = peer->policy;
      contenders_.back().process = std::move(peer->process);
      contenders_.back().targets = {peer->target};
    }
    return {};
  }

  Status StartGateway() {
    std::vector<std::string> arguments = {"gateway",           "--host", "127.0.0.1", "--port",        "0",
                                          "--prometheus-port", "0",      "--policy",  options_.policy, "--worker-urls"};
    for (const LoadTarget& e : engine_targets_) arguments.push_back("http://" + e.host + ":" + std::to_string(e.port));
    arguments.insert(arguments.end(), options_.gateway_arguments.begin(), options_.gateway_arguments.end());
    auto gateway = StartSelf(arguments);
    if (!gateway.ok()) return gateway.error();
    const auto target = WhereItListens(**gateway);
    if (!target.ok()) return target.error();
    contenders_.emplace_back();
    contenders_.back().row.name = "foretoken";
    contenders_.back().row.policy = options_.policy;
    contenders_.back().process = std::move(gateway).value();
    contenders_.back().targets = {*target};
    return WaitUntilServing(*target);
  }

  Status WaitUntilServing(const LoadTarget& target) {
    const Instant until = EventLoop::Now() + kReady;
    Result<HttpAnswer> models = Error{"not asked"};
    while (EventLoop::Now() < until) {
      models = HttpFetch(target.host, target.port, "/v1/models", Duration::Seconds(2));
      if (models.ok() && models->status == 200 && models->body.find(load_.model) != std::string::npos) return {};
      loop_.RunUntil(EventLoop::Now() + Duration::Millis(50));
    }
    return Error{"the gateway did not serve " + load_.model + ": " + (models.ok() ? models->body : models.error().message)};
  }

  void SetEngines(Duration ttft, Duration itl) {
    const std::string set =
        "/_ctl?ttft=" + std::to_string(ttft.nanos() / 1'000) + "us&itl=" + std::to_string(itl.nanos() / 1'000) + "us";
    for (const LoadTarget& e : engine_targets_) Ask(e, set);
  }
  std::string Ask(const LoadTarget& engine, const std::string& path) {
    const auto answer = HttpFetch(engine.host, engine.port, path, Duration::Seconds(5));
    if (answer.ok() && answer->status == 200) return answer->body;
    control_failed_ = answer.ok() ? answer->body : answer.error().message;
    return {};
  }

  LoadOptions LoadFor(const Contender& c, bool stream) {
    LoadOptions o = load_;
    o.targets = c.targets;
    o.tokens = options_.tokens;
    o.stream = stream;
    o.seed = ++seed_;
    return o;
  }
  static Duration CpuOf(const Contender& c) { return c.process == nullptr ? Duration() : c.process->cpu(); }
  static double CpuPer1000(Duration used, uint64_t requests) {
    return requests == 0 ? 0 : used.seconds() * 1e3 / static_cast<double>(requests) * 1e3;
  }
  static void CountErrors(Contender& c, const LoadResult& r) {
    for (const auto& [what, count] : r.errors) c.row.error_kinds[what] += count;
    c.row.errors += r.failed();
  }

  void WarmUp(Contender& c) {
    SetEngines(options_.ttft, options_.itl);
    const LoadResult r = RunOpenLoop(loop_, LoadFor(c, true), std::min(200.0, options_.rate), Duration::Seconds(1));
    CountErrors(c, r);
  }

  void MeasureAdded(Contender& c) {
    SetEngines(options_.ttft, options_.itl);
    const Duration before = CpuOf(c);
    LoadResult r = RunOpenLoop(loop_, LoadFor(c, true), options_.rate, Duration::FromSeconds(options_.seconds));
    c.cpu.push_back(CpuPer1000(CpuOf(c) - before, r.ok));
    c.p50.push_back(static_cast<double>(QuantileOf(r.transit, 0.5)) / 1e3);
    c.p99.push_back(static_cast<double>(QuantileOf(r.transit, 0.99)) / 1e3);
    c.rate.push_back(static_cast<double>(r.ok) / options_.seconds);
    late_.push_back(static_cast<double>(QuantileOf(r.late, 0.99)) / 1e3);
    CountErrors(c, r);
  }

  void MeasureSaturated(Contender& c) {
    SetEngines(Duration(), Duration());
    const Duration before = CpuOf(c);
    const Duration warm_up = Duration::Millis(500), lasts = Duration::FromSeconds(options_.saturated_seconds);
    const LoadResult r = RunSaturated(loop_, LoadFor(c, false), options_.connections, warm_up, lasts);
    const double share = lasts.seconds() / (lasts + warm_up).seconds();  // of the time that was counted
    c.saturated_cpu.push_back(CpuPer1000(CpuOf(c) - before, r.ok) * share);
    c.saturated.push_back(static_cast<double>(r.ok) / r.seconds);
    CountErrors(c, r);
  }

  // Each stream lasts long enough for all to be open at one time.
  void MeasureConcurrent(Contender& c) {
    options_.progress(std::to_string(options_.streams) + " streams at once: " + c.row.name);
    const Duration ramp = Duration::FromSeconds(std::max(1.0, static_cast<double>(options_.streams) / options_.rate));
    SetEngines(options_.ttft, Duration::FromSeconds(2 * ramp.seconds() / static_cast<double>(options_.tokens)));
    for (const LoadTarget& e : engine_targets_) Ask(e, "/_reset");
    const LoadResult r = RunBurst(loop_, LoadFor(c, true), options_.streams, ramp);
    CountErrors(c, r);
    c.row.rss_mb = c.process->peak_rss_mb();
    uint64_t at_engines = 0;  // an upper bound when the engines' peaks fell apart; the client's own peak is the other bound
    for (const LoadTarget& e : engine_targets_) {
      boost::json::error_code failed;
      const auto stats = boost::json::parse(Ask(e, "/_stats"), failed);
      if (!failed) at_engines += stats.at("max_active").to_number<uint64_t>();
    }
    c.row.concurrent_streams = std::min(r.peak_in_flight, at_engines);
  }

  void Summarise() {
    const Contender& direct = contenders_[0];
    result_.direct_p50_us = Median(direct.p50);
    result_.direct_p99_us = Median(direct.p99);
    result_.direct_saturated_requests_per_second = Median(direct.saturated);
    result_.generator_late_p99_us = Median(late_);
    for (Contender& c : contenders_) {
      if (&c == &direct) continue;
      for (size_t i = 0; i < c.p50.size(); ++i) {
        c.row.added_p50_us_repeats.push_back(c.p50[i] - direct.p50[i]);
        c.row.added_p99_us_repeats.push_back(c.p99[i] - direct.p99[i]);
      }
      c.row.added_p50_us = Median(c.row.added_p50_us_repeats);
      c.row.added_p99_us = Median(c.row.added_p99_us_repeats);
      c.row.requests_per_second = Median(c.rate);
      c.row.cpu_ms_per_1000_streams = Median(c.cpu);
      c.row.saturated_requests_per_second = Median(c.saturated);
      c.row.saturated_cpu_ms_per_1000 = Median(c.saturated_cpu);
      if (c.row.name == "foretoken") {
        result_.gateway = std::move(c.row);
      } else {
        result_.peers.push_back(std::move(c.row));
      }
    }
    for (const auto& [what, count] : direct.row.error_kinds) {  // an error without a gateway spoils the comparison as well
      result_.gateway.error_kinds["direct: " + what] += count;
      result_.gateway.errors += count;
    }
  }

  const GatewayBenchOptions& options_;
  EventLoop& loop_;
  LoadOptions load_;  // model and prompts of every load
  uint64_t seed_ = 0;
  Folder folder_;
  std::vector<std::unique_ptr<ChildProcess>> engines_;
  std::vector<LoadTarget> engine_targets_;
  std::vector<Contender> contenders_;  // the first: direct
  std::vector<double> late_;
  std::string control_failed_;
  GatewayBenchResult result_;
};

}  // namespace

Result<GatewayBenchResult> RunGatewayBench(const GatewayBenchOptions& options) {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  auto loop = EventLoop::Make();
  if (!loop.ok()) return loop.error();
  return GatewayBench(options, **loop).Run();
}

}  // namespace foretoken
