// Log: what a running process tells on standard error: lines for people, or one JSON object a line. Rate-limited per kind of line, so that
// neither a hostile peer nor a flood of one trouble fills a disk or hides another; what is left out is counted and told. Any thread.
// Lines hold names, ids and numbers. What clients send - prompts - is never handed in.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace foretoken {

enum class LogFormat : uint8_t { kText, kJson };
enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

class Log {
 public:
  using Value = std::variant<std::string_view, double, int64_t, bool>;
  using Fields = std::initializer_list<std::pair<std::string_view, Value>>;
  struct Options {
    std::string program = "foretoken";  // in front of every line: "foretoken gateway"
    LogFormat format = LogFormat::kText;
    LogLevel level = LogLevel::kInfo;
    double lines_per_second = 20;  // of each kind; a burst of a second's worth
    // Gets each line instead of standard error; seconds of a clock that never goes back instead of the system's. For tests.
    std::function<void(const std::string&)> sink;
    std::function<double()> clock;
  };

  explicit Log(Options options);
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  // kind: of a fixed list in the code ("engine_out"), what the limit is per. Seconds are in fields whose name ends in _s.
  // A field whose value stands in the message already is not repeated in text.
  void Write(LogLevel level, std::string_view kind, std::string_view message, Fields fields = {});
  // As Write, but at most one line of this kind a second: examples of what happens often.
  void Example(LogLevel level, std::string_view kind, std::string_view message, Fields fields = {});
  // Lines left out so far, all kinds.
  uint64_t suppressed() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace foretoken
