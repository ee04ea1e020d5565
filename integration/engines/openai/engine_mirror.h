// EngineMirror: the mirror of one engine that reports nothing, fed by what passes through the gateway: what was sent to it and when,
// when output came, when requests ended. StepInference makes steps of that, the SIMULATOR's core follows them as it follows a real
// engine's, at state level `inferred`. Pure: time comes in.
//
// The engine's speed is learnt from nothing: a generic law, moved in coarse strides (base) until the calibrator's range holds the
// truth, then corrected by it online; what remains of the first token's error is learnt as an offset.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "integration/engines/openai/step_inference.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/perf/step_time_law.h"
#include "runtime/perf/step_time_model.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/predict/simulator_core.h"

namespace foretoken {

class EngineMirror final : private StepInference::Sink, private SimulatorEffects {
 public:
  struct Options {
    InstanceId instance;
    Slo slo;
    SourceId source;  // of this gateway among several
  };
  struct Counters {
    uint64_t steps = 0;
    uint64_t rescaled = 0;  // times that the base law was moved
  };

  explicit EngineMirror(Options options);

  Prediction Predict(const PredictQuery& query, Instant now);
  // As Predict answered, without the prior on load that only decisions are to see.
  Prediction Believed(Prediction p) const;
  EnqueueReply OnEnqueue(const EnqueueOrder& order, Instant now);
  void OnSent(const RequestMeta& request, bool streaming, Instant now);
  void OnOutput(RequestId request, int32_t chunks, Instant now);
  // exact: the engine's own count, otherwise estimated.
  void OnFinished(RequestId request, TokenCount output, bool exact, Instant now);
  // Taken back: cancelled or failed there.
  void OnGone(RequestId request, Instant now);
  // What the engine says of itself; 0: not said.
  void SetLimits(int64_t max_model_len, int64_t kv_blocks, int64_t block_tokens, Instant now);
  // It was restarted: what it held is gone.
  void OnRestart(Instant now);

  // Has its speed been seen?
  bool measured() const { return counters_.rescaled > 0 || decode_seen_ >= kLeastSeen; }
  StepTimeModel step_time() const { return step_time_; }
  const SimulatorCore& simulator() const { return *simulator_; }
  const StepInference& inference() const { return inference_; }
  const Counters& counters() const { return counters_; }
  Duration ttft_offset() const { return Duration::FromNanos(offset_ns_); }
  double load_prior() const { return 1 + kLoadPrior * static_cast<double>(held_.size()); }
  double tokens_per_chunk() const { return inference_.tokens_per_chunk(); }

 private:
  static constexpr uint64_t kLeastSeen = 6;
  static constexpr uint64_t kSettledSeen =
      200;  // once the base has moved some times: what it learns costs the mirror its memory
  // Every request there is believed to slow the others by at least this share. An engine that has only been seen under one load may
  // look as if load did not matter to it; without this, engines that are equal but for the noise in what was learnt of
  // them would not be loaded equally.
  static constexpr double kLoadPrior = 0.005;
  static constexpr double kOffsetLastsNs = 3e9;  // an engine that is left alone is taken to have got over its delay
  struct Held {
    Reservation reservation;
    int32_t cached = 0;
    double raw_ttft_ns = 0;  // predicted at its decision, without the offset
    Instant decided;
    bool sent = false, began = false;
  };

  void OnStep(BatchTrace& trace, bool measured) override;
  void RequestResync(InstanceId, Epoch, uint64_t, Instant) override {}  // nothing is lost between two functions
  void Stream(StreamBody body, Instant now);
  void Observe(const BatchTrace& trace);
  void Rescale(double decode_ratio, double prefill_ratio);
  void Rebuild(Instant now);
  std::unique_ptr<SimulatorCore> NewSimulator() const;
  Held* Find(RequestId request);

  Options options_;
  AffineStepTime::Coefficients base_;
  StepTimeModel step_time_;
  EngineConfig limits_;
  std::unique_ptr<SimulatorCore> simulator_;
  StepInference inference_;
  std::vector<Held> held_;  // in order of their decisions
  uint64_t seq_ = 0;
  uint64_t epoch_ = 1;
  Instant now_;  // of the call in progress
  // Means of ln(seen / base) of steps without and with prompts.
  double decode_log_ = 0, prefill_log_ = 0;
  uint64_t decode_seen_ = 0, prefill_seen_ = 0;
  bool rebuild_due_ = false;
  double offset_ns_ = 0;
  Instant offset_at_;  // when it was learnt last
  RequestId asked_;    // the last question, for the reservation that may follow it
  double asked_ttft_ns_ = 0;
  int32_t asked_cached_ = 0;
  Counters counters_;
};

}  // namespace foretoken
