// `foretoken engine`: the full-fidelity engine alone, with the flags, defaults and output of the executable specification.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "integration/cli/commands.h"
#include "integration/cli/engine_run.h"

namespace foretoken {
namespace {

// Engine options that change decisions in ways EngineCore does not reproduce: refused by name rather than ignored.
constexpr const char* kNotModelled[] = {"--enable-lora",
                                        "--max-loras",
                                        "--lora-modules",
                                        "--speculative-config",
                                        "--kv-transfer-config",
                                        "--kv-offloading-size",
                                        "--kv-sharing-fast-prefill",
                                        "--limit-mm-per-prompt",
                                        "--enable-mm-embeds",
                                        "--mm-processor-kwargs",
                                        "--structured-outputs-config",
                                        "--guided-decoding-backend",
                                        "--sliding-window",
                                        "--mamba-cache-mode",
                                        "--scheduler-cls",
                                        "--enable-mixed-chunk",
                                        "--enable-priority-scheduling"};
// Degrees of parallelism: 1 is what is modelled.
constexpr const char* kOnlyOne[] = {"--pipeline-parallel-size", "--data-parallel-size", "--decode-context-parallel-size"};

struct Arguments {
  std::string trace, out = "-", vllm_version, engine = "vllm";
  EngineConfig config;
  EngineRunOptions run;
  int64_t hash_id_block = 0;
  std::string prefix_caching, policy, reserve_full_isl, chunked_prefill, async_scheduling, stop, free_list, lone_long_prefill,
      long_prefill_adaptive, self_preempt;
  std::string watermark, step_time, cpu, idle_sleep;  // read by ParseDouble: every bit of these counts
  std::string refused;
  bool block_size_given = false;
};

EngineConfig SpecificationDefaults() {
  EngineConfig config;
  config.max_num_seqs = 1024;  // vLLM's defaults for online serving on an H100
  config.max_num_batched_tokens = 8192;
  config.num_gpu_blocks = 4096;
  config.block_size = 16;
  config.max_model_len = 131072;
  return config;
}

bool SetNumber(const char* flag, const std::string& text, double& out, std::string& error) {
  if (text.empty()) return true;
  const auto x = ParseDouble(text);
  if (!x) error = std::string(flag) + " " + text + ": not a number";
  if (x) out = *x;
  return x.has_value();
}

bool SetStepTime(const std::string& text, EngineRunOptions& run, std::string& error) {
  if (text.empty()) return true;
  double* const parts[] = {&run.step_s, &run.prefill_token_s, &run.decode_seq_s, &run.kv_token_s};
  size_t from = 0;
  for (size_t i = 0; i < 4; ++i) {
    const size_t comma = text.find(',', from);
    const auto x = ParseDouble(std::string_view(text).substr(from, comma - from));
    if (!x || (comma == std::string::npos) != (i == 3)) {
      error = "--step-time " + text + ": four numbers of seconds are needed: step,prefill token,decode sequence,KV token";
      return false;
    }
    *parts[i] = *x;
    from = comma + 1;
  }
  return true;
}

// What was given on the command line, over the version's rules.
bool Resolve(Arguments& a, std::string& error) {
  EngineConfig& c = a.config;
  c.kind = a.engine == "sglang" ? EngineKind::kSglang : EngineKind::kVllm;
  if (c.kind == EngineKind::kSglang && !a.block_size_given) c.block_size = 1;
  if (!a.vllm_version.empty()) {
    if (const Status known = ApplyVllmVersion(a.vllm_version, c); !known.ok()) return error = known.error().message, false;
  }
  const auto on = [](const std::string& given, bool& out) {
    if (!given.empty()) out = given == "on";
  };
  on(a.prefix_caching, c.prefix_caching);
  on(a.reserve_full_isl, c.reserve_full_isl);
  on(a.chunked_prefill, c.chunked_prefill);
  on(a.async_scheduling, c.async_scheduling);
  on(a.long_prefill_adaptive, c.long_prefill_adaptive);
  if (!a.policy.empty()) c.policy = a.policy == "priority" ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
  if (!a.free_list.empty()) c.free_list = a.free_list == "append" ? FreeListRule::kAppend : FreeListRule::kUnhashedToFront;
  if (!a.lone_long_prefill.empty()) c.lone_long_prefill_full = a.lone_long_prefill == "full";
  if (!a.self_preempt.empty()) c.self_preempt_continues = a.self_preempt == "continue";
  if (!a.stop.empty()) c.stop_at_eos = a.stop == "eos";
  a.run.hash_block_tokens = a.hash_id_block > 0 ? a.hash_id_block : c.block_size;
  return SetNumber("--watermark", a.watermark, c.watermark, error) && SetNumber("--cpu", a.cpu, a.run.cpu_s, error) &&
         SetNumber("--idle-sleep", a.idle_sleep, a.run.idle_sleep_s, error) && SetStepTime(a.step_time, a.run, error);
}

int Complain(const std::string& message, int exit_code) {
  std::cerr << "foretoken engine: " << message << "\n";
  return exit_code;
}

int RunEngine(Arguments a) {
  std::string error;
  if (!a.refused.empty()) return Complain(a.refused + ": this engine option is not modelled, results would differ", kExitUsage);
  if (!Resolve(a, error)) return Complain(error, kExitUsage);
  const auto rows = ReadEngineTrace(a.trace);
  if (!rows.ok()) return Complain(rows.error().message, kExitUsage);
  std::vector<std::string> ids;
  for (const EngineTraceRow& row : *rows) ids.push_back(row.id);
  const TokenNames names(std::move(ids));
  auto core = MakeEngineCore(a.config);
  if (!core.ok()) return Complain(core.error().message, kExitUsage);

  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> opened(a.out == "-" ? nullptr : std::fopen(a.out.c_str(), "w"),
                                                               [](std::FILE* f) { return f == nullptr ? 0 : std::fclose(f); });
  std::FILE* const out = a.out == "-" ? stdout : opened.get();
  if (out == nullptr) return Complain(a.out + ": cannot be opened for writing", kExitUsage);
  const auto end = RunEngineAlone(*core.value(), *rows, names, a.run, [out](std::string_view line) {
    std::fwrite(line.data(), 1, line.size(), out);
    std::fputc('\n', out);
  });
  if (std::fflush(out) != 0) return Complain(a.out + ": cannot be written", kExitFailed);
  if (!end.ok()) return Complain(end.error().message, kExitUsage);
  if (end.value() == EngineRunEnd::kMaxIterations) return std::cerr << "max steps\n", kExitFailed;
  if (end.value() == EngineRunEnd::kStuck)
    std::cerr << "stuck\n";  // as the specification: the requests are printed all the same
  return kExitOk;
}

void AddEngineLimits(CLI::App& app, EngineConfig& c) {
  app.add_option("--max-num-seqs", c.max_num_seqs, "Running requests at most")->capture_default_str();
  app.add_option("--max-num-batched-tokens", c.max_num_batched_tokens, "Token budget of a step")->capture_default_str();
  app.add_option("--num-gpu-blocks", c.num_gpu_blocks, "KV blocks, the null block included")->capture_default_str();
  app.add_option("--block-size", c.block_size, "Tokens of a KV block")->capture_default_str();
  app.add_option("--max-model-len", c.max_model_len, "Tokens of a request at most")->capture_default_str();
  app.add_option("--long-prefill-token-threshold", c.long_prefill_token_threshold, "Longest chunk of a long prompt (0: off)");
  app.add_option("--max-num-active-seqs", c.max_num_active_seqs, "Cap on running requests at admission (0: --max-num-seqs)");
  app.add_option("--prefill-schedule-interval", c.prefill_schedule_interval, "Steps between prefills, as vLLM 0.33")
      ->capture_default_str();
}

void AddEngineRules(CLI::App& app, Arguments& a) {
  const auto choice = [&app](const char* flag, std::string& out, std::vector<std::string> values, const char* help) {
    app.add_option(flag, out, help)->check(CLI::IsMember(std::move(values)));
  };
  choice("--prefix-caching", a.prefix_caching, {"on", "off"}, "Reuse KV blocks of equal prefixes (default on)");
  choice("--policy", a.policy, {"fcfs", "priority"}, "Order of the waiting queue (default fcfs)");
  choice("--reserve-full-isl", a.reserve_full_isl, {"on", "off"}, "Admit only what fits with its whole prompt (default on)");
  choice("--chunked-prefill", a.chunked_prefill, {"on", "off"}, "Split prompts over steps (default on)");
  choice("--async-scheduling", a.async_scheduling, {"on", "off"}, "Two batches in flight (default off)");
  choice("--stop", a.stop, {"max_tokens", "eos"}, "eos: the scheduler does not know the output length");
  choice("--free-list", a.free_list, {"new", "append"}, "append: vLLM before 2026-06-16, all freed blocks to the back");
  choice("--lone-long-prefill", a.lone_long_prefill, {"cap", "full"}, "full: vLLM 0.32, a lone long prompt is not split");
  choice("--long-prefill-adaptive", a.long_prefill_adaptive, {"on", "off"}, "Threshold grows when few requests are there");
  choice("--self-preempt", a.self_preempt, {"break", "continue"}, "continue: vLLM 0.33 with --policy priority");
  app.add_option("--watermark", a.watermark, "Share of the blocks kept free at admission (default 0)");
  app.add_option("--vllm-version", a.vllm_version, "Rules of that version, e.g. 0.32; flags given beside it win");
  choice("--engine", a.engine, {"vllm", "sglang"}, "Whose scheduler (default vllm; sglang: a block is one token)");
}

void AddRunOptions(CLI::App& app, Arguments& a) {
  app.add_option("--trace", a.trace, "Requests, JSON Lines (may be gzip)")->required();
  app.add_option("--out", a.out, "Where the lines go (-: stdout)")->capture_default_str();
  app.add_option("--step-time", a.step_time, "Seconds a,b,c,d of a step, a prefill token, a decode sequence, a KV token");
  app.add_option("--cpu", a.cpu, "Seconds that composing a batch takes (default 0)");
  app.add_option("--idle-sleep", a.idle_sleep, "Seconds the loop sleeps without work (vLLM: 0.001; default 0)");
  app.add_option("--hash-id-block", a.hash_id_block, "Tokens per entry of hash_ids (0: the block size)");
  app.add_flag("--blocks", a.run.print_blocks, "Also print the ids of the blocks that each step takes");
  app.add_flag("--empty", a.run.print_empty, "Also print steps without a token");
  app.add_option("--max-steps", a.run.max_iterations, "Give up after as many turns of the loop")->capture_default_str();
}

void AddRefusedOptions(CLI::App& app, std::string& refused) {
  for (const char* const flag : kNotModelled)
    app.add_option_function<std::vector<std::string>>(
           flag, [&refused, flag](const auto&) { refused = flag; }, "not modelled")
        ->expected(0, 1)
        ->group("");
  for (const char* const flag : kOnlyOne)
    app.add_option_function<std::string>(
           flag, [&refused, flag](const std::string& n) { refused = n == "1" ? refused : flag + (" " + n); }, "1 only")
        ->group("");
}

}  // namespace

void AddEngineCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("engine", "Run one full-fidelity engine alone over a trace, step by step");
  const auto a = std::make_shared<Arguments>();
  a->config = SpecificationDefaults();
  AddRunOptions(*command, *a);
  AddEngineLimits(*command, a->config);
  AddEngineRules(*command, *a);
  AddRefusedOptions(*command, a->refused);
  command->footer(
      "Prints a JSON line per step in the order of completion, then one per request.\n"
      "Example: foretoken engine --trace trace.jsonl --max-num-seqs 32 --num-gpu-blocks 600 --async-scheduling on --blocks");
  command->callback([a, command, &exit_code] {
    a->block_size_given = command->count("--block-size") > 0;
    exit_code = RunEngine(*a);
  });
}

}  // namespace foretoken
