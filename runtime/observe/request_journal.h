// RequestJournal: what a SCHEDULER saw lately, for whoever watches it: totals, figures of the last seconds, and the latest decisions with
// their candidates and outcomes. One per SCHEDULER, on its thread; a View is a value that any thread may read.
//
// It costs a request some 0.3 us: totals and one sketch are fed by every decision, while the candidates of at most
// `details_per_second` decisions are kept - nobody reads more - and the ring of those is bounded. Nothing of a prompt is kept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/metrics/latency_histogram.h"
#include "runtime/metrics/quantile_sketch.h"
#include "runtime/model/request.h"
#include "runtime/observe/decision_seen.h"
#include "runtime/observe/sliding_sketch.h"
#include "runtime/sched/policy.h"
#include "runtime/sched/scheduler_core.h"
#include "runtime/sched/slo_headroom.h"

namespace foretoken {

// Since the start. arrived = finished + failed + rejected + cancelled + open.
struct RequestTotals {
  uint64_t arrived = 0;
  uint64_t decided = 0;  // assignments; those of retries included
  uint64_t finished = 0;
  uint64_t failed = 0;    // no retry was left
  uint64_t rejected = 0;  // no candidate, or one that refuses it for good; shed ones are counted apart
  uint64_t shed = 0;
  uint64_t cancelled = 0;
  uint64_t retried = 0;  // assigned anew after a failure
  uint64_t open = 0;     // now
  uint64_t output_tokens = 0;
  bool operator==(const RequestTotals&) const = default;
};

// Since the start, of all requests; seconds. tpot: of requests with more than one token.
struct RequestLatencies {
  LatencyHistogram ttft, e2e, tpot, decision;
  uint64_t with_slo = 0, met_slo = 0;  // ended, by any outcome but a client's leaving; of these, in time
  void Add(const RequestLatencies& o) {
    ttft.Merge(o.ttft);
    e2e.Merge(o.e2e);
    tpot.Merge(o.tpot);
    decision.Merge(o.decision);
    with_slo += o.with_slo;
    met_slo += o.met_slo;
  }
};

// Of the decisions made on a prediction, that of the winner, summed; what headroom is reckoned from (runtime/sched/slo_headroom.h).
struct PredictedSums {
  uint64_t decisions = 0;
  double violation = 0;  // P(TTFT or TPOT target missed)
  double prompt_tokens = 0;
  double computed = 0, computed_squared = 0;       // tokens of the prompts that were not cached there
  std::array<uint32_t, kPromptBuckets> prompts{};  // by those
  void Add(const PredictedSums& o) {
    decisions += o.decisions;
    violation += o.violation;
    prompt_tokens += o.prompt_tokens;
    computed += o.computed;
    computed_squared += o.computed_squared;
    for (size_t i = 0; i < kPromptBuckets; ++i) prompts[i] += o.prompts[i];
  }
};

// Sketches of the window, so that those of several SCHEDULERs can be merged. Seconds, but for the errors: predicted / actual - 1.
struct WindowSketches {
  QuantileSketch ttft, e2e, tpot, decision;      // decision: submission to decision
  QuantileSketch ttft_error, e2e_error;          // absolute
  double ttft_error_sum = 0, e2e_error_sum = 0;  // signed
  uint64_t ttft_judged = 0, e2e_judged = 0;
  uint64_t ttft_below_p90 = 0, e2e_below_p90 = 0;  // of the judged: actual values at or below the predicted p90
  uint64_t arrived = 0, decided = 0, finished = 0, output_tokens = 0;
  uint64_t with_slo = 0, met_slo = 0;  // ended, by any outcome but a client's leaving; of these, in time
  PredictedSums predicted;
  WindowSketches();
  void Merge(const WindowSketches& other);
};

struct JournalView {
  RequestTotals totals;
  RequestLatencies latencies;
  Duration window;                      // that the sketches cover
  WindowSketches latest;                // of the window
  std::vector<DecisionSeen> decisions;  // latest first
};

class RequestJournal {
 public:
  struct Options {
    uint32_t scheduler = 0;
    Slo slo;                         // of requests without one of their own
    size_t decisions = 48;           // kept
    double details_per_second = 40;  // at most; a burst of a second's worth
    size_t window_seconds = 10;
    bool timed_by_owner = false;  // OnTook tells how long a decision took: its owner's clock stands still within one
  };

  explicit RequestJournal(const Options& options);
  RequestJournal(const RequestJournal&) = delete;
  RequestJournal& operator=(const RequestJournal&) = delete;

  void OnSubmitted(const RequestMeta& request, Instant submitted, Instant now);
  // The candidates of a choice, before it is decided; of a re-picked one twice. `scores` is as long as `candidates`.
  void OnChosen(RequestId request, std::span<const Candidate> candidates, std::span<const double> scores);
  void OnDecided(const DecisionRecord& record);
  void OnTook(Duration decision, Instant now) {
    decision_.Add(decision.seconds(), now);
    latencies_.decision.Add(decision);
  }
  void OnRejected(RequestId request, OutcomeReason reason, Instant now);
  void OnFirstToken(RequestId request, Instant at);
  // Finished or cancelled; a failure is followed by another decision or a rejection.
  void OnEnded(RequestId request, OutcomeKind outcome, TokenCount output, Instant at);

  const RequestTotals& totals() const { return totals_; }
  JournalView View(Instant now) const;

 private:
  static constexpr uint32_t kNotKept = UINT32_MAX;
  struct Open {  // a cache line
    Instant submitted;
    Instant first_token = Instant::Max();
    Instant decided = Instant::Max();                    // Max: not yet
    float ttft = 0, ttft_p90 = 0, e2e = 0, e2e_p90 = 0;  // seconds, predicted at its latest decision
    float slo_ttft = 0, slo_tpot = 0;                    // seconds
    int32_t prompt_tokens = 0;
    uint32_t slot = kNotKept;  // in ring_, while ring_[slot].request is still this one
    bool predicted = false;
  };
  // Counts of one second.
  struct Second {
    int64_t turn = -1;
    uint64_t arrived = 0, decided = 0, finished = 0, output_tokens = 0, with_slo = 0, met_slo = 0;
    uint64_t ttft_judged = 0, e2e_judged = 0, ttft_below_p90 = 0, e2e_below_p90 = 0;
    double ttft_error_sum = 0, e2e_error_sum = 0;
    PredictedSums predicted;
  };

  // Of the second that `now` is in.
  Second& SecondOf(Instant now) {
    if (now < second_begin_ || now >= second_end_) Turn(now);
    return *second_;
  }
  void Turn(Instant now);
  bool MayKeep();
  DecisionSeen* Kept(const Open& open, RequestId request);
  void Judge(const Open& open, Instant ended, TokenCount output);
  void Close(RequestId request, OutcomeKind outcome, TokenCount output, Instant at);

  Options options_;
  RequestTotals totals_;
  RequestLatencies latencies_;
  IdMap<Open> open_;
  IdMap<std::shared_ptr<const std::vector<CandidateSeen>>> chosen_;  // to be decided
  std::vector<DecisionSeen> ring_;
  size_t next_ = 0;
  double allowance_;  // decisions whose candidates may be kept now
  Instant allowed_at_;
  SlidingSketch ttft_, e2e_, tpot_, decision_, ttft_error_, e2e_error_;
  std::vector<Second> seconds_;
  Second* second_ = nullptr;  // that of [second_begin_, second_end_)
  Instant second_begin_, second_end_;
  Instant seen_;  // the latest time that was told: what is chosen is chosen about then
};

}  // namespace foretoken
