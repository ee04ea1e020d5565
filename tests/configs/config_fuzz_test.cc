// No text takes the reader down: mutations of good files give errors with a place and a message, or a value that holds its
// promises.
#include <gtest/gtest.h>

#include <iterator>

#include <string>
#include <vector>

#include "configs/any_config.h"
#include "configs/config_tree.h"
#include "configs/topology_reader.h"
#include "runtime/base/prng.h"
#include "runtime/fault/link.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

const char* const kFiles[] = {"configs/topologies/8-homogeneous.yaml", "configs/topologies/small.yaml",
                              "configs/topologies/8-biased.yaml",      "configs/faults/reorder_10.yaml",
                              "configs/faults/restart_one.yaml",       "configs/faults/partition_10s.yaml",
                              "configs/workloads/bursty.yaml",         "configs/workloads/prefix-sharing.yaml"};

const char* const kPieces[] = {"0",
                               "-1",
                               "1e999",
                               "nan",
                               "5ms",
                               "1h",
                               "[",
                               "]",
                               "{",
                               "}",
                               ":",
                               ": ",
                               "\n",
                               "- ",
                               "&a ",
                               "*a",
                               "~",
                               "\"",
                               "'",
                               "#",
                               "true",
                               "...",
                               "---\n",
                               "<<",
                               "\t",
                               "  ",
                               ",",
                               "poll:",
                               "!!x",
                               "| ",
                               "\0",
                               "\xff",
                               "999999999999999999999",
                               "kind",
                               "count: 4000",
                               "every: 1ns",
                               "0.5",
                               "tables/h100-llama-3.1-8b.csv"};

std::string Mutate(std::string text, Prng& prng) {
  for (int64_t n = prng.Between(1, 6); n > 0 && !text.empty(); --n) {
    const size_t at = prng.Below(text.size());
    switch (prng.Below(5)) {
      case 0: text.erase(at, prng.Below(12)); break;
      case 1: text.insert(at, kPieces[prng.Below(std::size(kPieces))]); break;
      case 2: text[at] = static_cast<char>(prng.Below(256)); break;
      case 3: text.insert(at, text.substr(prng.Below(text.size()), prng.Below(60))); break;
      default: {  // a value becomes another
        const size_t colon = text.find(": ", at);
        if (colon == std::string::npos) break;
        const size_t end = std::min(text.find_first_of("\n,}", colon), text.size());
        text.replace(colon + 2, end - colon - 2, kPieces[prng.Below(std::size(kPieces))]);
      }
    }
  }
  return text;
}

void CheckTopology(const Topology& t) {
  ASSERT_FALSE(t.engines.empty());
  ASSERT_FALSE(t.instances.empty());
  for (size_t i = 0; i < t.instances.size(); ++i) {
    ASSERT_EQ(t.instances[i].instance.id.value(), i);
    ASSERT_LT(t.instances[i].engine, t.engines.size());
    ASSERT_LT(t.instances[i].instance.pool, t.pools.size());
    for (const ModelId model : t.instances[i].instance.models) ASSERT_LT(model.value(), t.models.size());
  }
  for (const EngineSpec& e : t.engines) {
    ASSERT_GE(e.limits.num_gpu_blocks, 2);
    ASSERT_GE(e.limits.max_num_batched_tokens, e.limits.max_num_seqs);
    ASSERT_NE(e.step_time.law, nullptr);
    ASSERT_GT(e.predictor_step_time.NanosOf({.decode_seqs = 1, .decode_kv_tokens = 100}), 0);
  }
}

void CheckPlan(const FaultPlan& plan) {
  for (const LinkRule& rule : plan.links)
    ASSERT_TRUE(Link::Make(rule.faults, 1).ok()) << "the reader let pass what the link refuses";
}

