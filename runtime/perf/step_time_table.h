// StepTimeTable: a measured grid of step times as a law. Axes: new prompt tokens, context before the chunk, decoding
// sequences and context per decoding sequence (KV tokens / sequences).
// Guarantees: immutable and pure; hits its grid points; never falls when prefill_tokens, prefill_ctx, decode_kv_tokens (at
// fixed decode_seqs) or decode_seqs (at fixed context per sequence) grow; > 0 for every non-empty shape; allocation-free.
// At a fixed *total* of KV tokens a time may fall when decode_seqs grows: one long sequence keeps fewer units of a GPU busy
// than two half as long, and tables show it.
// A chunk's context costs extra(prefill_tokens, prefill_ctx) on top of the step without it, whatever decodes beside it; in the
// 34 NVIDIA tables that were checked this holds to the last digit.
// Beyond the grid it goes on linearly along the last segment; Evaluate says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {

// The figures of a table. Axes ascend strictly. Times in nanoseconds.
struct StepTableGrid {
  std::vector<int64_t> prefill_tokens;  // the first is 0: pure decode
  std::vector<int64_t> prefill_ctx;     // the first is 0
  std::vector<int64_t> decode_seqs;     // >= 1
  std::vector<int64_t> decode_ctx;      // tokens per sequence, the new one included; >= 1
  std::vector<double> mixed_ns;         // [prefill_tokens][decode_seqs][decode_ctx], prefill_ctx 0
  std::vector<double> alone_ns;         // [prefill_tokens][prefill_ctx], no decodes; row 0 (an empty step) is not read
  // Provenance and what else a file says about itself: source, license, gpu, model, kv_capacity_tokens, ...
  std::vector<std::pair<std::string, std::string>> notes;

  size_t MixedIndex(size_t p, size_t d, size_t c) const { return (p * decode_seqs.size() + d) * decode_ctx.size() + c; }
  size_t AloneIndex(size_t p, size_t x) const { return p * prefill_ctx.size() + x; }
  bool operator==(const StepTableGrid&) const = default;
};

// Makes a grid monotone along every axis by moving each value to the middle between the smallest monotone surface above
// the data and the largest one below it, the choice with the least largest change. Returns how many values it changed.
int64_t MakeMonotone(StepTableGrid& grid);

class StepTimeTable final : public StepTimeLaw {
 public:
  struct Value {
    double ns = 0;
    bool extrapolated = false;  // outside the measured grid along some axis
  };

  // Error: an axis that does not ascend, a wrong number of values, a time that is not > 0 and finite, or a time that falls
  // along an axis (MakeMonotone repairs that); names the first.
  static Result<StepTimeTable> Make(StepTableGrid grid);

  double NanosOf(const StepShape& shape) const override;
  DecodeSegment DecodeSegmentAt(int64_t decode_seqs, int64_t kv) const override;
  // NanosOf, and whether the shape lies outside the grid.
  Value Evaluate(const StepShape& shape) const;

  const StepTableGrid& grid() const { return grid_; }
  // The value of a note ("gpu", "model", ...); absent: not said.
  std::optional<std::string_view> Note(std::string_view key) const;

 private:
  // One axis with the points added at its ends, so that every query lies in a cell.
  struct Axis {
    std::vector<double> at;
    std::vector<double> inverse_width;  // of the cell that starts at the point
    explicit Axis(const std::vector<int64_t>& points);
    size_t CellOf(double x) const;
    double WeightOf(double x, size_t cell) const { return (x - at[cell]) * inverse_width[cell]; }
  };

  explicit StepTimeTable(StepTableGrid grid);
  void FillMixed();
  void FillAlone();
  void FillExtra();
  bool Outside(const StepShape& shape) const;
  double MixedNanos(const StepShape& shape) const;
  double AloneNanos(double prefill_tokens) const;
  double ExtraNanos(const StepShape& shape) const;
  size_t Mixed(size_t p, size_t d, size_t c) const { return (p * d_.at.size() + d) * c_.at.size() + c; }

  StepTableGrid grid_;
  Axis p_, x_, d_, c_;
  std::vector<double> mixed_;  // [p_][d_][c_]
  std::vector<double> alone_;  // [p_]
  std::vector<double> extra_;  // [p_][x_]
};

}  // namespace foretoken
