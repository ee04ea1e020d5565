#include "integration/cli/log_option.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>

namespace foretoken {
namespace {

constexpr std::array<const char*, 4> kLevels = {"debug", "info", "warning", "error"};  // as LogLevel

}  // namespace

void AddLogOptions(CLI::App& command, LogChoice& choice) {
  command.add_option("--log-format", choice.format, "Lines on standard error: text, or json: one object a line")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command.add_option("--log-level", choice.level, "The least that is told: debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
}

std::shared_ptr<Log> MakeLog(const LogChoice& choice, const std::string& program) {
  Log::Options o;
  o.program = program;
  o.format = choice.format == "json" ? LogFormat::kJson : LogFormat::kText;
  o.level = static_cast<LogLevel>(std::find(kLevels.begin(), kLevels.end(), choice.level) - kLevels.begin());
  return std::make_shared<Log>(std::move(o));
}

}  // namespace foretoken