void Check(const ConfigResult<AnyConfig>& config) {
  if (!config.ok()) {
    ASSERT_FALSE(config.errors().empty());
    for (const ConfigError& e : config.errors().errors) {
      ASSERT_EQ(e.where.rfind("f.yaml:", 0), 0u) << e.where;
      ASSERT_FALSE(e.message.empty());
    }
    return;
  }
  if (const auto* topology = std::get_if<Topology>(&*config)) CheckTopology(*topology);
  if (const auto* plan = std::get_if<FaultPlan>(&*config)) CheckPlan(*plan);
  const auto* workload = std::get_if<WorkloadSpec>(&*config);
  const bool runs = workload == nullptr || !workload->synthetic || Validate(*workload->synthetic).ok();
  ASSERT_TRUE(runs) << "the reader let pass what the generator refuses";
}

TEST(ConfigFuzzTest, AnyMutationIsAnErrorWithAPlaceOrAValueThatHolds) {
  std::vector<std::string> texts;
  for (const char* file : kFiles) {
    const Result<std::string> text = ReadConfigFile(file);
    ASSERT_TRUE(text.ok()) << file;
    texts.push_back(*text);
  }
  const uint64_t cases = testing::Cases(2'000);
  size_t accepted = 0;
  for (const uint64_t seed : testing::Seeds(1)) {
    Prng prng(seed);
    for (uint64_t i = 0; i < cases; ++i) {
      const std::string text = Mutate(texts[i % texts.size()], prng);
      SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed) + ", case " + std::to_string(i));
      const ConfigResult<AnyConfig> config = ParseAnyConfig(text, "f.yaml", {}, "configs/topologies");
      accepted += config.ok();
      Check(config);
      if (HasFatalFailure()) {
        FAIL() << text;
      }
    }
  }
  EXPECT_GT(accepted, 0u) << "some mutations (of comments) change nothing";
}

TEST(ConfigFuzzTest, AnyOverrideIsAnErrorWithAPlaceOrATopologyThatHolds) {
  const Result<std::string> text = ReadConfigFile("configs/topologies/small.yaml");
  ASSERT_TRUE(text.ok());
  const char* const kPaths[] = {"engines",   "pools", "[",     "]",    ".",    "0",     "default",
                                "instances", "h100",  "count", "seed", "sync", "level", "x"};
  for (const uint64_t seed : testing::Seeds(1)) {
    Prng prng(seed);
    for (uint64_t i = 0; i < testing::Cases(1'000); ++i) {
      std::string setting;
      for (int64_t n = prng.Between(0, 6); n > 0; --n) setting += kPaths[prng.Below(std::size(kPaths))];
      setting += "=" + std::string(kPieces[prng.Below(std::size(kPieces))]);
      SCOPED_TRACE("FORETOKEN_SEED=" + std::to_string(seed) + ": --set " + setting);
      const ConfigResult<Topology> topology = ParseTopology(*text, "f.yaml", {setting}, "configs/topologies");
      if (topology.ok()) {
        CheckTopology(*topology);
      } else {
        ASSERT_FALSE(topology.errors().empty());
      }
    }
  }
}

TEST(ConfigFuzzTest, BombsAreRefusedInsteadOfUnpacked) {
  std::string aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string below = "*a" + std::to_string(i - 1);
    aliases += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + below;
    for (int k = 0; k < 9; ++k) aliases += ", " + below;
    aliases += "]\n";
  }
  EXPECT_FALSE(ParseAnyConfig(aliases, "f.yaml", {}, "").ok());
  EXPECT_FALSE(ParseAnyConfig("pools: &x [*x]\n", "f.yaml", {}, "").ok()) << "a list that holds itself";
  EXPECT_FALSE(ParseAnyConfig("pools: " + std::string(5'000, '['), "f.yaml", {}, "").ok());
  EXPECT_FALSE(ParseAnyConfig("pools: " + std::string(40, '[') + std::string(40, ']'), "f.yaml", {}, "").ok());
  EXPECT_FALSE(ParseAnyConfig("seed: 1\n}\n", "f.yaml", {}, "").ok()) << "yaml-cpp makes empty documents of it for ever";
  EXPECT_FALSE(ParseAnyConfig(std::string((1 << 20) + 1, '#'), "f.yaml", {}, "").ok());
}

}  // namespace
}  // namespace foretoken
