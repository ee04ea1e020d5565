// The swarm: every seed draws its own cluster, load and faults, and every invariant holds throughout, twice alike.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "tests/scenarios/scenario.h"
#include "tests/scenarios/swarm_run.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

using testing::DrawScenario;
using testing::RunScenario;
using testing::Scenario;
using testing::SwarmResult;

volatile uint64_t running_seed = 0;

// A failed FT_CHECK ends the process: say at least how to see it again.
void OnAbort(int) {
  std::fprintf(stderr, "aborted at seed %llu; repeat: ./foretoken test --seed %llu //tests/scenarios:swarm_test\n",
               static_cast<unsigned long long>(running_seed), static_cast<unsigned long long>(running_seed));
}

// Both runs: a difference between them is a failure too.
std::string FailureOf(const Scenario& scenario, SwarmResult* out = nullptr) {
  const SwarmResult a = RunScenario(scenario);
  if (out != nullptr) *out = a;
  if (!a.failure.empty()) return a.failure;
  const SwarmResult b = RunScenario(scenario);
  if (a.digest != b.digest || a.unseed != b.unseed || a.decisions != b.decisions)
    return "the second run differs from the first";
  return b.failure;
}

TEST(SwarmTest, EveryInvariantHoldsInEverySeedsCluster) {
  std::signal(SIGABRT, OnAbort);
  SwarmResult total;
  int failures = 0;
  const auto seeds = testing::Seeds(400);
  for (const uint64_t seed : seeds) {
    running_seed = seed;
    const Scenario scenario = DrawScenario(seed);
    SwarmResult r;
    const std::string failure = FailureOf(scenario, &r);
    total.decisions += r.decisions;
    total.retried += r.retried;
    total.preemptions += r.preemptions;
    total.engine_epochs += r.engine_epochs;
    total.mirrors_compared += r.mirrors_compared;
    total.answers_compared += r.answers_compared;
    Add(total.sync, r.sync);
    if (failure.empty()) continue;
    const Scenario least = Shrink(
        scenario, [](const Scenario& s) { return !FailureOf(s).empty(); }, 300);
    ADD_FAILURE() << "seed " << seed << ": " << failure << "\nrepeat: ./foretoken test --seed " << seed
                  << " //tests/scenarios:swarm_test\nsmallest that fails: " << FailureOf(least) << "\n"
                  << least.Describe();
    if (++failures == 3) break;
  }
  std::printf(
      "%zu seeds: %llu decisions, %llu retried, %llu preemptions, %llu engine restarts, %llu mirrors and %llu answers "
      "compared; "
      "%llu messages applied, %llu reordered, %llu repeated, %llu of old epochs, %llu gaps, %llu resyncs, held at most %llu\n",
      seeds.size(), static_cast<unsigned long long>(total.decisions), static_cast<unsigned long long>(total.retried),
      static_cast<unsigned long long>(total.preemptions), static_cast<unsigned long long>(total.engine_epochs),
      static_cast<unsigned long long>(total.mirrors_compared), static_cast<unsigned long long>(total.answers_compared),
      static_cast<unsigned long long>(total.sync.applied), static_cast<unsigned long long>(total.sync.reordered),
      static_cast<unsigned long long>(total.sync.duplicate), static_cast<unsigned long long>(total.sync.old_epoch),
      static_cast<unsigned long long>(total.sync.gap), static_cast<unsigned long long>(total.sync.resync),
      static_cast<unsigned long long>(total.sync.held_max));
  if (seeds.size() < 100) return;  // the swarm must go where it hurts
  EXPECT_GT(total.retried, 0u);
  EXPECT_GT(total.preemptions, 0u);
  EXPECT_GT(total.engine_epochs, 0u);
  EXPECT_GT(total.mirrors_compared, 0u);
  EXPECT_GT(total.answers_compared, 0u);
  EXPECT_GT(total.sync.reordered, 0u);
  EXPECT_GT(total.sync.duplicate, 0u);
  EXPECT_GT(total.sync.old_epoch, 0u);
  EXPECT_GT(total.sync.resync, 0u);
}

}  // namespace
}  // namespace foretoken
