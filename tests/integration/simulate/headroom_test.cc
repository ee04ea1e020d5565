// Does a fleet that follows the gauge keep its targets? Fleets in virtual time, resized as an autoscaler would by `instances_needed`
// until it asks for no change.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "configs/topology_reader.h"
#include "integration/simulate/compose_run.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/sched/slo_headroom.h"
#include "runtime/workload/azure_profiles.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {
namespace {

constexpr size_t kRequests = 1200;
constexpr double kShare = 0.9;  // of the requests that shall meet their targets

// Sums the winners' predictions once the fleet has filled.
class Predictions final : public RunObserver {
 public:
  explicit Predictions(Instant from) : from_(from) {}
  void OnDecision(const DecisionRecord& r) override {
    if (r.at < from_) return;
    ++decided;
    if (!r.predicted) return;
    ++load.decisions;
    load.mean_violation += r.prediction.slo_violation;
    load.mean_e2e_s += r.prediction.e2e.seconds();
    if (!r.prediction.tpot) return;
    ++with_tpot_;
    load.mean_tpot_s += r.prediction.tpot->seconds();
  }
  void OnProgress(size_t, size_t) override {}
  void Finish() {
    load.mean_violation /= static_cast<double>(std::max<uint64_t>(1, load.decisions));
    load.mean_e2e_s /= static_cast<double>(std::max<uint64_t>(1, load.decisions));
    load.mean_tpot_s /= static_cast<double>(std::max<uint64_t>(1, with_tpot_));
  }
  FleetLoad load;
  uint64_t decided = 0;

 private:
  Instant from_;
  uint64_t with_tpot_ = 0;
};

struct Outcome {
  SloHeadroom headroom;
  double attainment = 0;
};

bool Met(const RunRequest& r, const Slo& slo) {
  if (r.outcome != OutcomeKind::kFinished || r.first_token - r.arrival > slo.ttft) return false;
  return r.output_tokens < 2 || (r.finish - r.first_token).seconds() / (r.output_tokens - 1) <= slo.tpot.seconds();
}

Outcome RunFleet(int instances, double rate, const std::string& workload, uint64_t seed) {
  const std::string count = "pools[0].instances[0].count=" + std::to_string(instances);
  const auto topology = LoadTopology("configs/topologies/small.yaml", {count, "seed=" + std::to_string(seed)});
  EXPECT_TRUE(topology.ok());
  SynthProfile profile = **EmbeddedProfile(workload);
  profile.requests = kRequests;
  profile.arrivals.rate_rps = rate;
  Prng prng(seed);
  const Trace trace = Synthesize(profile, prng);
  const auto options = ComposeRun(*topology, trace);
  EXPECT_TRUE(options.ok());
  const size_t warm = trace.requests.size() / 4;
  Predictions seen(trace.requests[warm].meta.arrival);
  const auto run = RunVirtual(*options, trace, &seen);
  EXPECT_TRUE(run.ok());
  seen.Finish();
  FleetLoad& load = seen.load;
  load.slo = topology->slo;
  load.missed_most = 1 - kShare;
  load.instances = load.mirrored = instances;
  const Duration lasted = trace.requests.back().meta.arrival - trace.requests[warm].meta.arrival;
  load.arrivals_per_second = static_cast<double>(trace.requests.size() - warm) / lasted.seconds();
  load.decisions_per_second = static_cast<double>(seen.decided) / lasted.seconds();
  load.step_alone_s = options->instances[0].profile.step_time.At({.decode_seqs = 1, .decode_kv_tokens = 1024}).seconds();
  Outcome out;
  double busy = 0;
  for (size_t k = warm; k < run->requests.size(); ++k) {
    out.attainment += Met(run->requests[k], load.slo);
    if (run->requests[k].finish != Instant::Max()) busy += (run->requests[k].finish - run->requests[k].arrival).seconds();
  }
  out.attainment /= static_cast<double>(run->requests.size() - warm);
  load.held = busy / lasted.seconds();
  out.headroom = HeadroomOf(load);
  return out;
}

// As docs/operations.md tells an autoscaler to: up at once, down by a quarter at most.
int Next(int there, const SloHeadroom& h) {
  const int wanted = static_cast<int>(std::ceil(h.instances_needed - 1e-9));
  return std::max(wanted, static_cast<int>(std::ceil(0.75 * there)));
}

class FollowedHeadroom : public testing::TestWithParam<std::tuple<std::string, double, int>> {};

TEST_P(FollowedHeadroom, KeepsTheTargetsWithoutWaste) {
  const auto& [workload, rate, from] = GetParam();
  constexpr uint64_t kSeed = 7;
  int there = from;
  Outcome now;
  std::string way;
  for (int look = 0; look < 12; ++look) {
    now = RunFleet(there, rate, workload, kSeed);
    way += std::to_string(there) + " (met " + std::to_string(now.attainment) + ", load " + std::to_string(now.headroom.load) +
           " of " + std::to_string(now.headroom.load_at_target) + ", missed " + std::to_string(now.headroom.missed) +
           ", needs " + std::to_string(now.headroom.instances_needed) + ") ";
    ASSERT_TRUE(now.headroom.known) << way;
    const int next = Next(there, now.headroom);
    if (next == there) break;
    there = next;
  }
  std::printf("[headroom] seed %llu, %s at %.0f/s: %s\n", static_cast<unsigned long long>(kSeed), workload.c_str(), rate,
              way.c_str());
  EXPECT_EQ(Next(there, now.headroom), there) << "it does not settle: " << way;
  EXPECT_GE(now.attainment, kShare) << way;
  if (there < 2) return;
  // Half of it would not do: what it asks for is less than twice what is needed.
  EXPECT_LT(RunFleet(there / 2, rate, workload, kSeed).attainment, kShare) << way;
}

INSTANTIATE_TEST_SUITE_P(Rates, FollowedHeadroom,
                         testing::Values(std::tuple("azure-conv-2023", 20.0, 8), std::tuple("azure-conv-2023", 40.0, 2),
                                         std::tuple("azure-code-2023", 20.0, 8), std::tuple("azure-code-2023", 10.0, 1)));

}  // namespace
}  // namespace foretoken
