// The list of workers in a file: one URL a line, as on the command line; `#` begins a comment. Pure.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

// Error: "path:line: ...", the first that is wrong; a list without a worker is one that is being written, or a mistake.
Result<std::vector<std::string>> ReadWorkerList(const std::string& text, const std::string& path);

}  // namespace foretoken
