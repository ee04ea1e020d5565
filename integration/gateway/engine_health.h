// EngineHealth: whether one engine may be given requests, from what is seen of it: connections, answers, probes, silence. Pure:
// time comes in, no I/O.
//
//   serving --failure--> out --(back-off over)--> trial: one request at a time --success--> serving
//                         ^------------failure, longer back-off------------'
//
// An engine is put out at once by what says that it cannot serve (connection refused, died under a request, silent past its progress
// deadline) and by a run of 5xx answers. 4xx answers never count. A probe that is answered again after the engine was
// unreachable brings it back at once: it is another start of it. One that hung is tried with a token of the gateway's own, never
// with a user's request, which would wait for as long as it takes to see that it still hangs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "runtime/base/units.h"

namespace foretoken {

enum class EngineTrouble : uint8_t { kNone, kUnreachable, kCrashed, kErrors, kHung };

inline std::string_view TroubleName(EngineTrouble t) {
  switch (t) {
    case EngineTrouble::kNone: return "none";
    case EngineTrouble::kUnreachable: return "unreachable";
    case EngineTrouble::kCrashed: return "crashed";
    case EngineTrouble::kErrors: return "server errors";
    case EngineTrouble::kHung: return "hung";
  }
  return "none";
}

class EngineHealth {
 public:
  struct Options {
    Duration first_backoff = Duration::Millis(200);
    // Recovery is to be noticed within half a second, whatever has gone before.
    Duration longest_backoff = Duration::Millis(400);
    int32_t errors_in_row = 3;  // 5xx answers; one request that every engine chokes on must not put them all out
  };

  EngineHealth() : EngineHealth(Options()) {}
  explicit EngineHealth(Options options) : options_(options) {}

  // May a new request go there? With `out` engines: only as a trial.
  bool Usable(Instant now) const { return trouble_ == EngineTrouble::kNone || (CanTry() && !trial_ && now >= retry_at_); }
  bool serving() const { return trouble_ == EngineTrouble::kNone; }
  EngineTrouble trouble() const { return trouble_; }
  Instant retry_at() const { return retry_at_; }
  bool on_trial() const { return trial_; }
  uint64_t times_out() const { return times_out_; }

  // A request was sent there.
  void OnSent() {
    if (!serving()) trial_ = true;
  }
  // A trial ended without telling anything (the client left, a 4xx answer).
  void OnTrialVoid() { trial_ = false; }

  // True: it was out, and is back.
  bool OnGoodAnswer() {
    trial_ = false;
    errors_ = 0;
    backoff_ = Duration();
    const bool was_out = !serving();
    trouble_ = EngineTrouble::kNone;
    return was_out;
  }
  // True: it was serving, and is out.
  bool OnTrouble(EngineTrouble trouble, Instant now) {
    const bool was_serving = serving();
    if (was_serving && trouble == EngineTrouble::kErrors && ++errors_ < options_.errors_in_row) return false;
    trial_ = false;
    if (was_serving) ++times_out_;
    backoff_ = std::min(options_.longest_backoff, backoff_ == Duration() ? options_.first_backoff : backoff_ * 2);
    trouble_ = trouble;
    retry_at_ = now + backoff_;
    return was_serving;
  }
  // Its health endpoint answered well. True: it is back.
  bool OnProbeOk(Instant now) {
    if (trouble_ == EngineTrouble::kUnreachable || trouble_ == EngineTrouble::kCrashed) return OnGoodAnswer();
    return false;  // errors and hangs are of the part that its health does not show: a trial must
  }

 private:
  // Unreachable and hung engines are found again by probes, without risking a user's request; an error costs it a moment only.
  bool CanTry() const { return trouble_ == EngineTrouble::kErrors; }

  Options options_;
  EngineTrouble trouble_ = EngineTrouble::kNone;
  Instant retry_at_;
  Duration backoff_;
  bool trial_ = false;
  int32_t errors_ = 0;  // in a row
  uint64_t times_out_ = 0;
};

}  // namespace foretoken
