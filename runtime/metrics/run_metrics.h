// RunMetrics: from what happened to each request to the figures of a run.
//
// TTFT: first token - arrival. E2E: last token - arrival. TPOT: (E2E - TTFT) / (N - 1) of a request with N output tokens; absent,
// not 0, for N <= 1 (vLLM's benchmark averages these per request; its time_per_output_token_seconds histogram records single
// gaps). Latencies are over finished requests. SLO attainment: the share of all *offered* requests that finished and met every
// target that applies to them: one that was rejected, cancelled, failed or lost met none. Goodput: requests that met every
// target, per second of the run.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/metrics/sample_set.h"
#include "runtime/model/request.h"

namespace foretoken {

// One request's life. All times on one clock.
struct RequestRecord {
  RequestId request;
  Instant arrival;
  std::optional<Instant> first_token;
  std::optional<Instant> last_token;
  int64_t output_tokens = 0;
  OutcomeKind outcome = OutcomeKind::kLost;
  Slo slo;
};

std::optional<Duration> TtftOf(const RequestRecord& record);
std::optional<Duration> E2eOf(const RequestRecord& record);
std::optional<double> TpotSecondsOf(const RequestRecord& record);  // absent for one token
// Finished with every target met; a target for TPOT is met where TPOT is absent.
bool MeetsSlo(const RequestRecord& record);

struct RunReport {
  size_t requests = 0;  // offered = completed + rejected + cancelled + failed + lost
  size_t completed = 0;
  size_t rejected = 0;
  size_t cancelled = 0;
  size_t failed = 0;
  size_t lost = 0;
  std::optional<Summary> ttft;  // seconds; absent if no request has one
  std::optional<Summary> tpot;
  std::optional<Summary> e2e;
  std::optional<double> slo_attainment;  // absent without requests
  double goodput_rps = 0;
  double throughput_rps = 0;            // completed requests
  double output_tokens_per_second = 0;  // of completed requests
};

class RunMetrics {
 public:
  void Add(const RequestRecord& record);
  size_t requests() const { return requests_; }
  // `length`: of the run, for rates; rates are 0 if it is not above 0.
  RunReport Report(Duration length) const;

 private:
  SampleSet ttft_, tpot_, e2e_;
  size_t requests_ = 0;
  size_t by_outcome_[5] = {};
  size_t met_ = 0;
  int64_t output_tokens_ = 0;
};

}  // namespace foretoken
