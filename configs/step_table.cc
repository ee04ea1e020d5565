#include "configs/step_table.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <vector>

#include "runtime/base/nearest_name.h"

namespace foretoken {
namespace {

struct Column {
  std::string_view name;
  std::string_view unit;  // of the four axes
};
constexpr std::array<Column, 5> kColumns = {{{"prefill_tokens", "tokens"},
                                             {"prefill_ctx", "tokens"},
                                             {"decode_seqs", "sequences"},
                                             {"decode_ctx", "tokens/sequence"},
                                             {"step_time", "us"}}};
constexpr size_t kTime = 4;
constexpr int64_t kMaxAxis = int64_t{1} << 39;

struct Cell {
  std::string_view text;
  size_t column = 1;  // 1-based, of its first character
};

// A row of the file: the four axes in the order of kColumns, and the time.
struct Row {
  std::array<int64_t, 4> at{};
  double ns = 0;
  size_t line = 0;
};

std::string_view Trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}

std::vector<Cell> SplitCells(std::string_view line) {
  std::vector<Cell> cells;
  size_t from = 0;
  while (true) {
    const size_t comma = std::min(line.find(',', from), line.size());
    const std::string_view raw = line.substr(from, comma - from);
    const std::string_view text = Trim(raw);
    cells.push_back({text, from + 1 + (text.empty() ? 0 : static_cast<size_t>(text.data() - raw.data()))});
    if (comma == line.size()) return cells;
    from = comma + 1;
  }
}

class Reader {
 public:
  Reader(std::string_view text, std::string_view file) : text_(text), file_(file) {}

  Result<StepTableGrid> Read() {
    for (std::string_view line; NextLine(line);) {
      if (Trim(line).empty()) continue;
      if (line.front() == '#') {
        ReadNote(line);
        continue;
      }
      if (Status s = header_read_ ? ReadRow(line) : ReadHeader(line); !s.ok()) return s.error();
    }
    if (!header_read_) return At(line_ + 1, 1, "no header line: expected " + HeaderLine());
    if (rows_.empty()) return At(line_ + 1, 1, "no rows: a table needs at least one measured step");
    return Build();
  }

  static std::string HeaderLine() {
    std::string s;
    for (const Column& c : kColumns) s += (s.empty() ? "" : ",") + std::string(c.name) + " [" + std::string(c.unit) + "]";
    return s;
  }

  Error At(size_t line, size_t column, const std::string& what) const {
    return Error{std::string(file_) + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + what};
  }

  size_t header_line() const { return header_line_; }

 private:
  bool NextLine(std::string_view& line) {
    if (pos_ >= text_.size()) return false;
    const size_t end = std::min(text_.find('\n', pos_), text_.size());
    line = text_.substr(pos_, end - pos_);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    pos_ = end + 1;
    ++line_;
    return true;
  }

  void ReadNote(std::string_view line) {
    line.remove_prefix(1);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return;  // free comment
    notes_.emplace_back(Trim(line.substr(0, colon)), Trim(line.substr(colon + 1)));
  }

  Status ReadHeader(std::string_view line) {
    header_read_ = true;
    header_line_ = line_;
    for (const Cell& cell : SplitCells(line)) {
      const size_t bracket = cell.text.find('[');
      const std::string_view name = Trim(cell.text.substr(0, bracket));
      const auto it = std::find_if(kColumns.begin(), kColumns.end(), [&](const Column& c) { return c.name == name; });
      if (it == kColumns.end()) {
        std::vector<std::string_view> names;
        for (const Column& c : kColumns) names.push_back(c.name);
        return At(line_, cell.column,
                  "column '" + std::string(name) + "': unknown; did you mean '" + NearestName(name, names) + "'?");
      }
      const size_t k = static_cast<size_t>(it - kColumns.begin());
      if (std::find(order_.begin(), order_.end(), k) != order_.end()) {
        return At(line_, cell.column, "column '" + std::string(name) + "' appears twice");
      }
      if (Status s = ReadUnit(cell, bracket, k); !s.ok()) return s;
      order_.push_back(k);
    }
    for (size_t k = 0; k < kColumns.size(); ++k) {
      if (std::find(order_.begin(), order_.end(), k) == order_.end()) {
        return At(line_, 1, "column '" + std::string(kColumns[k].name) + "' is missing: expected " + HeaderLine());
      }
    }
    return {};
  }

