#include "integration/log/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>

namespace foretoken {
namespace {

spdlog::level::level_enum LevelOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

double SteadySeconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// One line whatever a name holds; and none so long that it fills a disk.
std::string OneLine(std::string_view text) {
  std::string out(text.substr(0, 2000));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return out;
}

boost::json::value JsonOf(const Log::Value& v) {
  if (const auto* text = std::get_if<std::string_view>(&v)) return boost::json::value(text->substr(0, 2000));
  if (const auto* number = std::get_if<double>(&v)) return *number;
  if (const auto* number = std::get_if<int64_t>(&v)) return *number;
  return std::get<bool>(v);
}

std::string TextOf(const Log::Value& v) {
  if (const auto* text = std::get_if<std::string_view>(&v)) return OneLine(*text);
  if (const auto* number = std::get_if<double>(&v)) return fmt::format("{:.6g}", *number);
  if (const auto* number = std::get_if<int64_t>(&v)) return std::to_string(*number);
  return std::get<bool>(v) ? "true" : "false";
}

}  // namespace

class Log::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)), logger_(options_.program, SinkOf(options_)) {
    logger_.set_level(LevelOf(options_.level));
    // JSON's time and level are written by spdlog as well; the rest of the object is the message.
    const std::string pattern =
        options_.format == LogFormat::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%fZ","level":"%l",%v)" : "%v";
    logger_.set_formatter(std::make_unique<spdlog::pattern_formatter>(pattern, spdlog::pattern_time_type::utc));
    logger_.flush_on(spdlog::level::trace);
  }

  void Write(LogLevel level, std::string_view kind, double per_second, std::string_view message, const Fields& fields) {
    const auto severity = LevelOf(level);
    if (!logger_.should_log(severity)) return;
    uint64_t left_out = 0;
    {
      const std::lock_guard lock(mutex_);
      if (!Allowed(kind, per_second, left_out)) return;
    }
    logger_.log(severity,
                options_.format == LogFormat::kJson ? Json(kind, message, fields, left_out) : Text(message, fields, left_out));
  }
  double lines_per_second() const { return options_.lines_per_second; }
  uint64_t suppressed() const {
    const std::lock_guard lock(mutex_);
    return suppressed_;
  }

 private:
  struct Kind {
    double allowance = 0;
    double at = 0;
    uint64_t left_out = 0;  // since the last line
  };

  static std::shared_ptr<spdlog::sinks::sink> SinkOf(const Options& options) {
    if (!options.sink) return std::make_shared<spdlog::sinks::stderr_sink_mt>();
    return std::make_shared<LineSink>(options.sink);
  }
  class LineSink final : public spdlog::sinks::base_sink<std::mutex> {
   public:
    explicit LineSink(std::function<void(const std::string&)> use) : use_(std::move(use)) {}

   protected:
    void sink_it_(const spdlog::details::log_msg& message) override {
      spdlog::memory_buf_t line;
      formatter_->format(message, line);
      use_(fmt::to_string(line));
    }
    void flush_() override {}

   private:
    std::function<void(const std::string&)> use_;
  };

  bool Allowed(std::string_view kind, double per_second, uint64_t& left_out) {
    const double now = options_.clock ? options_.clock() : SteadySeconds();
    auto at = kinds_.find(kind);
    if (at == kinds_.end()) at = kinds_.emplace(std::string(kind), Kind{per_second, now, 0}).first;
    Kind& k = at->second;
    k.allowance = std::min(std::max(per_second, 1.0), k.allowance + (now - k.at) * per_second);
    k.at = now;
    if (k.allowance < 1) {
      ++k.left_out;
      ++suppressed_;
      return false;
    }
    k.allowance -= 1;
    left_out = std::exchange(k.left_out, 0);
    return true;
  }
  std::string Json(std::string_view kind, std::string_view message, const Fields& fields, uint64_t left_out) const {
    boost::json::object o{{"program", options_.program}, {"kind", kind}, {"message", message.substr(0, 2000)}};
    for (const auto& [name, value] : fields) o[name] = JsonOf(value);
    if (left_out > 0) o["suppressed"] = left_out;
    return boost::json::serialize(o).substr(1);  // its brace is in the pattern
  }
  std::string Text(std::string_view message, const Fields& fields, uint64_t left_out) const {
    std::string out = options_.program + ": " + OneLine(message);
    for (const auto& [name, value] : fields) {
      const std::string text = TextOf(value);
      if (message.find(text) == std::string_view::npos) out.append(" ").append(name).append("=").append(text);
    }
    if (left_out > 0) out += " (and " + std::to_string(left_out) + " more of this kind left out)";
    return out;
  }

  Options options_;
  spdlog::logger logger_;
  mutable std::mutex mutex_;
  std::map<std::string, Kind, std::less<>> kinds_;
  uint64_t suppressed_ = 0;
};

Log::Log(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Log::~Log() = default;

void Log::Write(LogLevel level, std::string_view kind, std::string_view message, Fields fields) {
  impl_->Write(level, kind, impl_->lines_per_second(), message, fields);
}
void Log::Example(LogLevel level, std::string_view kind, std::string_view message, Fields fields) {
  impl_->Write(level, kind, 1, message, fields);
}
uint64_t Log::suppressed() const { return impl_->suppressed(); }

}  // namespace foretoken
