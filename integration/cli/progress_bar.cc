#include "integration/cli/progress_bar.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

namespace foretoken {

ProgressBar::ProgressBar(std::string what, std::string unit, bool quiet)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      quiet_(quiet),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

ProgressBar::~ProgressBar() {
  if (shown_ && terminal_) std::fprintf(stderr, "\r\033[K");
}

void ProgressBar::Show(size_t done, size_t total) {
  if (quiet_ || total == 0) return;
  using std::chrono::duration;
  const auto now = std::chrono::steady_clock::now();
  const double share = static_cast<double>(done) / static_cast<double>(total);
  if (!terminal_) {
    constexpr size_t kLines = 10;
    if (duration<double>(now - start_).count() < 2 || done * kLines < next_line_ * total) return;  // short work needs no lines
    next_line_ = done * kLines / total + 1;
    std::fprintf(stderr, "%s: %zu of %zu %s\n", what_.c_str(), done, total, unit_.c_str());
    return;
  }
  if (shown_ && duration<double>(now - last_).count() < 0.1) return;
  last_ = now;
  shown_ = true;
  constexpr int kWidth = 30;
  const int filled = static_cast<int>(share * kWidth);
  const double left = share > 0 ? duration<double>(now - start_).count() * (1 - share) / share : 0;
  std::fprintf(stderr, "\r\033[K%s [%.*s%*s] %3.0f %% of %zu %s, %.0f s left", what_.c_str(), filled,
               "##############################", kWidth - filled, "", 100 * share, total, unit_.c_str(), left);
}

}  // namespace foretoken
