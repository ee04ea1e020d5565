// ProgressBar: how far long work is, on stderr: a bar with the time left on a terminal, a plain line every tenth otherwise.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace foretoken {

class ProgressBar {
 public:
  // `what` is done to `unit`s. Quiet: shows nothing.
  ProgressBar(std::string what, std::string unit, bool quiet);
  ~ProgressBar();
  void Show(size_t done, size_t total);

 private:
  std::string what_, unit_;
  bool quiet_;
  bool terminal_;
  bool shown_ = false;
  size_t next_line_ = 1;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace foretoken
