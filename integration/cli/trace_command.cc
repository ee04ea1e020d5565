// `foretoken trace info|import|synth`: looks at workloads, turns them into our format, and draws new ones.
// Bad input leaves no output file behind: a file is written beside its place and renamed when it is whole.
#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include "integration/cli/commands.h"
#include "integration/traces/load_trace.h"
#include "integration/traces/trace_statistics.h"
#include "runtime/workload/azure_profiles.h"
#include "runtime/workload/synth_profile.h"

namespace foretoken {
namespace {

namespace json = boost::json;

int Report(const Error& error, int exit_code) {
  std::cerr << "foretoken: " << error.message << "\n";
  return exit_code;
}

struct TraceArguments {
  std::string file;
  std::string out;
  LoadTraceOptions load;
  bool json = false;
  // synth
  std::string profile = "azure-conv-2023";
  std::string like;
  size_t requests = 0;
  double rate = 0;
  uint64_t seed = 1;
  std::string arrivals;
  double cv = 2;
  double prompt_median = 0, prompt_sigma = 1, output_median = 0, output_sigma = 0.8;
  SharingProfile sharing;
  SessionProfile sessions;
  double think_s = 20;
};

json::object LengthsJson(const LengthStatistics& l) {
  json::object out{{"total", l.total}, {"mean", l.mean}};
  constexpr const char* kKeys[] = {"min", "p5", "p25", "p50", "p75", "p90", "p95", "p99", "max"};
  for (size_t k = 0; k < l.quantiles.size(); ++k) out[kKeys[k]] = l.quantiles[k];
  return out;
}

json::object StatisticsJson(const std::string& name, const TraceStatistics& s) {
  return {{"name", name},
          {"requests", s.requests},
          {"duration_s", s.span.seconds()},
          {"rate_rps", s.rate_rps},
          {"gap_cv", s.gap_cv},
          {"peak_per_second", s.peak_per_second},
          {"peak_over_mean", s.peak_over_mean},
          {"prompt_tokens", LengthsJson(s.prompt)},
          {"output_tokens", LengthsJson(s.output)},
          {"rank_correlation", s.rank_correlation},
          {"sharing_requests", s.sharing_requests},
          {"reusable_prompt_tokens", s.reusable_tokens},
          {"sessions", s.sessions},
          {"with_max_tokens", s.with_max_tokens}};
}

void PrintLengths(const char* what, const LengthStatistics& l) {
  std::printf("%s tokens: mean %.1f, min %.0f, p5 %.0f, p25 %.0f, p50 %.0f, p75 %.0f, p90 %.0f, p95 %.0f, p99 %.0f, max %.0f\n",
              what, l.mean, l.quantiles[0], l.quantiles[1], l.quantiles[2], l.quantiles[3], l.quantiles[4], l.quantiles[5],
              l.quantiles[6], l.quantiles[7], l.quantiles[8]);
}

void PrintStatistics(const Trace& trace, const TraceStatistics& s) {
  constexpr size_t kWidth = 100;
  std::printf("requests: %zu over %.1f s, %.3f per second\n", s.requests, s.span.seconds(), s.rate_rps);
  std::printf("burstiness: gaps vary by %.2f of their mean (Poisson: 1); busiest second %lld, %.1f times the mean\n", s.gap_cv,
              static_cast<long long>(s.peak_per_second), s.peak_over_mean);
  std::printf(
      "prefixes: %.1f %% of the prompts begin like an earlier one; %.1f %% of the prompt tokens could come from a cache\n",
      100 * s.sharing_requests, 100 * s.reusable_tokens);
  if (s.sessions > 0) std::printf("sessions: %zu\n", s.sessions);
  if (s.with_max_tokens > 0) std::printf("with max_tokens: %zu\n", s.with_max_tokens);
  std::printf("rank correlation of prompt and output: %.2f\n", s.rank_correlation);
  std::vector<int64_t> prompts, outputs;
  for (const TraceRequest& r : trace.requests) {
    prompts.push_back(r.meta.prompt_tokens.value());
    outputs.push_back(r.truth.output_tokens.value());
  }
  PrintLengths("prompt", s.prompt);
  for (const std::string& line : LengthHistogram(prompts, kWidth)) std::puts(line.c_str());
  PrintLengths("output", s.output);
  for (const std::string& line : LengthHistogram(outputs, kWidth)) std::puts(line.c_str());
}

int RunInfo(const TraceArguments& a) {
  const Result<LoadedTrace> loaded = LoadTraceFile(a.file, a.load);
  if (!loaded.ok()) return Report(loaded.error(), kExitUsage);
  const TraceStatistics s = StatisticsOf(loaded->trace);
  if (a.json) {
    json::object out = StatisticsJson(loaded->trace.name, s);
    out["format"] = TraceFormatName(loaded->format);
    out["skipped"] = loaded->skipped;
    std::cout << json::serialize(out) << "\n";
    return kExitOk;
  }
  std::printf("%s: %s\n", a.file.c_str(), std::string(TraceFormatName(loaded->format)).c_str());
  if (loaded->skipped > 0) std::printf("skipped: %zu rows of requests without an output\n", loaded->skipped);
  PrintStatistics(loaded->trace, s);
  return kExitOk;
}

// To `path`, or to stdout for "-".
Status WriteTrace(const Trace& trace, const std::string& path) {
  if (path == "-") {
    for (const TraceRequest& r : trace.requests) std::cout << TraceRow(r);
    std::cout.flush();
    return std::cout ? Status() : Status(Error{"stdout: cannot be written"});
  }
  const std::string part = path + ".part";
  std::error_code code;
  {
    std::ofstream file(part, std::ios::binary);
    for (const TraceRequest& r : trace.requests) file << TraceRow(r);
    file.close();
    if (!file) {
      std::filesystem::remove(part, code);
      return Error{path + ": cannot be written"};
    }
  }
  std::filesystem::rename(part, path, code);
  if (code) return Error{path + ": cannot be written: " + code.message()};
  return {};
}

int WriteAndTell(const Trace& trace, json::object facts, const TraceArguments& a) {
  if (a.json && a.out == "-") return Report({"--json and --out - both want stdout; name a file"}, kExitUsage);
  if (const Status s = WriteTrace(trace, a.out); !s.ok()) return Report(s.error(), kExitFailed);
  if (a.json) {
    json::object out = StatisticsJson(trace.name, StatisticsOf(trace));
    for (const auto& [key, value] : facts) out[key] = value;
    out["out"] = a.out;
    std::cout << json::serialize(out) << "\n";
  } else {
    std::cerr << "foretoken: " << trace.requests.size() << " requests written to " << (a.out == "-" ? "stdout" : a.out) << "\n";
  }
  return kExitOk;
}

int RunImport(const TraceArguments& a) {
  const Result<LoadedTrace> loaded = LoadTraceFile(a.file, a.load);
  if (!loaded.ok()) return Report(loaded.error(), kExitUsage);
  return WriteAndTell(loaded->trace, {{"format", TraceFormatName(loaded->format)}, {"skipped", loaded->skipped}}, a);
}

// The profile to draw from, before the options that change parts of it.
Result<SynthProfile> BaseProfile(const TraceArguments& a) {
  if (a.like.empty()) {
    const Result<const SynthProfile*> found = EmbeddedProfile(a.profile);
    if (!found.ok()) return found.error();
    return **found;
  }
  const Result<LoadedTrace> loaded = LoadTraceFile(a.like, a.load);
  if (!loaded.ok()) return loaded.error();
  const auto& rows = loaded->trace.requests;
  if (rows.size() < 2 || rows.back().meta.arrival <= rows.front().meta.arrival)
    return Error{a.like + ": at least two requests at different times are needed to learn from"};
  return ProfileOf(loaded->trace);
}

Result<SynthProfile> ProfileFor(const TraceArguments& a) {
  Result<SynthProfile> base = BaseProfile(a);
  if (!base.ok()) return base;
  SynthProfile& p = *base;
  if (a.requests > 0) p.requests = a.requests;
  if (!a.arrivals.empty()) {
    p.arrivals.weights.clear();
    p.arrivals.kind = a.arrivals == "poisson"  ? ArrivalKind::kPoisson
                      : a.arrivals == "gamma"  ? ArrivalKind::kGamma
                      : a.arrivals == "on-off" ? ArrivalKind::kOnOff
                                               : ArrivalKind::kUniform;
    p.arrivals.cv = a.cv;
  }
  if (a.rate > 0) {
    // The same shape of the day, run through faster or slower.
    p.arrivals.piece = Duration::FromSeconds(p.arrivals.piece.seconds() * p.arrivals.rate_rps / a.rate);
    p.arrivals.rate_rps = a.rate;
  }
  if (a.prompt_median > 0 || a.output_median > 0) {
    p.lengths = LengthProfile();
    if (a.prompt_median > 0) p.lengths.prompt_median = a.prompt_median;
    if (a.output_median > 0) p.lengths.output_median = a.output_median;
    p.lengths.prompt_sigma = a.prompt_sigma;
    p.lengths.output_sigma = a.output_sigma;
  }
  p.sharing = a.sharing;
  p.sessions = a.sessions;
  p.sessions.think_mean = Duration::FromSeconds(a.think_s);
  if (const Status s = Validate(p); !s.ok()) return s.error();
  return base;
}

int RunSynth(const TraceArguments& a) {
  const Result<SynthProfile> profile = ProfileFor(a);
  if (!profile.ok()) return Report(profile.error(), kExitUsage);
  Prng prng(a.seed);
  return WriteAndTell(Synthesize(*profile, prng), {{"source", profile->source}, {"seed", a.seed}}, a);
}

void AddLoading(CLI::App& command, TraceArguments& a) {
  command.add_option("--limit", a.load.limit, "Only the first so many requests (0: all)");
  command.add_option("--rate-scale", a.load.rate_scale, "Arrivals come so many times as fast")->check(CLI::PositiveNumber);
  command.add_option("--hash-block-tokens", a.load.hash_block_tokens, "Tokens per hash id (0: 512 in mooncake, 16 in jsonl)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--assumed-rate", a.load.assumed_rate, "Arrivals per second where the file has no times (sharegpt)")
      ->check(CLI::PositiveNumber);
  command.add_flag("--json", a.json, "One JSON object on stdout");
}

void AddSynthOptions(CLI::App& command, TraceArguments& a) {
  CLI::Option* profile =
      command.add_option("--profile", a.profile, "azure-conv-2023 or azure-code-2023")->capture_default_str();
  command.add_option("--like", a.like, "Draw what this trace is like, instead of --profile")->excludes(profile);
  command.add_option("--requests", a.requests, "How many (0: as many as the profile's origin has)");
  command.add_option("--rate", a.rate, "Mean arrivals per second (0: the profile's)")->check(CLI::NonNegativeNumber);
  command.add_option("--seed", a.seed, "Same seed, same trace")->capture_default_str();
  command.add_option("--arrivals", a.arrivals, "Instead of the profile's")
      ->check(CLI::IsMember({"poisson", "gamma", "on-off", "uniform"}));
  command.add_option("--cv", a.cv, "Of gamma arrivals: variation of the gaps")->capture_default_str();
  command.add_option("--prompt-median", a.prompt_median, "Lognormal lengths instead of the profile's")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--prompt-sigma", a.prompt_sigma, "Their spread (0: constant)")->capture_default_str();
  command.add_option("--output-median", a.output_median, "Likewise of the outputs")->check(CLI::NonNegativeNumber);
  command.add_option("--output-sigma", a.output_sigma, "Their spread")->capture_default_str();
  command.add_option("--shared-share", a.sharing.share, "Share of the prompts that begin with a common text")
      ->capture_default_str();
  command.add_option("--groups", a.sharing.groups, "Number of common texts")->capture_default_str();
  command.add_option("--prefix-tokens", a.sharing.prefix_tokens, "Mean length of a common text")->capture_default_str();
  command.add_option("--session-share", a.sessions.share, "Share of the openings that become a conversation")
      ->capture_default_str();
  command.add_option("--turns", a.sessions.turns_mean, "Mean turns of a conversation")->capture_default_str();
  command.add_option("--think-s", a.think_s, "Mean pause between an answer and the next message, seconds")
      ->capture_default_str();
}

}  // namespace

void AddTraceCommand(CLI::App& app, int& exit_code) {
  CLI::App* trace = app.add_subcommand("trace", "Look at workloads, convert them, draw new ones");
  trace->footer(
      "Example:\n"
      "  foretoken trace info AzureLLMInferenceTrace_conv.csv\n"
      "Formats, known by their first line: azure, burstgpt, mooncake, sharegpt, vllm-bench, vllm-steps, jsonl.");
  trace->require_subcommand(1);
  const auto a = std::make_shared<TraceArguments>();

  CLI::App* info = trace->add_subcommand("info", "Counts, rates, lengths, burstiness and prefix sharing of a trace");
  info->add_option("FILE", a->file, "A trace in any known format, plain or gzip")->required();
  AddLoading(*info, *a);
  info->footer("Example:\n  foretoken trace info conversation_trace.jsonl --limit 1000 --json");
  info->callback([a, &exit_code] { exit_code = RunInfo(*a); });

  CLI::App* import = trace->add_subcommand("import", "Write a trace in our JSON Lines format");
  import->add_option("FILE", a->file, "A trace in any known format, plain or gzip")->required();
  import->add_option("--out", a->out, "The file to write (-: stdout)")->required();
  AddLoading(*import, *a);
  import->footer("Example:\n  foretoken trace import AzureLLMInferenceTrace_conv.csv --rate-scale 4 --out conv-4x.jsonl");
  import->callback([a, &exit_code] { exit_code = RunImport(*a);
});

CLI::App* synth = trace->add_subcommand("synth", "Draw a workload from a statistical profile");
synth->add_option("--out", a->out, "The file to write (-: stdout)")->required();
AddSynthOptions(*synth, *a);
synth->add_flag("--json", a->json, "Its statistics as one JSON object on stdout");
synth->footer(
    "Examples:\n"
    "  foretoken trace synth --requests 2000 --rate 8 --shared-share 0.5 --out shared.jsonl\n"
    "  foretoken trace synth --arrivals gamma --cv 4 --prompt-median 800 --output-median 200 --requests 500 --out "
    "bursty.jsonl");
synth->callback([a, &exit_code] { exit_code = RunSynth(*a); });
}  // namespace foretoken

}  // namespace foretoken
