#include "integration/eval/cell_log.h"

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

namespace foretoken {
namespace {

namespace json = boost::json;

// Absent if the line is not a whole JSON object.
std::optional<json::object> ObjectOf(const std::string& line) {
  boost::system::error_code error;
  json::value value = json::parse(line, error);
  if (error || !value.is_object()) return std::nullopt;
  return std::move(value.as_object());
}

}  // namespace

Status CellLog::Keep(const std::string& inputs_digest) {
  std::ifstream in(path_);
  std::string line;
  if (!in || !std::getline(in, line)) return Status();
  const std::optional<json::object> head = ObjectOf(line);
  const json::value* inputs = head ? head->if_contains("inputs") : nullptr;
  if (inputs == nullptr || !inputs->is_string() || inputs->as_string() != inputs_digest)
    return Error{path_ +
                 ": holds the cells of another experiment, size or version of its files: give another --out, or leave " +
                 "out --resume to start anew"};
  while (std::getline(in, line)) {
    std::optional<json::object> row = ObjectOf(line);
    if (!row || row->if_contains("key") == nullptr) continue;
    std::string key(row->at("key").as_string());
    rows_[std::move(key)] = std::move(*row);
  }
  return Status();
}

Status CellLog::Open(const std::string& path, const std::string& inputs_digest, bool resume) {
  path_ = path;
  if (resume)
    if (Status kept = Keep(inputs_digest); !kept.ok()) return kept;
  out_.open(path, std::ios::trunc);
  if (!out_) return Error{path + ": cannot write: " + std::strerror(errno)};
  out_ << json::object{{"inputs", inputs_digest}} << "\n";
  for (const auto& [key, row] : rows_) out_ << row << "\n";
  out_.flush();
  if (!out_) return Error{path + ": could not be written (is the disk full?)"};
  return Status();
}

Status CellLog::Add(json::object row) {
  out_ << row << "\n" << std::flush;
  std::string key(row.at("key").as_string());
  rows_[std::move(key)] = std::move(row);
  if (!out_) return Error{path_ + ": could not be written (is the disk full?)"};
  return Status();
}

}  // namespace foretoken
