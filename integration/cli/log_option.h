// What commands that run a system have in common for their log: --log-format and --log-level.
#pragma once

#include <CLI/App.hpp>
#include <memory>
#include <string>

#include "integration/log/log.h"

namespace foretoken {

struct LogChoice {
  std::string format = "text";
  std::string level = "info";
};

void AddLogOptions(CLI::App& command, LogChoice& choice);
// `program`: in front of every line: "foretoken serve".
std::shared_ptr<Log> MakeLog(const LogChoice& choice, const std::string& program);

}  // namespace foretoken
