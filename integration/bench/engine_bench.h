// How fast an emulated engine simulates: engines kept at a given number of running requests (each that ends is replaced at
// once), azure-conv-like lengths (prompt 1,155, output 211 tokens on average), synchronous, prefix caching on, no traces.
// Per second that the thread was on a processor (what one core does); the engine's own work, beside the bench's small loop.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

struct EngineBenchOptions {
  std::vector<int32_t> running = {2, 8, 64, 256};
  bool async_scheduling = false;
  bool traces = false;
  double noise_sigma = 0.02;
  double seconds = 1;  // of processor time per row, at least
  int32_t rounds = 3;  // per row; the median is reported
};

struct EngineBenchRow {
  int32_t running = 0;
  double steps_per_second = 0;
  double requests_per_second = 0;
  double allocations_per_step = 0;     // after warm-up, host's included
  double lowest_steps_per_second = 0;  // of the rounds
  double highest_steps_per_second = 0;
  uint64_t result_hash = 0;  // of everything the engine did in a fixed number of requests: the same on every machine
};

Result<std::vector<EngineBenchRow>> RunEngineBench(const EngineBenchOptions& options);

// The processor's name as the system gives it.
std::string MachineName();

}  // namespace foretoken
