// Text becomes exactly the topology that it says: defaults where it is silent, its values where it speaks, all mistakes at
// once.
#include "configs/topology_reader.h"

#include <gtest/gtest.h>

namespace foretoken {
namespace {

constexpr char kSmall[] = R"(
engines:
  a.b-1: { kind: emulated, step_law: { step: 6ms, prefill_token: 20us, decode_seq: 10us, kv_token: 0.5ns }, kv_blocks: 101 }
  v: { kind: vllm }
pools:
  - name: p
    models: [m, n]
    slo: { tpot: 20ms }
    instances:
      - { id: h, count: 2, engine: a.b-1, adapters: [lora] }
  - name: q
    models: [n]
    instances:
      - { id: r, engine: v, endpoint: ["http://x:1", "http://y:2"], data_parallel: 2 }
)";

ConfigResult<Topology> Read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return ParseTopology(text, "t.yaml", overrides, "configs/topologies");
}

Topology Accepted(const std::string& text, const std::vector<std::string>& overrides = {}) {
  ConfigResult<Topology> result = Read(text, overrides);
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.errors().ToString());
  return result.ok() ? std::move(result).value() : Topology{};
}

std::string Refused(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const ConfigResult<Topology> result = Read(text, overrides);
  return result.ok() ? "accepted" : result.errors().ToString();
}

TEST(TopologyReaderTest, CountsEndpointsAndRanksBecomeDenselyNumberedInstancesInFileOrder) {
  const Topology t = Accepted(kSmall);
  EXPECT_EQ(t.InstanceNames(), (std::vector<std::string>{"h-0", "h-1", "r-0", "r-1", "r-2", "r-3"}));
  for (size_t i = 0; i < t.instances.size(); ++i) EXPECT_EQ(t.instances[i].instance.id.value(), i);
  const Instance& last = t.instances[5].instance;
  EXPECT_EQ(last.endpoint, "http://y:2");
  EXPECT_EQ(last.dp_rank, 1u);
  EXPECT_EQ(last.pool, 1u);
  EXPECT_EQ(t.EngineOf(last.id).name, "v");
  EXPECT_EQ(t.pools[0].instances, (std::vector<InstanceId>{InstanceId(0), InstanceId(1)}));
  EXPECT_EQ(t.FindInstance("r-2"), InstanceId(4));
  EXPECT_EQ(t.FindInstance("h"), std::nullopt);
}

TEST(TopologyReaderTest, ModelsAndAdaptersShareOneListOfNames) {
  const Topology t = Accepted(kSmall);
  EXPECT_EQ(t.models, (std::vector<std::string>{"m", "n", "lora"}));
  EXPECT_EQ(t.instances[0].instance.adapters, std::vector<ModelId>{ModelId(2)});
  EXPECT_EQ(t.instances[2].instance.models, std::vector<ModelId>{ModelId(1)});
}

TEST(TopologyReaderTest, AnInstanceWithoutACountKeepsItsName) {
  const Topology t = Accepted(kSmall, {"pools[q].instances[r].endpoint=http://x:1", "pools[q].instances[r].data_parallel=1"});
  EXPECT_EQ(t.instances[2].instance.name, "r-0") << "data_parallel: 1 is a number all the same";
}

TEST(TopologyReaderTest, WhatIsNotSaidHasTheDocumentedDefault) {
  const Topology t = Accepted(kSmall);
  EXPECT_EQ(t.slo, Slo{});
  EXPECT_EQ(t.pools[0].slo, (Slo{Duration::Seconds(1), Duration::Millis(20)})) << "a pool's SLO fills in from the topology's";
  EXPECT_EQ(t.scheduler.policy, "auto");
  EXPECT_EQ(t.scheduler.decision_deadline, Duration::Millis(5));
  EXPECT_EQ(t.predictor.kind, PredictorKind::kTimeline);
  EXPECT_FALSE(t.predictor.demote);
  EXPECT_EQ(t.sync.sequencer.gap_timeout, Duration::Millis(50));
  EXPECT_EQ(t.sync.dead_after, Duration::Seconds(2));
  EXPECT_TRUE(t.faults.empty());
  EXPECT_FALSE(t.gateway.has_value());
  const EngineSpec& e = t.engines[0];
  EXPECT_EQ(e.behaviour, "vllm-0.32");
  EXPECT_TRUE(e.limits.lone_long_prefill_full) << "a rule of that version";
  EXPECT_TRUE(e.limits.async_scheduling);
  EXPECT_EQ(e.limits.num_gpu_blocks, 101);
  EXPECT_EQ(e.kv_tokens(), 1600) << "block 0 is the null block";
}

