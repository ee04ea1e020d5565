#include "integration/bench/engine_bench.h"

#include <time.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <utility>

#include "integration/bench/allocation_count.h"
#include "runtime/base/prng.h"
#include "runtime/engine/emulated_engine.h"

namespace foretoken {
namespace {

// Of this thread on a processor, so that a busy machine does not count.
double CpuSeconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// One engine that always has `running` requests.
class Load final : public EngineSink {
 public:
  Load(std::unique_ptr<EmulatedEngine> engine, int32_t running, uint64_t seed) : engine_(std::move(engine)), prng_(seed) {
    // Their first ends are spread over a mean stay, as they are in a steady state.
    for (int32_t i = 0; i < running; ++i) Submit(1 + (kOutputMean * (i + 1)) / running);
  }

  void OnStep(const BatchTrace& trace) override { hash_ = Mix64(hash_, trace.step); }
  void OnFirstToken(RequestId id, Instant at) override { hash_ = Mix64(hash_, id.value() ^ static_cast<uint64_t>(at.nanos())); }
  void OnFinished(RequestId id, const BatchTrace::Finish&, Instant at) override {
    hash_ = Mix64(hash_, id.value() ^ static_cast<uint64_t>(at.nanos()));
    ++finished_;
  }
  void OnRejected(RequestId id, OutcomeReason, Instant) override { hash_ = Mix64(hash_, id.value()); }

  // Until `count` more requests have ended.
  void Run(uint64_t count) {
    const uint64_t until = finished_ + count;
    while (finished_ < until) {
      const uint64_t before = finished_;
      now_ = engine_->NextEvent();
      engine_->RunUntil(now_, *this);
      for (uint64_t k = before; k < finished_; ++k) Submit(prng_.Between(kOutputMean / 2, kOutputMean * 3 / 2));
    }
  }
  uint64_t finished() const { return finished_; }
  uint64_t steps() const { return engine_->counters().steps; }
  uint64_t hash() const { return hash_; }

 private:
  static constexpr int64_t kPromptMean = 1155, kOutputMean = 211;

  void Submit(int64_t output) {
    request_.id = RequestId(next_id_++);
    request_.arrival_key = now_.seconds();
    request_.prompt_tokens = prng_.Between(kPromptMean / 2, kPromptMean * 3 / 2);
    request_.max_tokens = request_.output_tokens = output;
    request_.output_named_later = false;
    engine_->Submit(request_, now_);
  }

  std::unique_ptr<EmulatedEngine> engine_;
  Prng prng_;
  EngineRequest request_;
  Instant now_;
  uint64_t next_id_ = 1;
  uint64_t finished_ = 0;
  uint64_t hash_ = 0;
};

Result<EngineBenchRow> RunRow(const EngineBenchOptions& o, int32_t running) {
  EmulatedEngine::Options e;
  e.config.max_num_seqs = std::max(running, 1);
  // Room for all of them at their longest, and half as much again of freed blocks to turn over.
  e.config.num_gpu_blocks = 1 + running * 200;
  e.config.async_scheduling = o.async_scheduling;
  // An 8B model on an H100: 4 ms a step, 30 us a prefill token, 20 us a sequence, 20 ns a KV token.
  e.step_time.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{4e6, 3e4, 2e4, 20});
  e.noise = {1, o.noise_sigma};
  e.traces = o.traces;
  auto engine = EmulatedEngine::Make(e);
  if (!engine.ok()) return engine.error();
  Load load(std::move(engine).value(), running, 1);
  // Long enough that vectors have grown to their working size; then, by a fixed count, the hash.
  const uint64_t warm_up = 2000 + 20 * static_cast<uint64_t>(running);
  load.Run(warm_up);
  EngineBenchRow row;
  row.running = running;
  row.result_hash = load.hash();
  std::vector<std::pair<double, double>> rates;  // steps/s, requests/s
  uint64_t allocations = 0, counted_steps = 0;
  for (int32_t round = 0; round < std::max(o.rounds, 1); ++round) {
    const uint64_t steps = load.steps(), finished = load.finished(), allocated = AllocationsOfThisThread();
    const double start = CpuSeconds();
    double seconds = 0;
    while (seconds < o.seconds / std::max(o.rounds, 1)) {
      load.Run(200);
      seconds = CpuSeconds() - start;
    }
    allocations += AllocationsOfThisThread() - allocated;
    counted_steps += load.steps() - steps;
    rates.emplace_back(static_cast<double>(load.steps() - steps) / seconds,
                       static_cast<double>(load.finished() - finished) / seconds);
  }
  std::sort(rates.begin(), rates.end());
  row.steps_per_second = rates[rates.size() / 2].first;
  row.requests_per_second = rates[rates.size() / 2].second;
  row.lowest_steps_per_second = rates.front().first;
  row.highest_steps_per_second = rates.back().first;
  row.allocations_per_step = static_cast<double>(allocations) / static_cast<double>(counted_steps);
  return row;
}

}  // namespace

Result<std::vector<EngineBenchRow>> RunEngineBench(const EngineBenchOptions& options) {
  std::vector<EngineBenchRow> rows;
  for (const int32_t running : options.running) {
    if (running < 1) return Error{"running = " + std::to_string(running) + ": must be at least 1"};
    auto row = RunRow(options, running);
    if (!row.ok()) return row.error();
    rows.push_back(*row);
  }
  return rows;
}

std::string MachineName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line))
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos) return line.substr(line.find(": ") + 2);
  return "unknown processor";
}

}  // namespace foretoken
