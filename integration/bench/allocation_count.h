// Counts calls of operator new in this thread: linking this library replaces the program's global operator new and delete by
// ones that count and call malloc and free.
#pragma once

#include <cstdint>

namespace foretoken {

uint64_t AllocationsOfThisThread();

}  // namespace foretoken
