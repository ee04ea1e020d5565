// `foretoken dashboard`: one page of a whole cluster of nodes. It asks every node for what it observes, over the addresses that the topology
// names, as `status` does; it hosts no role, and may run anywhere from where the nodes can be reached.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "integration/cli/commands.h"
#include "integration/cli/dashboard_option.h"
#include "integration/cli/log_option.h"
#include "integration/cli/running_system.h"
#include "integration/dashboard/merge_observations.h"

namespace foretoken {
namespace {

namespace json = boost::json;

volatile std::sig_atomic_t g_stop = 0;

extern "C" void StopDashboard(int) { g_stop = 1; }

struct Arguments {
  std::string topology, address;
  std::vector<std::string> set;
  LogChoice log;
};

// Asks each node on a thread of its own, so that one that does not answer holds back no other.
class ClusterWatch {
 public:
  ClusterWatch(RunningNodes nodes, std::string name)
      : nodes_(std::move(nodes)), name_(std::move(name)), board_(std::make_shared<ObservationBoard>()) {
    for (const NodeSpec& node : nodes_.nodes()) seen_.push_back({node.name, "not asked yet", {}});
    for (size_t k = 0; k < seen_.size(); ++k) threads_.emplace_back([this, k] { Follow(k); });
  }
  ~ClusterWatch() {
    over_ = true;
    for (std::thread& t : threads_) t.join();
  }
  const std::shared_ptr<ObservationBoard>& board() const { return board_; }  // where pages say that they watch
  // Null until every node was asked once.
  std::shared_ptr<const json::object> Latest() {
    const std::lock_guard lock(mutex_);
    if (!fresh_) return merged_;
    fresh_ = false;
    if (std::any_of(asked_.begin(), asked_.end(), [](bool asked) { return !asked; })) return merged_;
    const auto wall = std::chrono::system_clock::now().time_since_epoch();
    merged_ = std::make_shared<const json::object>(
        MergeObservations(name_, seen_, ++number_, std::chrono::duration_cast<std::chrono::milliseconds>(wall).count()));
    return merged_;
  }

 private:
  void Follow(size_t k) {
    const NodeSpec& node = nodes_.nodes()[k];
    while (!over_) {
      NodeObserved now{node.name, "", {}};
      const auto reply = nodes_.Ask(node, "status", {});
      if (!reply.ok()) {
        now.error = reply.error().message;
      } else if (!reply->ok) {
        now.error = reply->text;
      } else {
        boost::system::error_code code;
        json::value v = json::parse(reply->text, code);
        json::value* observed = !code && v.is_object() ? v.as_object().if_contains("observed") : nullptr;
        if (observed != nullptr && observed->is_object()) now.observed = std::move(observed->as_object());
        if (now.observed.empty()) now.error = "it is not watched (--dashboard none), or has just begun";
      }
      {
        const std::lock_guard lock(mutex_);
        seen_[k] = std::move(now);
        asked_[k] = fresh_ = true;
      }
      const auto pause = board_->Interval(0);
      for (auto left = pause; left.count() > 0 && !over_; left -= std::chrono::milliseconds(50))
        std::this_thread::sleep_for(std::min(left, std::chrono::milliseconds(50)));
    }
  }

  const RunningNodes nodes_;
  const std::string name_;
  std::shared_ptr<ObservationBoard> board_;
  std::atomic<bool> over_{false};
  std::mutex mutex_;
  std::vector<NodeObserved> seen_;  // by node, as the next
  std::vector<bool> asked_ = std::vector<bool>(nodes_.nodes().size(), false);
  bool fresh_ = false;
  uint64_t number_ = 0;
  std::shared_ptr<const json::object> merged_;
  std::vector<std::thread> threads_;
};

int Watch(const Arguments& a) {
  const auto log = MakeLog(a.log, "foretoken dashboard");
  auto nodes = RunningNodes::Of(a.topology, a.set);
  if (!nodes.ok()) {
    log->Write(LogLevel::kError, "usage", nodes.error().message);
    return kExitUsage;
  }
  std::signal(SIGINT, StopDashboard);
  std::signal(SIGTERM, StopDashboard);
  ClusterWatch watch(std::move(nodes).value(), std::filesystem::path(a.topology).stem().string());
  DashboardSource source{"cluster", "Cluster", watch.board(), nullptr, [&watch] { return watch.Latest(); }};
  const auto dashboard = StartDashboard(a.address, {std::move(source)});
  if (!dashboard.ok()) {
    log->Write(LogLevel::kError, "usage", dashboard.error().message);
    return kExitUsage;
  }
  if (*dashboard == nullptr) {
    log->Write(LogLevel::kError, "usage", "--dashboard none leaves nothing to do");
    return kExitUsage;
  }
  log->Write(LogLevel::kInfo, "dashboard", "dashboard at " + (*dashboard)->url(), {{"url", (*dashboard)->url()}});
  while (g_stop == 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  return kExitOk;
}

}  // namespace

void AddDashboardCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("dashboard", "One page of a whole cluster of nodes");
  c->add_option("--topology", a->topology, "Topology file: its nodes are asked")->required()->check(CLI::ExistingFile);
  c->add_option("--set", a->set, "Override a topology value: path=value");
  c->add_option("--dashboard", a->address, kDashboardHelp);
  AddLogOptions(*c, a->log);
  c->footer("Example: foretoken dashboard --topology configs/topologies/cluster.yaml");
  c->callback([a, &exit_code] { exit_code = Watch(*a); });
}

}  // namespace foretoken
