// JSON as Python's json module reads and writes it. The executable specification of the scheduler is a Python program whose
// lines are compared to the last character, so a number keeps its literal (Boost.JSON 1.81 may round the last bit of a
// double) and a double is written as Python's repr writes it.
// Guarantees: a document that parses here parses in Python; nesting is bounded. Refuses NaN and Infinity, which Python accepts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

struct JsonValue {
  enum class Kind : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  std::string text;               // number: its literal; string: decoded, UTF-8; bool: "true" or "false"
  std::vector<JsonValue> values;  // array elements, or an object's values
  std::vector<std::string> keys;  // of an object, parallel to `values`

  // The value of a key (the last one, as in Python, if a key is repeated); null if this is no object or has no such key.
  const JsonValue* Find(std::string_view key) const;
  // A number written without fraction and exponent, within int64.
  std::optional<int64_t> AsInt() const;
  std::optional<double> AsDouble() const;
  std::optional<bool> AsBool() const;
  bool is_string() const { return kind == Kind::kString; }
  bool is_array() const { return kind == Kind::kArray; }
  bool is_object() const { return kind == Kind::kObject; }
};

// Error: "column N: what was expected". One document; white space around it is allowed.
Result<JsonValue> ParseJson(std::string_view text);

// A number as Python holds it: an int stays an int when printed.
struct PythonNumber {
  double value = 0;
  bool is_int = false;
};
std::optional<PythonNumber> AsPythonNumber(const JsonValue& value);

// The whole text as a double, nearest value; absent if it is anything else.
std::optional<double> ParseDouble(std::string_view text);

// repr(x) of a finite double: the shortest digits that read back as x; exponent form below 1e-4 and from 1e16 on.
void AppendPythonFloat(double x, std::string& out);
void AppendPythonNumber(PythonNumber x, std::string& out);
// json.dumps(s) with its default ensure_ascii; `utf8` must be valid.
void AppendPythonString(std::string_view utf8, std::string& out);

}  // namespace foretoken
