// Reads typed values out of a ConfigNode tree, strictly: wrong type, wrong unit, out of range, unknown name and unknown key
// each become one error with path, value, rule and the nearest valid name. Absent keys leave the caller's default untouched.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/config_tree.h"
#include "runtime/base/units.h"

namespace foretoken {

struct IntRange {
  int64_t min = 0;
  int64_t max = std::numeric_limits<int64_t>::max();
};

struct RealRange {
  double min = 0;
  double max = std::numeric_limits<double>::max();
  bool min_excluded = false;
};

struct DurationRange {
  Duration min;
  Duration max = Duration::Seconds(365 * 86'400);
};

template <class E>
using Names = std::span<const std::pair<std::string_view, E>>;

// ` (did you mean "x"?)`, or nothing without names.
std::string DidYouMean(std::string_view name, const std::vector<std::string_view>& names);

// Values by node; each returns nothing after having reported an error.
std::optional<int64_t> ReadInt(const ConfigNode& node, const std::string& path, IntRange range, ConfigErrorSink& sink);
std::optional<double> ReadReal(const ConfigNode& node, const std::string& path, RealRange range, ConfigErrorSink& sink);
std::optional<bool> ReadBool(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink);
std::optional<std::string> ReadText(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink);  // not empty
std::optional<Duration> ReadDuration(const ConfigNode& node, const std::string& path, DurationRange range,
                                     ConfigErrorSink& sink);
// A duration as a real number of nanoseconds, for coefficients below one: "0.5ns".
std::optional<double> ReadNanos(const ConfigNode& node, const std::string& path, Duration min, ConfigErrorSink& sink);
std::optional<int64_t> ReadBytes(const ConfigNode& node, const std::string& path, IntRange range, ConfigErrorSink& sink);
// Index of the name.
std::optional<size_t> ReadName(const ConfigNode& node, const std::string& path, const std::vector<std::string_view>& names,
                               ConfigErrorSink& sink);

// One map: reads its keys and, at Finish, reports those that nobody asked for.
class ConfigMap {
 public:
  // Reports when `node` is no map; then every key is absent.
  ConfigMap(const ConfigNode& node, std::string path, ConfigErrorSink& sink);

  // The value of a key; absent: nullptr. Reports a key without a value, and treats it as absent.
  const ConfigNode* Find(std::string_view key);
  // As Find; reports a missing key.
  const ConfigNode* Require(std::string_view key);
  // Reports `key` if it is there, with the reason why it does not belong; it is then known.
  void Refuse(std::string_view key, const std::string& reason);
  // The key is set in the file, whatever its value.
  bool Has(std::string_view key) const { return node_->Find(key) != nullptr; }

  template <class T>
  bool Int(std::string_view key, IntRange range, T& out) {
    const int64_t most = static_cast<int64_t>(std::numeric_limits<T>::max());
    if (std::numeric_limits<T>::digits < 63 && range.max > most) range.max = most;
    const ConfigNode* n = Find(key);
    const std::optional<int64_t> v = n == nullptr ? std::nullopt : ReadInt(*n, PathOf(key), range, *sink_);
    if (v) out = static_cast<T>(*v);
    return v.has_value();
  }
  bool Real(std::string_view key, RealRange range, double& out);
  bool Bool(std::string_view key, bool& out);
  bool Text(std::string_view key, std::string& out);
  bool Time(std::string_view key, DurationRange range, Duration& out);
  bool Bytes(std::string_view key, IntRange range, int64_t& out);
  template <class E>
  bool Enum(std::string_view key, Names<E> names, E& out) {
    const ConfigNode* n = Find(key);
    if (n == nullptr) return false;
    std::vector<std::string_view> words;
    for (const auto& [word, value] : names) words.push_back(word);
    const std::optional<size_t> index = ReadName(*n, PathOf(key), words, *sink_);
    if (index) out = names[*index].second;
    return index.has_value();
  }

  // Reports the keys that nobody asked for.
  void Finish();

  std::string PathOf(std::string_view key) const;
  const std::string& path() const { return path_; }
  const ConfigNode& node() const { return *node_; }
  ConfigErrorSink& sink() { return *sink_; }
  // "path.key = value: rule" at the key's value, or "path.key: rule" at the map when the key is not set.
  void Fault(std::string_view key, const std::string& rule);

 private:
  const ConfigNode* node_;
  std::string path_;
  ConfigErrorSink* sink_;
  std::vector<std::string> known_;
};

// The items of a list at `key`, with their paths; reports when it is no list.
struct ConfigItem {
  const ConfigNode* node;
  std::string path;
};
std::vector<ConfigItem> ReadList(ConfigMap& map, std::string_view key);
// A list of texts; one text alone is a list of one.
std::vector<std::string> ReadTexts(ConfigMap& map, std::string_view key);

}  // namespace foretoken