  Status ReadUnit(const Cell& cell, size_t bracket, size_t k) {
    if (bracket == std::string_view::npos || cell.text.back() != ']') {
      return At(line_, cell.column,
                "column '" + std::string(cell.text) + "' has no unit: expected '" + std::string(kColumns[k].name) + " [" +
                    std::string(kColumns[k].unit) + "]'");
    }
    const std::string_view unit = Trim(cell.text.substr(bracket + 1, cell.text.size() - bracket - 2));
    if (k != kTime && unit == kColumns[k].unit) return {};
    if (k == kTime) {
      for (const auto& [name, ns] : {std::pair<std::string_view, double>{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}}) {
        if (unit != name) continue;
        time_unit_ns_ = ns;
        return {};
      }
    }
    return At(line_, cell.column + bracket + 1,
              "unit '" + std::string(unit) + "' of " + std::string(kColumns[k].name) + ": must be " +
                  (k == kTime ? "ns, us, ms or s" : std::string(kColumns[k].unit)));
  }

  Status ReadRow(std::string_view line) {
    const std::vector<Cell> cells = SplitCells(line);
    if (cells.size() != order_.size()) {
      return At(line_, 1,
                std::to_string(cells.size()) + " values: the header has " + std::to_string(order_.size()) + " columns");
    }
    Row row;
    row.line = line_;
    std::array<size_t, 5> column{};
    for (size_t i = 0; i < cells.size(); ++i) {
      const Cell& cell = cells[i];
      const size_t k = order_[i];
      column[k] = cell.column;
      const char* end = cell.text.data() + cell.text.size();
      const std::string shown = std::string(kColumns[k].name) + " = '" + std::string(cell.text) + "'";
      if (k == kTime) {
        double value = 0;
        const auto r = std::from_chars(cell.text.data(), end, value);
        if (r.ec != std::errc() || r.ptr != end || !std::isfinite(value) || value <= 0) {
          return At(line_, cell.column, shown + ": must be a number > 0");
        }
        row.ns = value * time_unit_ns_;
      } else {
        const auto r = std::from_chars(cell.text.data(), end, row.at[k]);
        if (r.ec != std::errc() || r.ptr != end || row.at[k] < 0 || row.at[k] > kMaxAxis) {
          return At(line_, cell.column, shown + ": must be a whole number from 0 to 2^39");
        }
      }
    }
    return CheckRow(row, column);
  }

  Status CheckRow(const Row& row, const std::array<size_t, 5>& column) {
    const auto& [p, x, d, c] = row.at;
    if (p == 0 && d == 0) return At(line_, column[0], "prefill_tokens = 0 beside decode_seqs = 0: an empty step has no time");
    if (p == 0 && x > 0) return At(line_, column[1], "prefill_ctx = " + std::to_string(x) + " without a prefill: must be 0");
    if (d == 0 && c > 0) return At(line_, column[3], "decode_ctx = " + std::to_string(c) + " without a decode: must be 0");
    if (d > 0 && c == 0)
      return At(line_, column[3], "decode_ctx = 0 beside decode_seqs = " + std::to_string(d) + ": must be >= 1");
    if (d > 0 && x > 0) {
      return At(line_, column[1],
                "prefill_ctx = " + std::to_string(x) + " beside decode_seqs = " + std::to_string(d) +
                    ": rows with a context before the chunk have no decodes");
    }
    const auto [it, fresh] = seen_.emplace(row.at, row.line);
    if (!fresh) return At(line_, 1, "the same step as line " + std::to_string(it->second) + ": each step has one row");
    rows_.push_back(row);
    return {};
  }

