#include "integration/tables/csv.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>

namespace foretoken::tables {

Result<Csv> Csv::Parse(std::string_view text, std::string_view file_name) {
  Csv csv;
  csv.file_ = file_name;
  size_t line_number = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = std::min(text.find('\n', pos), text.size());
    std::string_view line = text.substr(pos, end - pos);
    pos = end + 1;
    ++line_number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    Row row{line_number, {}};
    for (size_t from = 0;;) {
      const size_t comma = std::min(line.find(',', from), line.size());
      row.cells.push_back({std::string(line.substr(from, comma - from)), from + 1});
      if (comma == line.size()) break;
      from = comma + 1;
    }
    if (csv.header_.empty()) {
      csv.header_line_ = line_number;
      for (Piece& p : row.cells) csv.header_.push_back(std::move(p.text));
      continue;
    }
    if (row.cells.size() != csv.header_.size()) {
      return Error{csv.file_ + ":" + std::to_string(line_number) + ":1: " + std::to_string(row.cells.size()) +
                   " values: the header has " + std::to_string(csv.header_.size()) + " columns"};
    }
    csv.rows_.push_back(std::move(row));
  }
  if (csv.header_.empty()) return Error{csv.file_ + ":1:1: empty: a header line is needed"};
  return csv;
}

bool Csv::Has(std::string_view name) const { return std::find(header_.begin(), header_.end(), name) != header_.end(); }

Result<size_t> Csv::Column(std::string_view name) const {
  const auto it = std::find(header_.begin(), header_.end(), name);
  if (it != header_.end()) return static_cast<size_t>(it - header_.begin());
  std::string all;
  for (const std::string& h : header_) all += (all.empty() ? "" : ", ") + h;
  return Error{file_ + ":" + std::to_string(header_line_) + ":1: column '" + std::string(name) +
               "' is missing; there are: " + all};
}

Error Csv::At(size_t row, size_t column, const std::string& what) const {
  return Error{file_ + ":" + std::to_string(rows_[row].line) + ":" + std::to_string(rows_[row].cells[column].column) + ": " +
               header_[column] + " = '" + rows_[row].cells[column].text + "': " + what};
}

Result<double> Csv::Number(size_t row, size_t column) const {
  const std::string& s = rows_[row].cells[column].text;
  double value = 0;
  const auto r = std::from_chars(s.data(), s.data() + s.size(), value);
  if (r.ec != std::errc() || r.ptr != s.data() + s.size() || !std::isfinite(value)) return At(row, column, "must be a number");
  return value;
}

Result<int64_t> Csv::Whole(size_t row, size_t column) const {
  const Result<double> value = Number(row, column);
  // Some exporters write whole numbers as 3.00.
  if (!value.ok() || *value < 0 || *value != std::floor(*value) || *value > 1e15) {
    return At(row, column, "must be a whole number >= 0");
  }
  return static_cast<int64_t>(*value);
}

Result<std::string> ReadTextFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{path + ": cannot be read (" + std::strerror(errno) + ")"};
  std::ostringstream text;
  text << in.rdbuf();
  if (in.bad() || (text.str().empty() && in.fail() && !in.eof() && in.peek() != EOF)) {
    return Error{path + ": cannot be read (" + std::strerror(errno) + ")"};
  }
  return text.str();
}

Status WriteTextFile(const std::string& path, std::string_view text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  if (!out) return Error{path + ": cannot be written (" + std::strerror(errno) + ")"};
  return {};
}

}  // namespace foretoken::tables
