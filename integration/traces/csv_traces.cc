// Azure's and BurstGPT's CSV files. Columns are found by the header's names.
#include <algorithm>
#include <array>
#include <optional>

#include "integration/traces/text_number.h"
#include "integration/traces/trace_builder.h"

namespace foretoken::traces {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;

// Days from 1970-01-01 in the Gregorian calendar (H. Hinnant's chrono algorithms).
int64_t DaysFromCivil(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2;
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t year_of_era = year - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

bool Digits(std::string_view text, size_t at, size_t count, int64_t& out) {
  if (text.size() < at + count) return false;
  out = 0;
  for (const char c : text.substr(at, count)) {
    if (c < '0' || c > '9') return false;
    out = out * 10 + (c - '0');
  }
  return true;
}

int64_t DaysInMonth(int64_t year, int64_t month) {
  if (month == 2) return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 29 : 28;
  return month == 4 || month == 6 || month == 9 || month == 11 ? 30 : 31;
}

// "2023-11-16 18:15:46.6805900", with up to 9 digits of a second and an optional "+hh:mm" or "Z" behind, as ns since 1970.
std::optional<int64_t> ParseTimestamp(std::string_view text) {
  int64_t year, month, day, hour, minute, second;
  const bool read = Digits(text, 0, 4, year) && Digits(text, 5, 2, month) && Digits(text, 8, 2, day) &&
                    Digits(text, 11, 2, hour) && Digits(text, 14, 2, minute) && Digits(text, 17, 2, second);
  if (!read || text[4] != '-' || text[7] != '-' || (text[10] != ' ' && text[10] != 'T') || text[13] != ':' || text[16] != ':')
    return std::nullopt;
  if (year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 || day > DaysInMonth(year, month) || hour > 23 ||
      minute > 59 || second > 59)
    return std::nullopt;
  int64_t nanos = 0;
  size_t i = 19;
  if (i < text.size() && text[i] == '.') {
    int64_t unit = kNanosPerSecond;
    for (++i; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i) {
      unit /= 10;
      if (unit == 0) return std::nullopt;
      nanos += (text[i] - '0') * unit;
    }
    if (unit == kNanosPerSecond) return std::nullopt;
  }
  int64_t offset_minutes = 0;
  const std::string_view zone = text.substr(i);
  if (!zone.empty() && zone != "Z") {
    int64_t hours, minutes;
    if (zone.size() != 6 || (zone[0] != '+' && zone[0] != '-') || zone[3] != ':' || !Digits(zone, 1, 2, hours) ||
        !Digits(zone, 4, 2, minutes))
      return std::nullopt;
    offset_minutes = (zone[0] == '-' ? -1 : 1) * (hours * 60 + minutes);
  }
  const int64_t seconds = ((DaysFromCivil(year, month, day) * 24 + hour) * 60 + minute - offset_minutes) * 60 + second;
  return seconds * kNanosPerSecond + nanos;
}

// A line cut at its commas. These formats quote nothing.
struct Cells {
  static constexpr size_t kMost = 32;
  std::array<std::string_view, kMost> text;
  size_t count = 0;
  void Cut(std::string_view line) {
    count = 0;
    for (size_t begin = 0; count < kMost; ++count) {
      const size_t comma = line.find(',', begin);
      text[count] = line.substr(begin, comma - begin);
      if (comma == std::string_view::npos) {
        ++count;
        return;
      }
      begin = comma + 1;
    }
  }
  // 1-based column in bytes of a cell.
  size_t ColumnOf(size_t cell, std::string_view line) const { return static_cast<size_t>(text[cell].data() - line.data()) + 1; }
};

class CsvReader {
 public:
  CsvReader(TextSource& source, TraceFormat format, const LoadTraceOptions& options)
      : source_(source), format_(format), builder_(source.path(), options, false) {}

  Result<LoadedTrace> Read() {
    if (const Status s = Header(); !s.ok()) return s.error();
    std::string_view line;
    while (!builder_.full()) {
      const Result<bool> more = source_.Next(line);
      if (!more.ok()) return more.error();
      if (!*more) break;
      if (line.empty()) continue;
      if (const Status s = Row(line); !s.ok()) return s.error();
    }
    return builder_.Finish(format_);
  }

 private:
  Status Header() {
    std::string_view line;
    if (const Result<bool> more = source_.Next(line); !more.ok()) return more.error();
    if (line.substr(0, 3) == "\xEF\xBB\xBF") line.remove_prefix(3);
    cells_.Cut(line);
    columns_ = cells_.count;
    const bool azure = format_ == TraceFormat::kAzure;
    const std::array<std::string_view, 3> names =
        azure ? std::array<std::string_view, 3>{"TIMESTAMP", "ContextTokens", "GeneratedTokens"}
              : std::array<std::string_view, 3>{"Timestamp", "Request tokens", "Response tokens"};
    for (size_t k = 0; k < names.size(); ++k) {
      const auto end = cells_.text.begin() + static_cast<std::ptrdiff_t>(cells_.count);
      const auto found = std::find(cells_.text.begin(), end, names[k]);
      if (found == end) return builder_.At(source_.line(), 1, line, "has no column \"" + std::string(names[k]) + "\"");
      wanted_[k] = static_cast<size_t>(found - cells_.text.begin());
    }
    return {};
  }

  Status Row(std::string_view line) {
    cells_.Cut(line);
    if (cells_.count != columns_) {
      return builder_.At(source_.line(), line.size() + 1, line,
                         "has " + std::to_string(cells_.count) + " cells; the header names " + std::to_string(columns_));
    }
    int64_t at = 0, prompt = 0, output = 0;
    if (const Status s = Arrival(line, at); !s.ok()) return s;
    if (const Status s = Tokens(line, wanted_[1], prompt); !s.ok()) return s;
    if (const Status s = Tokens(line, wanted_[2], output); !s.ok()) return s;
    if (prompt == 0 || output == 0) {  // a request that failed
      builder_.Skip();
      return {};
    }
    TraceRequest request;
    request.meta.prompt_tokens = TokenCount(prompt);
    request.truth.output_tokens = TokenCount(output);
    return builder_.Add(at, std::move(request), {source_.line(), cells_.ColumnOf(wanted_[0], line)});
  }

  Status Arrival(std::string_view line, int64_t& out) {
    const std::string_view text = cells_.text[wanted_[0]];
    if (format_ == TraceFormat::kAzure) {
      const std::optional<int64_t> at = ParseTimestamp(text);
      if (!at) return Bad(line, wanted_[0], "must be a time such as 2023-11-16 18:15:46.6805900");
      out = *at;
      return {};
    }
    if (ParseScaled(text, 9, false, out) != NumberError::kNone || out < 0)
      return Bad(line, wanted_[0], "must be a number of seconds, at least 0");
    return {};
  }

  Status Tokens(std::string_view line, size_t cell, int64_t& out) {
    if (ParseScaled(cells_.text[cell], 0, true, out) != NumberError::kNone || out < 0 || out > INT32_MAX)
      return Bad(line, cell, "must be a whole number of tokens from 0 to 2147483647");
    return {};
  }

  Error Bad(std::string_view line, size_t cell, std::string_view rule) const {
    return builder_.At(source_.line(), cells_.ColumnOf(cell, line), cells_.text[cell], rule);
  }

  TextSource& source_;
  TraceFormat format_;
  TraceBuilder builder_;
  Cells cells_;
  size_t columns_ = 0;
  std::array<size_t, 3> wanted_{};  // cells of time, prompt, output
};

}  // namespace

Result<LoadedTrace> ReadCsvTrace(TextSource& source, TraceFormat format, const LoadTraceOptions& options) {
  return CsvReader(source, format, options).Read();
}

}  // namespace foretoken::traces
