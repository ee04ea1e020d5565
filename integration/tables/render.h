// A table for people and for programs: terminal heat maps, a self-contained HTML page, JSON.
#pragma once

#include <string>
#include <string_view>

#include "runtime/perf/step_time_table.h"

namespace foretoken::tables {

// Two maps in milliseconds: decode sequences x context of each (no prefill), prefill tokens x decode sequences (at one context).
// The numbers are readable without colour.
std::string TableText(const StepTimeTable& table, bool colour);
std::string TableHtml(const StepTimeTable& table, std::string_view title);
std::string TableJson(const StepTimeTable& table);

}  // namespace foretoken::tables
