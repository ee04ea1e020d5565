// SynthProfile: the compact description of a workload from which any number of requests can be drawn: when they arrive, how
// long they are, what their prompts share, how conversations go on. Same profile, same seed: same trace, to the bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/workload/quantile_table.h"
#include "runtime/workload/trace.h"

namespace foretoken {

enum class ArrivalKind : uint8_t {
  kUniform,    // equal gaps
  kPoisson,    // independent gaps, exponential
  kGamma,      // independent gaps with coefficient of variation `cv`: above 1 bursty, below 1 regular
  kOnOff,      // Poisson at `on_share` of the time only, in spells of `on_mean`
  kEmpirical,  // independent gaps from the table `gaps`
  kReplay,     // the gaps of `replay`, again and again
};

struct ArrivalProfile {
  ArrivalKind kind = ArrivalKind::kPoisson;
  double rate_rps = 1;  // mean arrivals per second; > 0
  double cv = 2;
  Duration on_mean = Duration::Seconds(10);
  double on_share = 0.3;         // in (0, 1]
  QuantileTable gaps;            // only its shape counts: gaps are scaled to the rate
  std::vector<Duration> replay;  // as recorded; scaled to the rate
  // How the rate changes over time: weights of consecutive pieces of `piece`, repeated; empty: constant. The mean stays rate_rps.
  std::vector<double> weights;
  Duration piece = Duration::Seconds(60);
  bool operator==(const ArrivalProfile&) const = default;
};

struct LengthProfile {
  // Lognormal with these medians and spreads (0: constant), when there are no tables.
  double prompt_median = 1000;
  double prompt_sigma = 1;
  double output_median = 200;
  double output_sigma = 0.8;
  double rank_correlation = 0;  // of prompt and output, by a Gaussian copula; -1..1
  // Measured: prompts, and outputs given the stratum of the prompt: stratum k of n holds the prompts of quantiles k/n .. (k+1)/n.
  // This keeps any dependence, also one that no correlation shows.
  QuantileTable prompt;
  std::vector<QuantileTable> output_by_prompt;
  int64_t prompt_min = 1, prompt_max = 131'072;
  int64_t output_min = 1, output_max = 131'072;
  bool operator==(const LengthProfile&) const = default;
};

// Prompts that begin with one of a few common texts (system prompts, documents).
struct SharingProfile {
  double share = 0;             // of the requests; 0: none
  size_t groups = 16;           // common texts
  double zipf = 1;              // popularity of the k-th: 1 / k^zipf
  int64_t prefix_tokens = 512;  // mean length of a common text; each has its own, between half and one and a half of it
  bool operator==(const SharingProfile&) const = default;
};

// Conversations: a later turn's prompt is the whole conversation so far (the model's answers included) and a new message.
struct SessionProfile {
  double share = 0;                             // of the requests that open a session which goes on; 0: none
  double turns_mean = 4;                        // of such a session, >= 1; geometric
  int64_t message_tokens = 100;                 // mean length of a later message; lognormal, sigma 1
  Duration think_mean = Duration::Seconds(20);  // between an answer's end and the next message; exponential
  Duration token_time = Duration::Millis(30);   // an answer is assumed to take its tokens times this
  bool operator==(const SessionProfile&) const = default;
};

struct SynthProfile {
  std::string name;
  std::string source;  // where the figures come from, and their licence
  size_t requests = 1000;
  ArrivalProfile arrivals;
  LengthProfile lengths;
  SharingProfile sharing;
  SessionProfile sessions;
  uint32_t length_class = 0;           // of all its requests
  std::vector<int64_t> output_tokens;  // evenly spaced quantiles of the outputs: a prior for length estimators; may be empty
  bool operator==(const SynthProfile&) const = default;
};

// Every field that is out of its range, one message a line ("arrivals.rate_rps = 0: must be above 0").
Status Validate(const SynthProfile& profile);

// `profile` passes Validate. The first request arrives at 0.
Trace Synthesize(const SynthProfile& profile, Prng& prng);

// The profile that a trace fits: its lengths with their dependence in `strata` strata, and its arrivals: rates per piece and
// gaps relative to them. Prefixes and sessions are not recognised: they stay off. At least two requests over more than no time.
struct ProfileOptions {
  size_t strata = 16;
  Duration piece = Duration::Seconds(60);
};
SynthProfile ProfileOf(const Trace& trace, const ProfileOptions& options = {});

}  // namespace foretoken
