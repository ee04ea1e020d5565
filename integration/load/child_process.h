// ChildProcess: a server that runs beside this program, with what it costs. Ended with its owner, or with this program.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

class ChildProcess {
 public:
  // `argv[0]` is a path or is looked for in PATH. Its standard output goes to a pipe (Line()), its errors to `errors` (a file, may be
  // empty: dropped).
  static Result<std::unique_ptr<ChildProcess>> Start(const std::vector<std::string>& argv, const std::string& errors = {});
  ~ChildProcess();  // SIGTERM, after two seconds SIGKILL
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // The next line of its standard output that has `text` in it. Error: it ended, or none came within `limit`.
  Result<std::string> LineWith(const std::string& text, Duration limit);

  bool running() const;
  pid_t pid() const { return pid_; }
  // Of the process and those that it started and that still run.
  Duration cpu() const;
  double peak_rss_mb() const;

 private:
  ChildProcess(pid_t pid, int out, std::string name) : pid_(pid), out_(out), name_(std::move(name)) {}

  pid_t pid_;
  int out_;
  std::string name_;
  std::string read_;
};

// Starts this very program with these arguments.
Result<std::unique_ptr<ChildProcess>> StartSelf(std::vector<std::string> arguments);

}  // namespace foretoken
