// ProfileStepLaw: a whole-step law from per-layer measurements: layers whose time depends on the tokens in the step (matrix
// products, norms), layers whose time depends on the sampled sequences (lm_head, sampler), and attention measured jointly for
// a chunk beside decodes. All figures are of the whole model already (layers x layer count).
// Guarantees: immutable, pure; the sum of the measured parts at measured points. Not contained: host time between steps.
// Token-wise layers follow the measured staircase: a kernel's tiles (and a CUDA graph's captured sizes) round up to the next
// size, so the next measured token count is taken, not a line between two. Attention is multilinear between its points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {

// Axes ascend strictly; times in nanoseconds of one step.
struct LayerProfile {
  std::vector<int64_t> tokens;  // of the step
  std::vector<double> token_ns;
  std::vector<int64_t> sequences;  // that sample
  std::vector<double> sequence_ns;
  // Joint attention [chunk][kv_prefill][decode_seqs][kv_decode]. The first chunk and decode_seqs are 0: decodes alone (any
  // kv_prefill), a chunk alone (any kv_decode).
  std::vector<int64_t> chunk, kv_prefill, decode_seqs, kv_decode;
  std::vector<double> attention_ns;

  size_t AttentionIndex(size_t p, size_t k, size_t n, size_t c) const {
    return ((p * kv_prefill.size() + k) * decode_seqs.size() + n) * kv_decode.size() + c;
  }
};

// What StepShape sums up: every chunk and every decode of a step.
struct StepComposition {
  struct Chunk {
    int64_t tokens = 0;
    int64_t computed = 0;  // before it
    bool samples = false;
  };
  std::vector<Chunk> chunks;
  std::vector<int64_t> decode_ctx;  // tokens, the new one included
  StepShape Shape() const;
};

class ProfileStepLaw final : public StepTimeLaw {
 public:
  // Error: an axis or a number of values that does not fit; names it.
  static Result<ProfileStepLaw> Make(LayerProfile profile);

  // Chunks are taken as one, contexts as equal (that is all a shape says); a step with a chunk samples one sequence of it.
  double NanosOf(const StepShape& shape) const override;
  DecodeSegment DecodeSegmentAt(int64_t decode_seqs, int64_t kv) const override;
  // The same for the exact composition: each chunk's own attention, each decode at the cost of its own context, and the wait
  // for the longest one.
  double NanosOf(const StepComposition& step) const;

 private:
  explicit ProfileStepLaw(LayerProfile profile) : p_(std::move(profile)) {}
  double TokenNanos(int64_t tokens) const;
  double SequenceNanos(int64_t sequences) const;
  double ChunkAlone(double tokens, double ctx) const;
  // Attention over the kv_decode axis for a fixed chunk and number of decodes.
  void AttentionRow(double tokens, double ctx, double seqs, std::vector<double>& row) const;

  LayerProfile p_;
};

}  // namespace foretoken
