#include "integration/engines/openai/coarse_law.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace foretoken {
namespace {

// A mid-sized model on a data-centre GPU: 8 ms a step, 20,000 prompt tokens a second. Where an engine is not of that kind, strides
// of the base bring the calibrator (a factor of 4 either way) to it within some steps.
constexpr AffineStepTime::Coefficients kGeneric{8e6, 5e4, 5e4, 50};
constexpr double kStrideAbove = 2.2;
constexpr double kPromptStrideAbove = 3.2;  // what a prompt cost is known less well: only a step's surplus shows it
constexpr int32_t kLeastPrompt = 16;        // tokens in a step, to learn from its prompts

}  // namespace

CoarseLaw::CoarseLaw() : base_(kGeneric) { model_.law = std::make_shared<AffineStepTime>(base_); }

bool CoarseLaw::Observe(const BatchTrace& t) {
  const AffineStepTime law(base_);
  const double seen = static_cast<double>(t.duration.nanos());
  if (seen <= 0) return false;
  const StepShape shape{t.prefill_tokens, t.prefill_ctx_tokens, t.decode_seqs, t.decode_kv_tokens};
  if (t.prefill_tokens == 0 && t.decode_seqs > 0) {
    ++decode_seen_;
    decode_log_ +=
        (std::log(seen / law.NanosOf(shape)) - decode_log_) / static_cast<double>(std::min<uint64_t>(decode_seen_, 16));
  } else if (t.prefill_tokens >= kLeastPrompt) {
    StepShape rest = shape;
    rest.prefill_tokens = rest.prefill_ctx = 0;
    if (rest.decode_seqs == 0) rest.decode_seqs = 1;
    const double for_prompt = seen - law.NanosOf(rest) * std::exp(decode_log_);
    const double expected = law.NanosOf(shape) - law.NanosOf(rest);
    ++prefill_seen_;
    const double ratio = std::log(std::clamp(for_prompt / std::max(expected, 1.0), 0.02, 1e4));
    prefill_log_ += (ratio - prefill_log_) / static_cast<double>(std::min<uint64_t>(prefill_seen_, 16));
  }
  const double stride = std::log(kStrideAbove);
  const uint64_t least = moved_ < 4 ? kLeastSeen : kSettledSeen;
  const bool decode_off = decode_seen_ >= least && std::abs(decode_log_) > stride;
  const bool prefill_off = prefill_seen_ >= least && std::abs(prefill_log_) > std::log(kPromptStrideAbove);
  if (!decode_off && !prefill_off) return false;
  Move(decode_off ? std::exp(decode_log_) : 1, prefill_off ? std::exp(prefill_log_) : 1);
  return true;
}

void CoarseLaw::Move(double decode_ratio, double prefill_ratio) {
  base_.step_ns = std::clamp(base_.step_ns * decode_ratio, 1e4, 1e11);
  base_.decode_seq_ns = std::clamp(base_.decode_seq_ns * decode_ratio, 1e1, 1e10);
  base_.kv_token_ns = std::clamp(base_.kv_token_ns * decode_ratio, 1e-3, 1e7);
  base_.prefill_token_ns = std::clamp(base_.prefill_token_ns * prefill_ratio, 1e1, 1e9);
  if (decode_ratio != 1) decode_log_ = 0, decode_seen_ = 0;
  if (prefill_ratio != 1) prefill_log_ = 0, prefill_seen_ = 0;
  model_.law = std::make_shared<AffineStepTime>(base_);
  ++moved_;
}

}  // namespace foretoken
