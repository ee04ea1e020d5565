// CHECK: states what must hold if the code is right. A failed CHECK is a bug of ours, never a user's mistake
// (those are Result errors); it prints the condition and aborts.
#pragma once

namespace foretoken {
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}  // namespace foretoken

#define FT_CHECK(condition) \
  (__builtin_expect(static_cast<bool>(condition), 1) ? (void)0 : ::foretoken::CheckFailed(#condition, __FILE__, __LINE__))
