// InputsDigest: names what a grid evaluates, so that rows of other inputs are never taken for its own.
#pragma once

#include <string>

#include "integration/eval/grid.h"
#include "runtime/base/result.h"

namespace foretoken {

// SHA-256 in hex over everything in the grid and the text of the files that it names. Not covered: files that those name in turn
// (step tables, traces). Error: a file cannot be read.
Result<std::string> InputsDigest(const Grid& grid);

}  // namespace foretoken
