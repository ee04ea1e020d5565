// EngineMirror: the mirror of one engine, fed by what passes through the gateway: what was sent to it and when, when output came, when
// requests ended. StepInference makes steps of that, the SIMULATOR's core follows them as it follows a real engine's, at state level
// `inferred`. While the engine's own stream is there (LiveMirror) predictions are made from that instead; both are kept up to
// date, so that either takes over at once. Pure: time comes in.
//
// The engine's speed is learnt from nothing (CoarseLaw), then corrected online by the calibrator; what remains of the first
// token's error is learnt as an offset.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "integration/engines/openai/coarse_law.h"
#include "integration/engines/openai/step_inference.h"
#include "integration/engines/vllm/live_mirror.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/request.h"
#include "runtime/perf/step_time_model.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/predict/simulator_core.h"

namespace foretoken {

std::string_view NameOf(StateLevel level);

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

  // A message of the engine's own stream.
  void OnStream(StreamMessage message, Instant now, LiveMirror::Effects& effects);
  void OnStreamClosed() {
    if (live_ != nullptr) live_->OnClosed();
  }
  void OnTimer(Instant now, LiveMirror::Effects& effects) {
    if (live_ != nullptr) live_->OnTimer(now, effects);
  }

  // Has its speed been seen?
  bool measured() const { return law_.measured() || (live_ != nullptr && live_->law().measured()); }
  StepTimeModel step_time() const { return live_ != nullptr && live_->law().measured() ? live_->law().model() : law_.model(); }
  // Grows whenever step_time() may answer otherwise.
  uint64_t laws() const { return law_.moved() + (live_ == nullptr ? 0 : live_->law().moved() + live_->law().measured()); }
  // Null: it has never had a stream.
  const LiveMirror* live() const { return live_.get(); }
  bool follows_stream(Instant now) const { return live_ != nullptr && live_->live(now); }
  StateLevel level(Instant now) const { return follows_stream(now) ? live_->shadow().level() : StateLevel::kInferred; }
  const SimulatorCore& simulator() const { return *simulator_; }
  const StepInference& inference() const { return inference_; }
  const Counters& counters() const { return counters_; }
  Duration ttft_offset() const { return Duration::FromNanos(offset_ns_); }
  double load_prior() const { return 1 + kLoadPrior * static_cast<double>(held_.size()); }
  double tokens_per_chunk() const { return inference_.tokens_per_chunk(); }

 private:
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
  void Rebuild(Instant now);
  std::unique_ptr<SimulatorCore> NewSimulator() const;
  Held* Find(RequestId request);

  Options options_;
  CoarseLaw law_;
  EngineConfig limits_;
  std::unique_ptr<SimulatorCore> simulator_;
  std::unique_ptr<LiveMirror> live_;  // null until a stream comes
  StepInference inference_;
  std::vector<Held> held_;  // in order of their decisions
  uint64_t seq_ = 0;
  uint64_t epoch_ = 1;
  Instant now_;  // of the call in progress
  bool rebuild_due_ = false;
  double offset_ns_ = 0;
  Instant offset_at_;  // when it was learnt last
  RequestId asked_;    // the last question, for the reservation that may follow it
  double asked_ttft_ns_ = 0;
  int32_t asked_cached_ = 0;
  Counters counters_;
};

}  // namespace foretoken