  Result<StepTableGrid> Build() const {
    std::array<std::set<int64_t>, 4> axes;
    axes[0].insert(0);
    axes[1].insert(0);
    for (const Row& row : rows_) {
      for (size_t k = 0; k < 4; ++k) {
        if (k < 2 || row.at[k] > 0) axes[k].insert(row.at[k]);
      }
    }
    if (axes[2].empty()) return At(rows_.back().line, 1, "no row with decode_seqs >= 1: a table needs decode steps");
    StepTableGrid grid;
    grid.notes = notes_;
    std::vector<int64_t>* targets[] = {&grid.prefill_tokens, &grid.prefill_ctx, &grid.decode_seqs, &grid.decode_ctx};
    for (size_t k = 0; k < 4; ++k) targets[k]->assign(axes[k].begin(), axes[k].end());
    std::map<std::array<int64_t, 4>, double> values;
    for (const Row& row : rows_) values[row.at] = row.ns;
    std::optional<std::array<int64_t, 4>> missing;
    const auto take = [&](std::array<int64_t, 4> at) {
      const auto it = values.find(at);
      if (it == values.end() && !missing) missing = at;
      return it == values.end() ? 0.0 : it->second;
    };
    for (int64_t p : grid.prefill_tokens) {
      for (int64_t d : grid.decode_seqs) {
        for (int64_t c : grid.decode_ctx) grid.mixed_ns.push_back(take({p, 0, d, c}));
      }
      for (int64_t x : grid.prefill_ctx) grid.alone_ns.push_back(p == 0 ? 0.0 : take({p, x, 0, 0}));
    }
    if (missing) {
      std::string what = "no row for";
      for (size_t k = 0; k < 4; ++k)
        what += " " + std::string(kColumns[k].name) + " " + std::to_string((*missing)[k]) + (k < 3 ? "," : "");
      return At(rows_.back().line, 1, what + ": the grid must be complete");
    }
    return grid;
  }

  std::string_view text_;
  std::string_view file_;
  size_t pos_ = 0;
  size_t line_ = 0;
  bool header_read_ = false;
  size_t header_line_ = 0;
  double time_unit_ns_ = 1e3;
  std::vector<size_t> order_;  // index into kColumns of each column of the file
  std::vector<Row> rows_;
  std::map<std::array<int64_t, 4>, size_t> seen_;  // to its line
  std::vector<std::pair<std::string, std::string>> notes_;
};

}  // namespace

Result<StepTableGrid> ParseStepTableGrid(std::string_view text, std::string_view file_name) {
  return Reader(text, file_name).Read();
}

Result<StepTimeTable> ParseStepTable(std::string_view text, std::string_view file_name) {
  Reader reader(text, file_name);
  Result<StepTableGrid> grid = reader.Read();
  if (!grid.ok()) return grid.error();
  Result<StepTimeTable> table = StepTimeTable::Make(std::move(*grid));
  if (!table.ok()) return reader.At(reader.header_line(), 1, table.error().message);
  return table;
}

std::string FormatStepTable(const StepTableGrid& grid) {
  std::string out;
  for (const auto& [key, value] : grid.notes) out += "# " + key + ": " + value + "\n";
  out += Reader::HeaderLine() + "\n";
  const auto row = [&out](int64_t p, int64_t x, int64_t d, int64_t c, double ns) {
    char time[32];
    std::snprintf(time, sizeof time, "%.2f", ns / 1e3);
    std::string_view shown = time;
    while (shown.back() == '0') shown.remove_suffix(1);
    if (shown.back() == '.') shown.remove_suffix(1);
    for (int64_t v : {p, x, d, c}) out += std::to_string(v) + ",";
    out += std::string(shown) + "\n";
  };
  for (size_t p = 0; p < grid.prefill_tokens.size(); ++p) {
    for (size_t x = 0; p > 0 && x < grid.prefill_ctx.size(); ++x) {
      row(grid.prefill_tokens[p], grid.prefill_ctx[x], 0, 0, grid.alone_ns[grid.AloneIndex(p, x)]);
    }
    for (size_t d = 0; d < grid.decode_seqs.size(); ++d) {
      for (size_t c = 0; c < grid.decode_ctx.size(); ++c) {
        row(grid.prefill_tokens[p], 0, grid.decode_seqs[d], grid.decode_ctx[c], grid.mixed_ns[grid.MixedIndex(p, d, c)]);
      }
    }
  }
  return out;
}

}  // namespace foretoken
