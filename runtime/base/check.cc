#include "runtime/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace foretoken {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: CHECK failed: %s (a bug in foretoken; please report it with the command line)\n", file, line,
               condition);
  std::abort();
}

}  // namespace foretoken
