// The text format of a step-time table (docs/step-time.md): provenance lines "# key: value", one header line of
// "name [unit]" columns, one row per measured step. Reading is strict: the grid must be complete and monotone.
// Pure: text in, value out; who opens the file is the caller's business.
#pragma once

#include <string>
#include <string_view>

#include "runtime/base/result.h"
#include "runtime/perf/step_time_table.h"

namespace foretoken {

// Error: one message "file_name:line:column: what was found, which rule it breaks".
Result<StepTimeTable> ParseStepTable(std::string_view text, std::string_view file_name);

// The figures alone: the grid is complete, but may fall along an axis (MakeMonotone repairs it). For importers.
Result<StepTableGrid> ParseStepTableGrid(std::string_view text, std::string_view file_name);

// The inverse of ParseStepTableGrid; times in microseconds, rounded to 0.01 us so that files are short.
std::string FormatStepTable(const StepTableGrid& grid);

}  // namespace foretoken