TEST(TopologyReaderTest, AVersionsRulesGiveWayToWhatTheFileSays) {
  EXPECT_FALSE(Accepted(kSmall, {"engines.a.b-1.behaviour=vllm-2026-01"}).engines[0].limits.reserve_full_isl);
  EXPECT_TRUE(Accepted(kSmall, {"engines.a.b-1.behaviour=vllm-2026-01", "engines.a.b-1.reserve_full_isl=true"})
                  .engines[0]
                  .limits.reserve_full_isl);
  EXPECT_EQ(Accepted(kSmall, {"engines.a.b-1.behaviour=sglang"}).engines[0].limits.kind, EngineKind::kSglang);
}

TEST(TopologyReaderTest, AnInlineLawIsReadToTheFractionOfANanosecond) {
  const EngineSpec e = Accepted(kSmall).engines[0];
  EXPECT_DOUBLE_EQ(e.step_time.law->NanosOf({.decode_seqs = 2, .decode_kv_tokens = 1000}), 6e6 + 2 * 10e3 + 500);
}

TEST(TopologyReaderTest, PredictorsHoldTheTruthButForWhatTheirSectionChanges) {
  const StepShape shape{.prefill_tokens = 100, .decode_seqs = 3, .decode_kv_tokens = 900};
  const EngineSpec same = Accepted(kSmall).engines[0];
  EXPECT_EQ(same.predictor_step_time.NanosOf(shape), same.step_time.NanosOf(shape));
  const EngineSpec biased =
      Accepted(kSmall, {"engines.a.b-1.predictor={ step_factor: 0.8 }", "predictor.step_factor=0.5"}).engines[0];
  EXPECT_DOUBLE_EQ(biased.predictor_step_time.NanosOf(shape), 0.4 * biased.step_time.NanosOf(shape));
  EXPECT_EQ(biased.step_time.factor, 1);
}

TEST(TopologyReaderTest, KvBlocksComeFromTheTableWhenTheFileIsSilent) {
  const std::string text =
      "engines: { a: { kind: emulated, step_table: h100-llama-3.1-8b } }\n"
      "pools: [{ name: p, models: [m], instances: [{ id: i, engine: a }] }]\n";
  EXPECT_EQ(Accepted(text).engines[0].limits.num_gpu_blocks, 466'990 / 16);
}

TEST(TopologyReaderTest, ATableIsLoadedOnceForAllEnginesThatNameIt) {
  const std::string text =
      "engines:\n  a: { kind: emulated, step_table: tables/h100-llama-3.1-8b.csv }\n"
      "  b: { kind: emulated, step_table: tables/h100-llama-3.1-8b.csv }\n"
      "pools: [{ name: p, models: [m], instances: [{ id: i, engine: a }, { id: j, engine: b }] }]\n";
  const Topology t = Accepted(text);
  ASSERT_EQ(t.engines.size(), 2u);
  EXPECT_EQ(t.engines[0].step_time.law, t.engines[1].step_time.law);
}

TEST(TopologyReaderTest, AllMistakesAreReportedAtOnceInTheOrderOfTheFile) {
  const std::string text =
      "seeed: 3\n"
      "engines: { a: { kind: emulatd, step_table: x.csv, kv_blocks: 0 } }\n"
      "pools: [{ name: p, models: [], instances: [{ id: i, engine: c }] }]\n"
      "sync: { gap_timeout: 0ms }\n";
  EXPECT_EQ(Refused(text),
            "t.yaml:1:1: seeed = 3: unknown key (did you mean \"seed\"?)\n"
            "t.yaml:2:23: engines.a.kind = emulatd: must be one of emulated, vllm, openai, llama (did you mean \"emulated\"?)\n"
            "t.yaml:2:44: engines.a.step_table = x.csv: no such file\n"
            "t.yaml:2:62: engines.a.kv_blocks = 0: must be between 2 and 1073741824\n"
            "t.yaml:3:28: pools[0].models = [...]: must name at least one model\n"
            "t.yaml:3:61: pools[0].instances[0].engine = c: must be one of a (did you mean \"a\"?)\n"
            "t.yaml:4:22: sync.gap_timeout = 0ms: must be between 1us and 86400s\n");
}

TEST(TopologyReaderTest, ZeroIsAValueAndNotAnAbsence) {
  EXPECT_EQ(Accepted(kSmall, {"scheduler.retry_max=0"}).scheduler.retry_max, 0);
  EXPECT_EQ(Accepted(kSmall, {"seed=0"}).seed, 0u);
}

TEST(TopologyReaderTest, PollingHasTwoSpellingsWithOneMeaning) {
  for (const char* text : {"sync.level=poll:250ms", "sync.level={ poll: 250ms }", "sync.level=\"poll:250ms\""}) {
    const SyncSpec sync = Accepted(kSmall, {text}).sync;
    EXPECT_EQ(sync.level, SyncLevel::kPoll) << text;
    EXPECT_EQ(sync.poll_interval, Duration::Millis(250)) << text;
  }
}

TEST(TopologyReaderTest, NodesHostEveryInstanceOnceByNameOrPattern) {
  const std::string nodes = R"(
nodes:
  - { name: front, listen: "127.0.0.1:1", hosts: [scheduler, gateway, "r-*"] }
  - { name: back, listen: "127.0.0.1:2", hosts: [h-0, h-1] }
gateway: { listen: "0.0.0.0:8000", max_payload: 8MiB }
)";
  const Topology t = Accepted(kSmall + nodes);
  ASSERT_EQ(t.nodes.size(), 2u);
  EXPECT_TRUE(t.nodes[0].scheduler && t.nodes[0].gateway);
  EXPECT_EQ(t.nodes[0].instances.size(), 4u);
  EXPECT_EQ(t.nodes[1].instances, (std::vector<InstanceId>{InstanceId(0), InstanceId(1)}));
  EXPECT_EQ(t.gateway->max_payload_bytes, 8 << 20);
  EXPECT_EQ(t.gateway->listen, (Address{"0.0.0.0", 8000}));
}

