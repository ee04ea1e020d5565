// StepInference: the steps of an engine that reports none, as its streams give them away. Every running stream gets one token per step,
// so a step has ended when a stream speaks for the second time; requests that are answered in one piece are taken to move on with the
// steps that streams show, or at the expected pace where there are no streams. Pure: time comes in, steps go out.
//
// What it knows and what it guesses: when streams' tokens came is known to the network's jitter; which step took a prompt in is known
// to one step; the progress of one-piece answers is a guess that their usage corrects at their end; requests of others are not
// seen: they show as slower steps. One token of a stream may be ahead or behind: uncertainty() says how long that is.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/model/batch_trace.h"
#include "runtime/perf/step_time_model.h"

namespace foretoken {

class StepInference {
 public:
  class Sink {
   public:
    virtual ~Sink() = default;
    // measured: its duration was seen; otherwise it is what the law expects, and nothing is to be learnt from it.
    virtual void OnStep(BatchTrace& trace, bool measured) = 0;
  };
  struct Sent {
    RequestId request;
    int32_t prompt = 1;  // tokens
    int32_t cached = 0;  // of these, expected in the engine's prefix cache
    bool streaming = true;
  };
  struct Progress {
    RequestId request;
    int32_t prompt = 1;
    int32_t cached = 0;
    int32_t generated = 0;
    bool admitted = false;
  };

  void OnSent(const Sent& sent, Instant now);
  // `chunks` pieces of output of a stream.
  void OnOutput(RequestId request, int32_t chunks, Instant now, Sink& sink);
  // It ended with `output` tokens; exact: the engine's own count.
  void OnFinished(RequestId request, int32_t output, bool exact, Instant now, Sink& sink);
  void OnGone(RequestId request);
  // Ends what must have ended by now. `law`: what steps are expected to take.
  void Advance(Instant now, const StepTimeModel& law, Sink& sink);

  // Requests there, in order of their being sent.
  std::vector<Progress> Requests() const;
  int32_t live() const { return static_cast<int32_t>(live_.size()); }
  double tokens_per_chunk() const { return tokens_per_chunk_; }
  // How far a mirror fed by this may be behind: about a step.
  Duration uncertainty() const { return step_; }
  Instant last_end() const { return last_end_; }

 private:
  static constexpr int32_t kMostSteps = 64;  // that one closing may emit
  struct Live : Progress {
    Instant sent;
    bool streaming = true;
    bool in_group = false;
    bool done = false;
    int32_t seen = 0;  // tokens that came
    int32_t chunks = 0;
    int32_t output = 0;  // when done
  };

  Live* Find(RequestId request);
  void Erase(RequestId request);
  Duration Gap() const;
  void Close(Instant end, Sink& sink);
  int32_t StepsInGroup() const;
  void AdmitSilent();
  void EmitEnds(Instant at, Sink& sink);
  void Emit(int32_t index, Instant start, Duration duration, bool last, bool measured, Sink& sink);
  bool AnyStream() const { return streams_ > 0; }

  std::vector<Live> live_;  // in order of being sent
  int32_t streams_ = 0;
  std::vector<RequestId> admitted_now_;
  bool open_ = false;   // a step has begun to show
  Instant group_last_;  // latest sign of it
  Instant last_end_;    // of the step before
  Duration step_ = Duration::Millis(10);
  double tokens_per_chunk_ = 1;
  double pace_ = 1;  // of unseen steps, over what the law says
  uint64_t next_step_ = 0;
  BatchTrace trace_;  // reused
};

}  // namespace foretoken
