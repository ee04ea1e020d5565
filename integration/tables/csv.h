// A comma-separated file with a header line, as measured tables come: no quoting. Columns are found by name; every error is
// "file:line:column: value, rule". Empty lines and lines that start with '#' are skipped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken::tables {

class Csv {
 public:
  // Error: no header, or a row with another number of cells than it.
  static Result<Csv> Parse(std::string_view text, std::string_view file_name);

  size_t rows() const { return rows_.size(); }
  const std::vector<std::string>& header() const { return header_; }
  // Index of a column. Error: names the columns there are.
  Result<size_t> Column(std::string_view name) const;
  bool Has(std::string_view name) const;
  std::string_view Cell(size_t row, size_t column) const { return rows_[row].cells[column].text; }
  // Error: not a finite number; not a whole number >= 0.
  Result<double> Number(size_t row, size_t column) const;
  Result<int64_t> Whole(size_t row, size_t column) const;
  Error At(size_t row, size_t column, const std::string& what) const;

 private:
  struct Piece {
    std::string text;
    size_t column = 1;  // 1-based
  };
  struct Row {
    size_t line = 0;
    std::vector<Piece> cells;
  };
  std::string file_;
  size_t header_line_ = 0;
  std::vector<std::string> header_;
  std::vector<Row> rows_;
};

// The content of a file. Error: its path and the reason.
Result<std::string> ReadTextFile(const std::string& path);
// Error: its path and the reason.
Status WriteTextFile(const std::string& path, std::string_view text);

}  // namespace foretoken::tables
