// Fits a step-time law to records of executed steps: four affine coefficients, or a monotone grid by penalised least squares.
// Errors count relative to the measured time; records far from their neighbours (stalls, idle gaps) are dropped and counted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/perf/step_time_law.h"
#include "runtime/perf/step_time_table.h"

namespace foretoken::tables {

struct StepRecord {
  StepShape shape;
  double ns = 0;
};

// CSV with the columns prefill_tokens, decode_seqs, decode_kv_tokens, duration_us and, if known, prefill_ctx; BLIS's names
// (batch.prefill_tokens, batch.num_decode_reqs, kv_tok: all KV tokens, dt_us) are known too. Rows without a time are skipped.
// Or a batch trace in JSON Lines: a live recorder's ("dur" in ns, "items") or the `engine` command's ("start", "end", "items").
Result<std::vector<StepRecord>> ReadStepRecords(std::string_view text, std::string_view file_name);

// Removes records whose time is off the median of the 15 nearest in shape by more than 10 %. Returns how many.
size_t DropOutliers(std::vector<StepRecord>& records);

Result<AffineStepTime::Coefficients> FitAffine(const std::vector<StepRecord>& records);
// Error: too few records, or none with decodes.
Result<StepTableGrid> FitTable(const std::vector<StepRecord>& records);

// Mean of |predicted / measured - 1|.
double MeanError(const StepTimeLaw& law, const std::vector<StepRecord>& records);

enum class FitKind : uint8_t { kTable, kAffine };
// Cross-validation: the mean error on each of `folds` parts under the law fitted to the others. The parts are drawn with `seed`.
Result<std::vector<double>> CrossValidate(const std::vector<StepRecord>& records, FitKind kind, size_t folds, uint64_t seed);

}  // namespace foretoken::tables
