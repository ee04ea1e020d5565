// Importer of the NVIDIA whole-step tables (columns prefill_tokens, prefill_ctx, decode_count, decode_ctx, ..., step_ms) and
// thinning of a grid to the figures that matter. Their source, licence and copyright lines travel in the notes.
#pragma once

#include <string_view>

#include "runtime/base/result.h"
#include "runtime/perf/step_time_table.h"

namespace foretoken::tables {

struct SiliconImport {
  StepTableGrid grid;       // monotone
  int64_t changed = 0;      // values that were moved to make it so
  double largest_move = 0;  // relative
  // Rows with a context before the chunk *and* decodes are not stored: the table adds the context's cost. Its error on them,
  // relative to the figure in the file.
  int64_t left_out = 0;
  double left_out_mean_error = 0, left_out_max_error = 0;
};

// `index_json` is the text of the index beside the table ("" if there is none): GPU, model, KV capacity.
Result<SiliconImport> ImportSilicon(std::string_view text, std::string_view file_name, std::string_view index_json);

// Error of a table against the measured steps of another one, relative, over its grid points.
struct TableError {
  double mean = 0, p99 = 0, max = 0;
};
TableError CompareToGrid(const StepTimeTable& table, const StepTableGrid& reference, int64_t kv_capacity_tokens);

// Drops axis points, the least harmful first, while the mean error against the full grid stays <= mean_error and the largest
// <= max_error, over the steps that fit into kv_capacity_tokens (0: all of them). End points stay.
StepTableGrid Thin(const StepTableGrid& full, double mean_error, double max_error, int64_t kv_capacity_tokens);

}  // namespace foretoken::tables
