// BecomeBackground: the calling thread is for those who watch, not for those who wait: where processors are few it gives way to every thread
// that serves. (Linux: niceness is a thread's own, and growing it needs no right.)
#pragma once

#include <sys/resource.h>
#include <unistd.h>

namespace foretoken {

inline void BecomeBackground(int niceness = 10) {
  // Refused: it is as nice as before, which costs latency and breaks nothing.
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), niceness));
}

}  // namespace foretoken
