// The default step-time tables that the program carries with it: the files of configs/tables, name without ".csv".
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace foretoken {

struct EmbeddedTable {
  std::string_view name;  // "h100-llama-3.1-8b"
  std::string_view text;  // as ParseStepTable reads it
};

// Sorted by name.
std::span<const EmbeddedTable> EmbeddedTables();
// The text of the table with this name; absent: there is none.
std::optional<std::string_view> EmbeddedTableText(std::string_view name);

}  // namespace foretoken