TEST(TopologyReaderTest, ASimulatorMayLiveOnAnotherNodeThanItsEngine) {
  const auto nodes = [](const std::string& second) {
    return std::string(kSmall) +
           "\nnodes:\n  - { name: front, listen: \"127.0.0.1:1\", hosts: [scheduler, \"r-*\", \"simulator:h-*\"] }\n" +
           "  - { name: back, listen: \"127.0.0.1:2\", hosts: [" + second + "] }\n";
  };
  const Topology t = Accepted(nodes("\"engine:h-*\""));
  EXPECT_EQ(t.nodes[0].instances.size(), 4u);
  EXPECT_EQ(t.nodes[0].simulators.size(), 6u);
  EXPECT_EQ(t.nodes[1].instances, (std::vector<InstanceId>{InstanceId(0), InstanceId(1)}));
  EXPECT_TRUE(t.nodes[1].simulators.empty());
  EXPECT_NE(Refused(nodes("\"engine:h-0\"")).find("no node hosts h-1"), std::string::npos);
  EXPECT_NE(Refused(nodes("\"engine:h-*\", \"simulator:h-0\"")).find("the simulator of h-0 is hosted by node front already"),
            std::string::npos);
}

TEST(OverrideTest, APathNamesElementsByIndexIdOrNameAndKeysWithDots) {
  EXPECT_EQ(Accepted(kSmall, {"pools[0].instances[0].count=3"}).instances.size(), 7u);
  EXPECT_EQ(Accepted(kSmall, {"pools[p].instances[h].count=4"}).instances.size(), 8u);
  EXPECT_EQ(Accepted(kSmall, {"engines.a.b-1.kv_blocks=7"}).engines[0].limits.num_gpu_blocks, 7);
  EXPECT_EQ(Accepted(kSmall, {"engines[a.b-1].kv_blocks=8"}).engines[0].limits.num_gpu_blocks, 8);
}

TEST(OverrideTest, TheLastOneWinsAndSectionsAppearAsNeeded) {
  const Topology t = Accepted(kSmall, {"seed=4", "seed=5", "gateway.listen=127.0.0.1:9", "scheduler.weights.auto_tail=0.5"});
  EXPECT_EQ(t.seed, 5u);
  EXPECT_EQ(t.gateway->listen.port, 9);
  EXPECT_EQ(t.scheduler.weights.auto_tail, 0.5);
}

TEST(OverrideTest, ItIsCheckedAsStrictlyAsTheFileAndNamedInItsErrors) {
  EXPECT_EQ(Refused(kSmall, {"scheduler.polcy=auto"}),
            "--set scheduler.polcy=auto: scheduler.polcy = auto: unknown key (did you mean \"policy\"?)\n");
  EXPECT_EQ(Refused(kSmall, {"sync.stale_after=5"}),
            "--set sync.stale_after=5: sync.stale_after = 5: must be a duration with a unit, such as 50ms, 1s or 5us\n");
  EXPECT_EQ(Refused(kSmall, {"pools[z].slo.ttft=1s"}),
            "--set pools[z].slo.ttft=1s: pools[z]: no such element (there are 2, named by index, id or name)\n");
  EXPECT_EQ(Refused(kSmall, {"pools[0].name.x=1"}), "--set pools[0].name.x=1: pools[0].name has no keys below it\n");
  EXPECT_EQ(Refused(kSmall, {"seed"}), "--set seed: must be path=value, such as scheduler.policy=lmetric\n");
  EXPECT_EQ(Refused(kSmall, {"seed=["}).rfind("--set seed=[: the value is not valid YAML", 0), 0u);
}

}  // namespace
}  // namespace foretoken
