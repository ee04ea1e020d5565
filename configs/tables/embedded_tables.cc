#include "configs/tables/embedded_tables.h"

namespace foretoken {

// Defined by the generated embedded_tables_data.cc.
extern const EmbeddedTable* const kEmbeddedTables;
extern const unsigned kEmbeddedTableCount;

std::span<const EmbeddedTable> EmbeddedTables() { return {kEmbeddedTables, kEmbeddedTableCount}; }

std::optional<std::string_view> EmbeddedTableText(std::string_view name) {
  for (const EmbeddedTable& table : EmbeddedTables()) {
    if (table.name == name) return table.text;
  }
  return std::nullopt;
}

}  // namespace foretoken
