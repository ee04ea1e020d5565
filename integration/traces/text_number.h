// Numbers in trace files, read exactly: a decimal such as 1.25e-3 seconds becomes whole nanoseconds without passing through a
// double. Also the one form that every complaint about a trace file has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/result.h"

namespace foretoken::traces {

enum class NumberError : uint8_t { kNone, kNotANumber, kNotWhole, kTooLarge };

// The whole of `text`, as JSON writes numbers (leading zeros and '+' are let through: spreadsheets write them), times 10^scale,
// rounded half away from zero. With `whole`, a value that is not a whole number after scaling is refused.
NumberError ParseScaled(std::string_view text, int scale, bool whole, int64_t& out);

// "<file>:<line>:<column>: <value>: <rule>". Value: shortened to 40 bytes, what is not printable ASCII as \xNN.
Error TraceError(std::string_view file, size_t line, size_t column, std::string_view value, std::string_view rule);
std::string Printable(std::string_view value);

// True if `text` is valid UTF-8 (no overlong form, no surrogate). Else `bad` is the index of the first byte that breaks it.
bool IsUtf8(std::string_view text, size_t& bad);

}  // namespace foretoken::traces
