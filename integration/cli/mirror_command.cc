// `foretoken mirror`: replays a recording of a live vLLM server through sequencer and shadow engine and compares every step.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "configs/faults.h"
#include "integration/cli/commands.h"
#include "integration/engines/vllm/mirror_run.h"

namespace foretoken {
namespace {

struct Arguments {
  std::string steps, trace, faults;
  uint64_t seed = 1;
  bool json = false;
};

boost::json::value FirstDisagreement(const MirrorReport& report, const TokenNames& names) {
  if (!report.first_disagreement) return nullptr;
  const ShadowDisagreement& d = *report.first_disagreement;
  boost::json::object out;
  out["step"] = d.step;
  out["rule"] = NameOf(d.rule);
  out["request"] = nullptr;
  if (d.request) out["request"] = names.NameOf(*d.request);
  out["shadow"] = d.shadow;
  out["engine"] = d.engine;
  return out;
}

void PrintJson(const MirrorReport& report, const Recording& recording, bool faults) {
  const ShadowCounters& c = report.counters;
  boost::json::object out;
  out["steps"] = c.steps;
  out["items"] = c.items;
  out["cached_tokens"] = c.cached_tokens;
  out["preempted"] = c.preempted;
  out["finished"] = c.finished;
  out["aborted"] = c.aborted;
  out["disagreements"] = report.disagreements;
  out["resyncs"] = report.sync.resync;
  out["first_disagreement"] = FirstDisagreement(report, recording.names);
  if (faults) {
    const SequencerCounters& s = report.sync;
    out["sync"] = {{"applied", s.applied},  {"reordered", s.reordered}, {"duplicate", s.duplicate},   {"gap", s.gap},
                   {"resync", s.resync},    {"skipped", s.skipped},     {"superseded", s.superseded}, {"overflow", s.overflow},
                   {"held_max", s.held_max}};
    out["converged"] = report.converged;
  }
  std::cout << boost::json::serialize(out) << "\n";
}

void PrintText(const MirrorReport& report, const Recording& recording, bool faults) {
  const ShadowCounters& c = report.counters;
  std::cout << "vLLM " << recording.version << " (rules of " << recording.rules_from << "), "
            << (recording.config.async_scheduling ? "asynchronous" : "synchronous") << ": " << c.steps << " steps, " << c.items
            << " scheduled items, " << c.cached_tokens << " cached tokens, " << c.preempted << " preemptions, " << c.finished
            << " finished, " << c.aborted << " aborted\n";
  if (faults) {
    const SequencerCounters& s = report.sync;
    std::cout << report.link.sent << " messages sent, "
              << report.link.dropped + report.link.burst_lost + report.link.partitioned << " lost; applied " << s.applied
              << ", reordered " << s.reordered << ", repeated " << s.duplicate << "; " << s.resync << " resyncs stood in for "
              << s.skipped + s.superseded << " messages; at the end the state is "
              << (report.converged ? "equal to" : "NOT equal to") << " the one at the source\n";
  }
  std::cout << report.disagreements << " steps differ\n";
  if (!report.first_disagreement) return;
  const ShadowDisagreement& d = *report.first_disagreement;
  std::cout << "first: step " << d.step << ", " << NameOf(d.rule);
  if (d.request) std::cout << ", request " << recording.names.NameOf(*d.request);
  std::cout << ": shadow " << d.shadow << ", engine " << d.engine << "\n";
}

int Complain(const std::string& message, int exit_code) {
  std::cerr << "foretoken mirror: " << message << "\n";
  return exit_code;
}

int RunMirrorCommand(const Arguments& a) {
  const auto recording = ReadRecording(a.steps, a.trace);
  if (!recording.ok()) return Complain(recording.error().message, kExitUsage);
  FaultPlan plan;
  if (!a.faults.empty()) {
    auto loaded = LoadFaultPlan(a.faults);
    if (!loaded.ok()) return Complain(loaded.errors().ToString(), kExitUsage);
    plan = loaded.value();
  }
  const bool faults = !a.faults.empty();
  const auto report = RunMirror(recording.value(), faults ? &plan : nullptr, a.seed);
  if (!report.ok()) return Complain(report.error().message, kExitUsage);
  if (a.json) {
    PrintJson(report.value(), recording.value(), faults);
  } else {
    PrintText(report.value(), recording.value(), faults);
  }
  if (report->converged) return kExitOk;
  return Complain("the shadow did not reach the engine's state: too many messages were lost", kExitFailed);
}

}  // namespace

void AddMirrorCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("mirror", "Replay a recording of a live vLLM server and compare every step");
  const auto a = std::make_shared<Arguments>();
  command->add_option("--steps", a->steps, "Step records of the plugin, JSON Lines (may be gzip)")->required();
  command->add_option("--trace", a->trace, "The same requests as engine input (may be gzip)")->required();
  command->add_option("--faults", a->faults, "Fault plan of the link that the records travel on");
  command->add_option("--seed", a->seed, "Seed of the faults")->capture_default_str();
  command->add_flag("--json", a->json, "Print one JSON object");
  command->footer(
      "A step that differs is counted and the first is described; the exit code tells only whether the replay worked.\n"
      "Example: foretoken mirror --steps steps_i0.jsonl.gz --trace trace_i0.jsonl.gz --faults configs/faults/loss_1.yaml "
      "--json");
  command->callback([a, &exit_code] { exit_code = RunMirrorCommand(*a); });
}

}  // namespace foretoken
