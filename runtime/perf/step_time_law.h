// StepTimeLaw: how long one engine step takes, from its joint shape. Implementations: StepTimeTable (measured grids),
// AffineStepTime (four coefficients). A law is immutable and pure; what an instance adds to it (host overhead, calibration,
// noise) is in StepTimeModel.
#pragma once

#include <cstdint>
#include <limits>

namespace foretoken {

// The shape of one step, as in BatchTrace. Prefill and decode are joint: a mixed step is not the sum of a prefill and a
// decode step (29-34 % off, measured on two GPUs).
struct StepShape {
  int64_t prefill_tokens = 0;
  int64_t prefill_ctx = 0;  // mean tokens computed before this step's chunks, weighted by chunk, rounded
  int64_t decode_seqs = 0;
  int64_t decode_kv_tokens = 0;  // sum of the decode contexts, the new tokens included
};

// Pure-decode steps of a fixed number of sequences: piecewise linear in the KV tokens,
// nanoseconds = base_ns + per_kv_token_ns * kv, valid for kv_from <= kv < kv_until.
struct DecodeSegment {
  double base_ns = 0;
  double per_kv_token_ns = 0;
  int64_t kv_from = 0;
  int64_t kv_until = std::numeric_limits<int64_t>::max();
};

class StepTimeLaw {
 public:
  virtual ~StepTimeLaw() = default;
  // Nanoseconds of accelerator time; > 0 for a shape with any token, 0 for an empty one.
  virtual double NanosOf(const StepShape& shape) const = 0;
  // The linear piece around (decode_seqs, kv). NanosOf of a pure-decode shape equals its value, bit for bit.
  virtual DecodeSegment DecodeSegmentAt(int64_t decode_seqs, int64_t kv) const = 0;
};

// a + b * prefill_tokens + c * decode_seqs + d * (decode_kv_tokens + prefill_tokens + prefill_ctx), in nanoseconds.
class AffineStepTime final : public StepTimeLaw {
 public:
  struct Coefficients {
    double step_ns = 0;
    double prefill_token_ns = 0;
    double decode_seq_ns = 0;
    double kv_token_ns = 0;
  };
  explicit AffineStepTime(Coefficients c) : c_(c) {}
  double NanosOf(const StepShape& s) const override {
    if (s.prefill_tokens == 0) {
      if (s.decode_seqs == 0) return 0;
      const DecodeSegment seg = DecodeSegmentAt(s.decode_seqs, s.decode_kv_tokens);
      return seg.base_ns + seg.per_kv_token_ns * static_cast<double>(s.decode_kv_tokens);
    }
    return c_.step_ns + c_.prefill_token_ns * static_cast<double>(s.prefill_tokens) +
           c_.decode_seq_ns * static_cast<double>(s.decode_seqs) +
           c_.kv_token_ns * static_cast<double>(s.decode_kv_tokens + s.prefill_tokens + s.prefill_ctx);
  }
  DecodeSegment DecodeSegmentAt(int64_t decode_seqs, int64_t) const override {
    return {c_.step_ns + c_.decode_seq_ns * static_cast<double>(decode_seqs), c_.kv_token_ns};
  }

 private:
  Coefficients c_;
};

}  // namespace foretoken
