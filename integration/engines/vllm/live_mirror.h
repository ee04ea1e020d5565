// LiveMirror: the mirror of one live vLLM server on its plugin's stream, at sync level full. The stream is put in order (Sequencer), a
// shadow engine decides every step of it before it is read (LiveShadow), and the SIMULATOR's core follows it and predicts. Requests of
// other clients are modelled like ours. Pure: time comes in, what it asks of the server goes out through Effects.
//
// What the engine's stream does not show is learnt online, per server: how long a request takes from its being sent until the engine
// has it, and a token from the engine's result until it is here. Both are part of TTFT and E2E.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "integration/engines/openai/coarse_law.h"
#include "integration/engines/vllm/live_shadow.h"
#include "integration/engines/vllm/text_binding.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/prediction.h"
#include "runtime/model/stream_message.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/predict/simulator_core.h"
#include "runtime/sync/clock_map.h"
#include "runtime/sync/sequencer.h"

namespace foretoken {

class LiveMirror final : private Sequencer<StreamMessage>::Sink, private SimulatorEffects {
 public:
  struct Options {
    InstanceId instance;
    Slo slo;
    Duration stale_after = Duration::Seconds(2);  // heartbeats come four times a second
  };
  class Effects {
   public:
    virtual ~Effects() = default;
    // An exact snapshot is wanted: nothing from `from_seq` on is known for sure.
    virtual void RequestSnapshot(InstanceId instance, Epoch epoch, uint64_t from_seq) = 0;
  };
  struct Counters {
    uint64_t foreign = 0;           // requests of other clients
    uint64_t snapshots_asked = 0;   // for whatever reason
    uint64_t cached_predicted = 0;  // requests whose cached tokens were predicted, as the next two
    uint64_t cached_exact = 0;      // to the token
    double repair_s = 0;            // sum, and the longest: from losing the exact state to having it again
    double longest_repair_s = 0;
    uint64_t repairs = 0;
  };

  explicit LiveMirror(Options options);

  void OnMessage(StreamMessage message, Instant now, Effects& effects);
  void OnTimer(Instant now, Effects& effects);
  // The connection that it comes over has ended.
  void OnClosed() { open_ = false; }

  // Its stream is there and its state is known: it predicts, not the black box.
  bool live(Instant now) const { return open_ && simulator_ != nullptr && known_ && now - heard_ <= options_.stale_after; }
  Prediction Predict(const PredictQuery& query, Instant now);
  void OnEnqueue(const EnqueueOrder& order, Instant now);
  void OnSent(RequestId request, Instant now);
  void OnFirstToken(RequestId request, Instant now);
  void OnEnded(RequestId request, TokenCount output, Instant now);
  void OnGone(RequestId request, Instant now);

  const LiveShadow& shadow() const { return shadow_; }
  const SequencerCounters& sync() const { return sequencer_.counters(); }
  const Counters& counters() const { return counters_; }
  const SimulatorCore* simulator() const { return simulator_.get(); }
  const CoarseLaw& law() const { return law_; }
  Duration front_in() const { return Duration::FromNanos(front_in_ns_); }
  Duration front_out() const { return Duration::FromNanos(front_out_ns_); }
  const std::string& version() const { return version_; }

 private:
  // A request that we sent there, or are about to.
  struct Ours {
    Reservation reservation;
    std::vector<PromptSegment> text;
    Instant sent;  // Instant(): not yet
    bool ended_here = false, ended_there = false;
    Instant first_result;  // engine's time of its first token, mapped; Instant(): not yet
    Instant first_here;    // when that token came here; Instant(): not yet
    int64_t cached = -1;   // predicted; -1: not asked
    int64_t prompt = 0;    // as the engine counted
    std::vector<BlockHash> behind;
  };

  void Apply(StreamMessage& message) override;
  void ApplySnapshot(StreamMessage& message) override { Apply(message); }
  void EpochChanged(Epoch now) override;
  void RequestResync(Epoch epoch, uint64_t from_seq) override;
  void RequestResync(InstanceId, Epoch, uint64_t, Instant) override {}  // it gets nothing but what is in order

  void OnHello(const Hello& hello);
  void OnArrived(const Arrived& arrived);
  void OnStep(const BatchTrace& step);
  void Forward(StreamMessage& message);
  void Rebuild();
  void ForgetEnded(const Snapshot& snapshot);
  void EndThere(RequestId request, int64_t output);
  std::unique_ptr<SimulatorCore> NewSimulator() const;
  void Reserve(const Reservation& reservation);
  std::vector<PromptSegment> SegmentsOf(std::span<const BlockHash> blocks) const;
  Instant Here(Instant engine) const { return std::min(clock_.ToRouter(engine, now_), now_); }
  void LearnFront(Ours& ours);
  void NoteLevel();
  void Ask(uint64_t from_seq);

  Options options_;
  Sequencer<StreamMessage> sequencer_;
  LiveShadow shadow_;
  CoarseLaw law_;
  std::unique_ptr<SimulatorCore> simulator_;  // null before Hello
  std::unique_ptr<LengthEstimator> lengths_;  // for other clients' requests
  EngineConfig limits_;
  std::string version_;
  ClockMap clock_;
  TextBinding binding_;
  std::unordered_map<uint64_t, Ours> ours_;
  Effects* effects_ = nullptr;  // of the call in progress
  Instant now_;                 // of the call in progress
  Instant heard_, asked_, lost_at_, exact_since_;
  Duration ask_again_;
  bool open_ = false, known_ = false, exact_before_ = false, rebuild_due_ = false;
  uint64_t next_applied_ = 0;
  uint64_t forwarded_ = 0, epoch_ = 0;  // the simulator's own numbering
  double front_in_ns_ = 0, front_out_ns_ = 0;
  uint64_t front_in_seen_ = 0, front_out_seen_ = 0;
  RequestId asked_about_;
  int64_t asked_cached_ = -1;
  Counters counters_;
};

}  // namespace foretoken
