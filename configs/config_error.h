// What is wrong with a configuration, all of it: one entry per mistake, in the order of the file.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "runtime/base/check.h"

namespace foretoken {

struct ConfigError {
  std::string where;    // "file:line:column", or "--set path=value"
  std::string path;     // "pools[0].instances[2].count"; may be empty
  std::string message;  // "pools[0].instances[2].count = 0: must be >= 1"

  std::string ToString() const { return where + ": " + message; }
};

struct ConfigErrors {
  std::vector<ConfigError> errors;

  bool empty() const { return errors.empty(); }
  // One line each, each ended by a newline.
  std::string ToString() const {
    std::string text;
    for (const ConfigError& e : errors) text += e.ToString() + "\n";
    return text;
  }
};

// A value, or everything that is wrong with its text.
template <class T>
class [[nodiscard]] ConfigResult {
 public:
  ConfigResult(T value) : v_(std::in_place_index<0>, std::move(value)) {}               // NOLINT: implicit on purpose
  ConfigResult(ConfigErrors errors) : v_(std::in_place_index<1>, std::move(errors)) {}  // NOLINT: implicit on purpose

  bool ok() const { return v_.index() == 0; }
  const T& value() const& {
    FT_CHECK(ok());
    return std::get<0>(v_);
  }
  T&& value() && {
    FT_CHECK(ok());
    return std::get<0>(std::move(v_));
  }
  const T* operator->() const { return &value(); }
  const T& operator*() const& { return value(); }
  const ConfigErrors& errors() const {
    FT_CHECK(!ok());
    return std::get<1>(v_);
  }

 private:
  std::variant<T, ConfigErrors> v_;
};

}  // namespace foretoken
